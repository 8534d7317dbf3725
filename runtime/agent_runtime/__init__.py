"""The runtime around agents: orchestration of operators on the scheduler of flows.

    chain = ChainOperator([Agent(engine=engine), summarizer])
    result = await chain.execute({"text": "..."}, OperatorContext())

Importing this package imports none of its modules; a name loads the one that it comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime_core.lazy import lazy_exports

if TYPE_CHECKING:
    from agent_runtime.context import BudgetSpec, ExecutionContext, PolicyRef, RunVersions
    from agent_runtime.errors import (
        AgentRuntimeError,
        BudgetExceededError,
        GraphInvalid,
        LimitReached,
        OrchestrationError,
        PolicyDenied,
    )
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
    "context": ("BudgetSpec", "ExecutionContext", "PolicyRef", "RunVersions"),
    "errors": (
        "AgentRuntimeError",
        "BudgetExceededError",
        "GraphInvalid",
        "LimitReached",
        "OrchestrationError",
        "PolicyDenied",
    ),
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
}

__all__ = [
    "AgentOperator",
    "AgentRuntimeError",
    "BudgetExceededError",
    "BudgetSpec",
    "ChainOperator",
    "DebateOperator",
    "ExecutionContext",
    "ExecutionGraph",
    "FunctionOperator",
    "GraphEdge",
    "GraphExecutor",
    "GraphInvalid",
    "GraphNode",
    "GraphOperator",
    "GraphResults",
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
    "PolicyDenied",
    "PolicyRef",
    "RoundRobinRouter",
    "Router",
    "RuleRouter",
    "RunVersions",
]

__getattr__ = lazy_exports(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
