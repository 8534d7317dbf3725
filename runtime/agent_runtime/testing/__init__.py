"""The promises of stores as test suites, to run over stores of your own, and faults to put in front of them.

Importing this package imports none of its modules; a name loads the one that it comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentflow.lazy import lazy_exports

if TYPE_CHECKING:
    from agent_runtime.testing.actions import ActionStoreContract
    from agent_runtime.testing.database import DatabaseContract
    from agent_runtime.testing.faults import faulty
    from agent_runtime.testing.jobs import JobStoreContract

_HOMES = {
    "actions": ("ActionStoreContract",),
    "database": ("DatabaseContract",),
    "faults": ("faulty",),
    "jobs": ("JobStoreContract",),
}

__all__ = [
    "ActionStoreContract",
    "DatabaseContract",
    "JobStoreContract",
    "faulty",
]

__getattr__ = lazy_exports(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
