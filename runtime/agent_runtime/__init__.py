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
        GraphInvalid,
        JobConflictError,
        JobError,
        JobNotFoundError,
        JobStateError,
        LimitReached,
        OrchestrationError,
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
    from agent_runtime.orchestration.chain import ChainOperator
    from agent_runtime.orchestration.config import OrchestrationConfig
    from agent_runtime.orchestration.context import OperatorContext, OperatorEvent
    from agent_runtime.orchestration.debate import DebateOperator
    from agent_runtime.orchestration.executor import GraphExecutor, GraphOperator, GraphResults
    from agent_runtime.orchestration.graph import ExecutionGraph, GraphEdge, GraphNode
    from agent_runtime.orchestration.map_reduce import MapReduceOperator
    from agent_runtime.orchestration.operators import AgentOperator, FunctionOperator, Operator
    from agent_runtime.orchestration.parallel import ParallelOperator
    from agent_runtime.orchestration.plan_execute import PlannerExecutorOperator
    from agent_runtime.orchestration.results import OperatorResult
    from agent_runtime.orchestration.routers import (
        KeywordRouter,
        LeastBusyRouter,
        ModelRouter,
        RoundRobinRouter,
        Router,
        RuleRouter,
    )

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
        "GraphInvalid",
        "JobConflictError",
        "JobError",
        "JobNotFoundError",
        "JobStateError",
        "LimitReached",
        "OrchestrationError",
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
    "orchestration.chain": ("ChainOperator",),
    "orchestration.config": ("OrchestrationConfig",),
    "orchestration.context": (
        "OperatorContext",
        "OperatorEvent",
    ),
    "orchestration.debate": ("DebateOperator",),
    "orchestration.executor": (
        "GraphExecutor",
        "GraphOperator",
        "GraphResults",
    ),
    "orchestration.graph": (
        "ExecutionGraph",
        "GraphEdge",
        "GraphNode",
    ),
    "orchestration.map_reduce": ("MapReduceOperator",),
    "orchestration.operators": (
        "AgentOperator",
        "FunctionOperator",
        "Operator",
    ),
    "orchestration.parallel": ("ParallelOperator",),
    "orchestration.plan_execute": ("PlannerExecutorOperator",),
    "orchestration.results": ("OperatorResult",),
    "orchestration.routers": (
        "KeywordRouter",
        "LeastBusyRouter",
        "ModelRouter",
        "RoundRobinRouter",
        "Router",
        "RuleRouter",
    ),
}

__all__ = [
    "ActionConflictError",
    "ActionError",
    "ActionExpiredError",
    "ActionNotFoundError",
    "ActionPendingError",
    "AgentOperator",
    "AgentRuntimeError",
    "BudgetExceededError",
    "BudgetSpec",
    "ChainOperator",
    "DebateOperator",
    "EventBus",
    "EventStream",
    "ExecutionContext",
    "ExecutionGraph",
    "FunctionOperator",
    "GraphEdge",
    "GraphExecutor",
    "GraphInvalid",
    "GraphNode",
    "GraphOperator",
    "GraphResults",
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
    "KeywordRouter",
    "LeastBusyRouter",
    "LimitReached",
    "MapReduceOperator",
    "ModelRouter",
    "Operator",
    "OperatorContext",
    "OperatorEvent",
    "OperatorResult",
    "OrchestrationConfig",
    "OrchestrationError",
    "ParallelOperator",
    "PlannerExecutorOperator",
    "PluginError",
    "PolicyDenied",
    "PolicyRef",
    "RoundRobinRouter",
    "Router",
    "RuleRouter",
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
