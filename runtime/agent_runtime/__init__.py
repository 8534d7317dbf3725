"""Jobs, actions, policy, events and orchestration on top of the engine and the stores.

Importing this package imports none of its modules; a name loads the one that it comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime_core.lazy import lazy_exports

if TYPE_CHECKING:
    from agent_runtime.actions.signals import LocalSignalChannel, SignalChannel
    from agent_runtime.postgres import PostgresActionStore, PostgresJobStore
    from agent_runtime.redis.actions import RedisActionStore
    from agent_runtime.redis.jobs import RedisJobCache
    from agent_runtime.redis.signals import RedisSignalChannel

_HOMES = {
    "actions.signals": ("LocalSignalChannel", "SignalChannel"),
    "postgres": ("PostgresActionStore", "PostgresJobStore"),
    "redis.actions": ("RedisActionStore",),
    "redis.jobs": ("RedisJobCache",),
    "redis.signals": ("RedisSignalChannel",),
}

__all__ = [
    "LocalSignalChannel",
    "PostgresActionStore",
    "PostgresJobStore",
    "RedisActionStore",
    "RedisJobCache",
    "RedisSignalChannel",
    "SignalChannel",
]

__getattr__ = lazy_exports(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
