"""The promises of stores as test suites, to run over stores of your own, and faults to put in front of them.

Importing this package imports none of its modules; a name loads the one that it comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime_core.lazy import lazy_exports

if TYPE_CHECKING:
    from agent_runtime.testing.database import DatabaseContract
    from agent_runtime.testing.faults import faulty

_HOMES = {
    "database": ("DatabaseContract",),
    "faults": ("faulty",),
}

__all__ = [
    "DatabaseContract",
    "faulty",
]

__getattr__ = lazy_exports(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
