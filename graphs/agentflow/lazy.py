"""A package whose names load their modules when they are first asked for (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def lazy_exports(package: str, homes: Mapping[str, Iterable[str]]) -> Callable[[str], Any]:
    """The package's `__getattr__`. `homes` maps each of its modules to the names that come from it; both are found."""
    home_of = {name: home for home, names in homes.items() for name in names}

    def find(name: str) -> Any:
        if (home := home_of.get(name)) is not None:
            return getattr(import_module(f"{package}.{home}"), name)
        if name in homes:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
