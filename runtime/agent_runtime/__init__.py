"""Jobs, actions, policy, events and orchestration on top of the engine and the stores.

Importing this package imports none of its modules; a name loads the one that it comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime_core.lazy import lazy_exports

if TYPE_CHECKING:
    from agent_runtime.context import BudgetSpec, ExecutionContext, PolicyRef, RunVersions
    from agent_runtime.errors import (
        ActionConflictError,
        ActionError,
        ActionExpiredError,
        ActionNotFoundError,
        ActionPendingError,
        AgentRuntimeError,
        BudgetExceededError,
        JobConflictError,
        JobError,
        JobNotFoundError,
        JobStateError,
        PluginError,
        PolicyDenied,
        ScopeMismatchError,
    )
    from agent_runtime.events.bus import EventBus, EventStream, Subscription
    from agent_runtime.events.memory import InMemoryEventBus
    from agent_runtime.events.types import RuntimeEvent, RuntimeEventType
    from agent_runtime.jobs.manager import JobManager
    from agent_runtime.jobs.records import JobFailure, JobRecord, JobSpec, JobStatus
    from agent_runtime.jobs.sql_store import InMemoryJobStore, SqliteJobStore
    from agent_runtime.jobs.store import JobCursor, JobFilter, JobPage, JobStore

_HOMES = {
    "context": (
        "BudgetSpec",
        "ExecutionContext",
        "PolicyRef",
        "RunVersions",
    ),
    "errors": (
        "ActionConflictError",
        "ActionError",
        "ActionExpiredError",
        "ActionNotFoundError",
        "ActionPendingError",
        "AgentRuntimeError",
        "BudgetExceededError",
        "JobConflictError",
        "JobError",
        "JobNotFoundError",
        "JobStateError",
        "PluginError",
        "PolicyDenied",
        "ScopeMismatchError",
    ),
    "events.bus": (
        "EventBus",
        "EventStream",
        "Subscription",
    ),
    "events.memory": ("InMemoryEventBus",),
    "events.types": (
        "RuntimeEvent",
        "RuntimeEventType",
    ),
    "jobs.manager": ("JobManager",),
    "jobs.records": (
        "JobFailure",
        "JobRecord",
        "JobSpec",
        "JobStatus",
    ),
    "jobs.sql_store": (
        "InMemoryJobStore",
        "SqliteJobStore",
    ),
    "jobs.store": (
        "JobCursor",
        "JobFilter",
        "JobPage",
        "JobStore",
    ),
}

__all__ = [
    "ActionConflictError",
    "ActionError",
    "ActionExpiredError",
    "ActionNotFoundError",
    "ActionPendingError",
    "AgentRuntimeError",
    "BudgetExceededError",
    "BudgetSpec",
    "EventBus",
    "EventStream",
    "ExecutionContext",
    "InMemoryEventBus",
    "InMemoryJobStore",
    "JobConflictError",
    "JobCursor",
    "JobError",
    "JobFailure",
    "JobFilter",
    "JobManager",
    "JobNotFoundError",
    "JobPage",
    "JobRecord",
    "JobSpec",
    "JobStateError",
    "JobStatus",
    "JobStore",
    "PluginError",
    "PolicyDenied",
    "PolicyRef",
    "RunVersions",
    "RuntimeEvent",
    "RuntimeEventType",
    "ScopeMismatchError",
    "SqliteJobStore",
    "Subscription",
]

__getattr__ = lazy_exports(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
