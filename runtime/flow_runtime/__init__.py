"""Running flows: node bodies, operations, code, state, and whole flows in one process.

`await flow_runtime.run(flow, request, hub=...)` runs one request; `LocalFlow` keeps a flow ready for many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flow_runtime.local import LocalFlow, LocalSettings, run

__all__ = ["LocalFlow", "LocalSettings", "run"]


def __getattr__(name: str) -> Any:
    # The sandbox's worker is a module of this package and must start in a few hundredths of a second.
    if name in __all__:
        from flow_runtime import local

        return getattr(local, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
