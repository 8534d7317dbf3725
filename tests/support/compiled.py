"""Compiled flows for tests: generated modules written to a file, imported from there and run."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from agentflow.compile import MODULE, Places, Target, compile_plan
from agentflow.planning import Plan
from flow_runtime.compiled import LocalAgent

_numbers = itertools.count()


@contextmanager
def imported(path: Path) -> Iterator[ModuleType]:
    """A generated file as a module, under a name that nothing else has."""
    spec = importlib.util.spec_from_file_location(f"af_compiled_{next(_numbers)}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[module.__name__]


def written(plan: Plan, folder: Path, *, target: Target = "local", places: Places = lambda _: None) -> Path:
    """The compiled flow, in a file."""
    path = folder / MODULE
    path.write_text(compile_plan(plan, target=target, places=places)[MODULE], encoding="utf-8")
    return path


def agent_of(module: ModuleType) -> type[LocalAgent]:
    """The one agent of a generated module."""
    [agent] = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
    return agent
