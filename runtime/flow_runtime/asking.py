"""On whose behalf a model is called: the node run that is going on, and what its calls have taken so far."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flow_runtime.call import NodeCall
from runtime_core.report import NO_USE, ModelUse

if TYPE_CHECKING:
    from flow_runtime.operations.resources import OperationResources
    from llm_client.spec import RequestContext


@dataclass(slots=True)
class Asking:
    """One run of a node. `use` grows with every call that ends, whatever becomes of it; `resources` ask people."""

    node: str
    call: NodeCall
    resources: OperationResources | None = None
    use: ModelUse = NO_USE

    def add(self, use: ModelUse) -> None:
        self.use += use


# Prompts, searches and tools lie at different depths below a node, and tasks of their own between them.
current: ContextVar[Asking | None] = ContextVar("agentflow_asking", default=None)


@contextmanager
def asking(node: str, call: NodeCall, resources: OperationResources | None = None) -> Iterator[Asking]:
    """The model calls of this block, and of the tasks that it starts, are the node's."""
    mine = Asking(node, call, resources)
    token = current.set(mine)
    try:
        yield mine
    finally:
        current.reset(token)


def in_budgeted_run() -> bool:
    """Whether the running node belongs to a run with a budget of its own, or of a run above it."""
    asking = current.get()
    return asking is not None and asking.call.context.budgets is not None


def request_context() -> RequestContext:
    """On whose behalf the running node asks."""
    from llm_client.spec import RequestContext

    asking = current.get()
    if asking is None:
        return RequestContext()
    run = asking.call.context
    # Every value was checked when the run began.
    return RequestContext.model_construct(
        trace_id=run.trace_id,
        tenant_id=run.scope_id,
        user_id=run.principal_id,
        session_id=run.session_id,
        job_id=run.job_id,
        run_id=run.run_id,
        node=asking.node,
        parent_id=run.parent,
        deadline=None if run.deadline is None else run.deadline.timestamp(),
    )
