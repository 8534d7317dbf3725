"""Running flows: node bodies, operations, code, state, and whole flows in one process.

`await flow_runtime.run(flow, request, hub=...)` runs one request; `LocalFlow` keeps a flow ready for many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentflow.lazy import lazy_exports

if TYPE_CHECKING:
    from flow_runtime.local import LocalFlow, LocalSettings, run

__all__ = ["LocalFlow", "LocalSettings", "run"]

# The sandbox's worker is a module of this package and must start in a few hundredths of a second.
__getattr__ = lazy_exports(__name__, {"local": __all__})
