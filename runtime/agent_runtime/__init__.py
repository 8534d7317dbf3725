"""Jobs, actions, policy, ledger, events and orchestration on top of the engine and the stores.

Importing this package imports none of its modules; a name loads the one that it comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentflow.lazy import lazy_exports

if TYPE_CHECKING:
    from agent_runtime.actions.manager import ActionManager
    from agent_runtime.actions.records import ActionRecord, ActionSpec, ActionStatus
    from agent_runtime.actions.signals import LocalSignalChannel, SignalChannel
    from agent_runtime.actions.sql_store import InMemoryActionStore, SqliteActionStore
    from agent_runtime.actions.store import ActionCursor, ActionFilter, ActionStore
    from agent_runtime.context import BudgetSpec, ExecutionContext, PolicyRef, RunVersions
    from agent_runtime.errors import (
        ActionConflictError,
        ActionError,
        ActionExpiredError,
        ActionNotFoundError,
        ActionPendingError,
        AgentRuntimeError,
        BudgetExceededError,
        ExecutionCancelledError,
        ExecutionError,
        ExecutionFailedError,
        ExecutionTimedOutError,
        GraphInvalid,
        JobConflictError,
        JobError,
        JobNotFoundError,
        JobStateError,
        LimitReached,
        OrchestrationError,
        PluginDependencyError,
        PluginError,
        PluginInvalidError,
        PluginRefusedError,
        PolicyDenied,
        ScopeMismatchError,
    )
    from agent_runtime.events.bus import EventBus, EventStream, Subscription
    from agent_runtime.events.memory import InMemoryEventBus
    from agent_runtime.events.types import RuntimeEvent, RuntimeEventType
    from agent_runtime.guards import GuardChain
    from agent_runtime.jobs.manager import JobManager
    from agent_runtime.jobs.records import JobFailure, JobRecord, JobSpec, JobStatus
    from agent_runtime.jobs.sql_store import InMemoryJobStore, SqliteJobStore
    from agent_runtime.jobs.store import JobCursor, JobFilter, JobPage, JobStore
    from agent_runtime.kernel.handle import ExecutionHandle
    from agent_runtime.kernel.kernel import RuntimeKernel
    from agent_runtime.kernel.request import ExecutionRequest, ExecutionResult
    from agent_runtime.kernel.result_store import InMemoryResultStore, ResultStore, SqlResultStore
    from agent_runtime.ledger.budget_file import BudgetDocument, load_budgets
    from agent_runtime.ledger.budgets import Budget
    from agent_runtime.ledger.decide import BudgetAnswer, BudgetDecision
    from agent_runtime.ledger.engine import EngineLedger
    from agent_runtime.ledger.finds import EventCursor, EventFilter, EventPage
    from agent_runtime.ledger.ledger import Ledger
    from agent_runtime.ledger.records import LedgerEvent, LedgerUsage, Reservation
    from agent_runtime.ledger.run_ledger import RunLedger
    from agent_runtime.ledger.tool_calls import LedgerMiddleware, ToolLedger
    from agent_runtime.ledger.writers import InMemoryLedgerWriter, PostgresLedgerWriter, SqliteLedgerWriter
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
    from agent_runtime.plugins.plugin import Plugin, PluginManifest
    from agent_runtime.plugins.registry import PluginRegistry
    from agent_runtime.policy.decide import Effect, PolicyResult
    from agent_runtime.policy.engine import PolicyEngine
    from agent_runtime.policy.guard import PolicyGuard, PolicyMiddleware
    from agent_runtime.policy.policy_file import load_policy
    from agent_runtime.policy.rules import (
        ConstraintPolicy,
        DataAccessPolicy,
        ModelPolicy,
        PolicyDocument,
        RedactionPolicy,
        ToolPolicy,
    )
    from agent_runtime.postgres import PostgresActionStore, PostgresJobStore
    from agent_runtime.redis.actions import RedisActionStore
    from agent_runtime.redis.jobs import RedisJobCache
    from agent_runtime.redis.signals import RedisSignalChannel

_HOMES = {
    "actions.manager": ("ActionManager",),
    "actions.records": ("ActionRecord", "ActionSpec", "ActionStatus"),
    "actions.signals": ("LocalSignalChannel", "SignalChannel"),
    "actions.sql_store": ("InMemoryActionStore", "SqliteActionStore"),
    "actions.store": ("ActionCursor", "ActionFilter", "ActionStore"),
    "context": ("BudgetSpec", "ExecutionContext", "PolicyRef", "RunVersions"),
    "errors": (
        "ActionConflictError",
        "ActionError",
        "ActionExpiredError",
        "ActionNotFoundError",
        "ActionPendingError",
        "AgentRuntimeError",
        "BudgetExceededError",
        "ExecutionCancelledError",
        "ExecutionError",
        "ExecutionFailedError",
        "ExecutionTimedOutError",
        "GraphInvalid",
        "JobConflictError",
        "JobError",
        "JobNotFoundError",
        "JobStateError",
        "LimitReached",
        "OrchestrationError",
        "PluginDependencyError",
        "PluginError",
        "PluginInvalidError",
        "PluginRefusedError",
        "PolicyDenied",
        "ScopeMismatchError",
    ),
    "events.bus": ("EventBus", "EventStream", "Subscription"),
    "events.memory": ("InMemoryEventBus",),
    "events.types": ("RuntimeEvent", "RuntimeEventType"),
    "guards": ("GuardChain",),
    "jobs.manager": ("JobManager",),
    "jobs.records": ("JobFailure", "JobRecord", "JobSpec", "JobStatus"),
    "jobs.sql_store": ("InMemoryJobStore", "SqliteJobStore"),
    "jobs.store": ("JobCursor", "JobFilter", "JobPage", "JobStore"),
    "kernel.handle": ("ExecutionHandle",),
    "kernel.kernel": ("RuntimeKernel",),
    "kernel.request": ("ExecutionRequest", "ExecutionResult"),
    "kernel.result_store": ("InMemoryResultStore", "ResultStore", "SqlResultStore"),
    "ledger.budget_file": ("BudgetDocument", "load_budgets"),
    "ledger.budgets": ("Budget",),
    "ledger.decide": ("BudgetAnswer", "BudgetDecision"),
    "ledger.engine": ("EngineLedger",),
    "ledger.finds": ("EventCursor", "EventFilter", "EventPage"),
    "ledger.ledger": ("Ledger",),
    "ledger.records": ("LedgerEvent", "LedgerUsage", "Reservation"),
    "ledger.run_ledger": ("RunLedger",),
    "ledger.tool_calls": ("LedgerMiddleware", "ToolLedger"),
    "ledger.writers": ("InMemoryLedgerWriter", "PostgresLedgerWriter", "SqliteLedgerWriter"),
    "orchestration.chain": ("ChainOperator",),
    "orchestration.config": ("OrchestrationConfig",),
    "orchestration.context": ("OperatorContext", "OperatorEvent"),
    "orchestration.debate": ("DebateOperator",),
    "orchestration.executor": ("GraphExecutor", "GraphOperator", "GraphResults"),
    "orchestration.graph": ("ExecutionGraph", "GraphEdge", "GraphNode"),
    "orchestration.map_reduce": ("MapReduceOperator",),
    "orchestration.operators": ("AgentOperator", "FunctionOperator", "Operator"),
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
    "plugins.plugin": ("Plugin", "PluginManifest"),
    "plugins.registry": ("PluginRegistry",),
    "policy.decide": ("Effect", "PolicyResult"),
    "policy.engine": ("PolicyEngine",),
    "policy.guard": ("PolicyGuard", "PolicyMiddleware"),
    "policy.policy_file": ("load_policy",),
    "policy.rules": (
        "ConstraintPolicy",
        "DataAccessPolicy",
        "ModelPolicy",
        "PolicyDocument",
        "RedactionPolicy",
        "ToolPolicy",
    ),
    "postgres": ("PostgresActionStore", "PostgresJobStore"),
    "redis.actions": ("RedisActionStore",),
    "redis.jobs": ("RedisJobCache",),
    "redis.signals": ("RedisSignalChannel",),
}

__all__ = [
    "ActionConflictError",
    "ActionError",
    "ActionExpiredError",
    "ActionCursor",
    "ActionFilter",
    "ActionManager",
    "ActionNotFoundError",
    "ActionPendingError",
    "ActionRecord",
    "ActionSpec",
    "ActionStatus",
    "ActionStore",
    "AgentOperator",
    "AgentRuntimeError",
    "Budget",
    "BudgetAnswer",
    "BudgetDecision",
    "BudgetDocument",
    "BudgetExceededError",
    "BudgetSpec",
    "ChainOperator",
    "ConstraintPolicy",
    "DataAccessPolicy",
    "DebateOperator",
    "Effect",
    "EngineLedger",
    "EventBus",
    "EventCursor",
    "EventFilter",
    "EventPage",
    "EventStream",
    "ExecutionCancelledError",
    "ExecutionContext",
    "ExecutionError",
    "ExecutionFailedError",
    "ExecutionGraph",
    "ExecutionHandle",
    "ExecutionRequest",
    "ExecutionResult",
    "ExecutionTimedOutError",
    "FunctionOperator",
    "GraphEdge",
    "GraphExecutor",
    "GraphInvalid",
    "GraphNode",
    "GraphOperator",
    "GraphResults",
    "GuardChain",
    "InMemoryActionStore",
    "InMemoryEventBus",
    "InMemoryJobStore",
    "InMemoryLedgerWriter",
    "InMemoryResultStore",
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
    "Ledger",
    "LedgerEvent",
    "LedgerMiddleware",
    "LedgerUsage",
    "LimitReached",
    "LocalSignalChannel",
    "MapReduceOperator",
    "ModelPolicy",
    "ModelRouter",
    "Operator",
    "OperatorContext",
    "OperatorEvent",
    "OperatorResult",
    "OrchestrationConfig",
    "OrchestrationError",
    "ParallelOperator",
    "PlannerExecutorOperator",
    "Plugin",
    "PluginDependencyError",
    "PluginError",
    "PluginInvalidError",
    "PluginManifest",
    "PluginRefusedError",
    "PluginRegistry",
    "PolicyDenied",
    "PolicyDocument",
    "PolicyEngine",
    "PolicyGuard",
    "PolicyMiddleware",
    "PolicyRef",
    "PolicyResult",
    "PostgresActionStore",
    "PostgresJobStore",
    "PostgresLedgerWriter",
    "RedactionPolicy",
    "RedisActionStore",
    "RedisJobCache",
    "RedisSignalChannel",
    "Reservation",
    "ResultStore",
    "RoundRobinRouter",
    "Router",
    "RuleRouter",
    "RunLedger",
    "RunVersions",
    "RuntimeEvent",
    "RuntimeEventType",
    "RuntimeKernel",
    "ScopeMismatchError",
    "SignalChannel",
    "SqlResultStore",
    "SqliteActionStore",
    "SqliteJobStore",
    "SqliteLedgerWriter",
    "Subscription",
    "ToolLedger",
    "ToolPolicy",
    "load_budgets",
    "load_policy",
]

__getattr__ = lazy_exports(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
