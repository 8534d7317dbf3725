"""One request through one flow: check it, run the graph, report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

from agentflow.answer import AnswerCheck
from agentflow.errors import RequestInvalid
from agentflow.memory import memory_plan
from agentflow.planning import Plan
from agentflow.request import RequestCheck
from agentflow.schedule import RunStarted, StartNode
from agentflow.wiring import BUILT_IN_FIELDS
from flow_runtime.budgets import RunAccounts, budget_of
from flow_runtime.call import NodeCall, OnExceed
from flow_runtime.dispatch import Dispatcher
from flow_runtime.errors import SessionFailed
from flow_runtime.memory import RunMemory, remembered
from flow_runtime.refusals import not_allowed
from flow_runtime.state import StateBackends
from runtime_core.clock import Clock
from runtime_core.context import BudgetSpec, ExecutionContext, Identity, context_of_run
from runtime_core.errors import AgentflowError, IdentityError, StoreError, StoreFullError
from runtime_core.ids import IdSource, check_id, trace_id_or_new
from runtime_core.loop import Dispatch, Observer, run_graph
from runtime_core.outcome import NodeOutcome
from runtime_core.report import RunError, RunReport
from runtime_core.sessions.protocol import SessionRead, SessionStore

logger = logging.getLogger(__name__)


class FlowRunner:
    """Runs requests through a planned flow; safe for any number at once.

    `sessions` keeps what nodes with `memory: session` remember; without it every run begins a new conversation.
    `accounts` give the runs of a flow with `budgets` theirs; without them only the time of a run is bounded.
    """

    def __init__(
        self,
        plan: Plan,
        dispatcher: Dispatcher,
        *,
        clock: Clock,
        ids: IdSource,
        state: StateBackends,
        sessions: SessionStore | None = None,
        accounts: RunAccounts | None = None,
    ) -> None:
        self.plan = plan
        self._dispatcher = dispatcher
        self._clock = clock
        self._ids = ids
        self._state = state
        self._sessions = sessions
        self._accounts = accounts
        self._budget = budget_of(plan.flow)
        self._memory = memory_plan(plan.flow, plan.graph)
        self._check = RequestCheck(plan.signature)
        self._answer = AnswerCheck(plan.flow)
        self._has_request_state = any(
            node.state is not None and node.state.scope == "request" for node in plan.flow.nodes.values()
        )

    async def run(
        self,
        request: Mapping[str, Any],
        *,
        identity: Identity | None = None,
        trace_id: str | None = None,
        deadline_s: float | None = None,
        observe: Observer | None = None,
        parent: NodeCall | None = None,
    ) -> RunReport:
        """Run one request and report. A request that does not fit the flow is reported as `bad_input`.

        A `trace_id` in the request is the run's, before the one given here. `parent` is the call that this run is
        the work of: identity, session, trace and event time are then its own.
        """
        run_id = self._ids.new("run")
        trace_id = parent.context.trace_id if parent is not None else trace_id_or_new(trace_id)
        now = self._clock.now()
        limits = None if self._budget is None or self._accounts is None else self._budget.limits
        if self._budget is not None:
            deadline_s = _sooner(deadline_s, self._budget.limits.max_runtime_seconds)
        event_time = parent.fields["event_time"] if parent is not None else now.isoformat()
        deadline = None if deadline_s is None else now + timedelta(seconds=deadline_s)
        try:
            fields = self._check.prepare(request, trace_id=trace_id, event_time=event_time)
            if parent is not None:
                context = parent.context.child(run_id=run_id, deadline=deadline, budgets=limits)
            else:
                session_id = fields.get("session_id")
                context = context_of_run(
                    identity or Identity(),
                    session_id=check_id(session_id, what="session_id") if isinstance(session_id, str) else None,
                    run_id=run_id,
                    trace_id=fields["trace_id"],
                    deadline=deadline,
                    budgets=limits,
                )
        except (RequestInvalid, IdentityError) as exc:
            return RunReport(run_id=run_id, trace_id=trace_id, error=RunError(code="bad_input", message=str(exc)))
        on_exceed = self._on_exceed(parent)
        call = NodeCall(context=context, fields=fields, on_exceed=on_exceed)
        if on_exceed is None:
            return await self._run(request, call, parent, deadline_s=deadline_s, observe=observe)
        async with AsyncExitStack() as stack:
            error = await self._give_budget(stack, context, parent)
            if error is not None:
                return RunReport(run_id=run_id, trace_id=context.trace_id, error=error)
            return await self._run(request, call, parent, deadline_s=deadline_s, observe=observe)

    async def _run(
        self,
        request: Mapping[str, Any],
        call: NodeCall,
        parent: NodeCall | None,
        *,
        deadline_s: float | None,
        observe: Observer | None,
    ) -> RunReport:
        context, fields = call.context, call.fields
        try:
            memory = await self._remembered(context, parent)
        except SessionFailed as exc:
            return RunReport(run_id=context.run_id, trace_id=context.trace_id, error=_session_error(exc))
        try:
            report = await run_graph(
                self.plan.graph,
                RunStarted(request=_whole(request, fields), fields=fields),
                self._dispatch(call, memory),
                clock=self._clock,
                run_id=context.run_id,
                trace_id=context.trace_id,
                deadline_s=deadline_s,
                observe=observe,
            )
            return await self._committed(self._checked(report), memory, context, parent)
        finally:
            if self._has_request_state:
                await self._forget(context)

    def _on_exceed(self, parent: NodeCall | None) -> OnExceed | None:
        """What nodes do where a budget is exceeded; a subflow without one does as its node. None without budgets."""
        if self._accounts is None:
            return None
        if self._budget is not None:
            return self._budget.on_exceed
        return None if parent is None else parent.on_exceed

    async def _give_budget(
        self, stack: AsyncExitStack, context: ExecutionContext, parent: NodeCall | None
    ) -> RunError | None:
        """The run has its budget until `stack` is left; or why it may not begin."""
        from agent_runtime.errors import BudgetExceededError

        assert self._accounts is not None
        limits, holds = (BudgetSpec(), False) if self._budget is None else (self._budget.limits, self._budget.holds)
        # The run's time is its deadline: what tools take side by side does not add up to it.
        limits = limits.model_copy(update={"max_runtime_seconds": None})
        within = parent.context.run_id if parent is not None and parent.context.budgets is not None else None
        try:
            await stack.enter_async_context(self._accounts.budgeted(context, limits, within=within, holds=holds))
        except BudgetExceededError as exc:
            no = not_allowed(exc)
            return RunError(code="budget_exceeded", message=str(exc), retry_after=exc.retry_after, refused=no.refused)
        except StoreError as exc:
            return RunError(code="unavailable", message=f"the budget of the run cannot be stored: {exc}")
        return None

    async def _remembered(self, context: ExecutionContext, parent: NodeCall | None) -> RunMemory | None:
        """What the nodes remember; a subflow remembers what its node does. None where nobody remembers."""
        if not self._memory.sees:
            return None
        if parent is not None:
            return RunMemory(self._memory, SessionRead(0, parent.memory or ()), None)
        return await remembered(self._memory, self._sessions, scope_id=context.scope_id, session_id=context.session_id)

    def _dispatch(self, call: NodeCall, memory: RunMemory | None) -> Dispatch:
        async def dispatch(command: StartNode) -> NodeOutcome:
            if memory is None:
                return await self._dispatcher.call(command.node, command.inputs, call)
            remembering = replace(call, memory=memory.seen_by(command.node))
            outcome = await self._dispatcher.call(command.node, command.inputs, remembering)
            memory.add(command.node, outcome.records)
            return outcome

        return dispatch

    async def _committed(
        self, report: RunReport, memory: RunMemory | None, context: ExecutionContext, parent: NodeCall | None
    ) -> RunReport:
        """Keeps the turns of a run that has an answer, before the answer leaves."""
        if memory is None or report.error is not None:
            return report
        if parent is None:
            try:
                await memory.commit(self._sessions, context.scope_id)
            except SessionFailed as exc:
                return replace(report, output=None, error=_session_error(exc))
        return replace(report, records=memory.kept())

    def _checked(self, report: RunReport) -> RunReport:
        if report.error is not None or (problem := self._answer.problem(report.output)) is None:
            return report
        return replace(report, output=None, error=RunError(code="bad_output", message=problem))

    async def _forget(self, context: ExecutionContext) -> None:
        """Drop the run's own state. What cannot be dropped now expires by itself, so no answer is lost over it."""
        try:
            await self._state.forget_run(context)
        except AgentflowError:
            logger.warning("the state of run %s could not be dropped", context.run_id, exc_info=True)


def _sooner(one: float | None, other: float | None) -> float | None:
    return min((each for each in (one, other) if each is not None), default=None)


def _session_error(error: SessionFailed) -> RunError:
    return RunError(
        code="session_full" if isinstance(error.__cause__, StoreFullError) else "unavailable", message=str(error)
    )


def _whole(request: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The request with its defaults, and without what it was not asked to carry."""
    return {name: value for name, value in fields.items() if name in request or name not in BUILT_IN_FIELDS}
