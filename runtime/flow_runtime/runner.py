"""One request through one flow: check it, run the graph, report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from agentflow.answer import AnswerCheck
from agentflow.errors import RequestInvalid
from agentflow.plan import Plan
from agentflow.request import RequestCheck
from agentflow.schedule import RunStarted, StartNode
from agentflow.wiring import BUILT_IN_FIELDS
from flow_runtime.call import NodeCall
from flow_runtime.conversation import Conversation, Memories
from flow_runtime.dispatch import Dispatcher
from flow_runtime.session_runs import run_in_session
from flow_runtime.state import StateBackends
from runtime_core.clock import Clock
from runtime_core.context import ExecutionContext, Identity
from runtime_core.errors import AgentflowError, IdentityError
from runtime_core.ids import IdSource, check_id, trace_id_or_new
from runtime_core.loop import NodeOutcome, Observer, run_graph
from runtime_core.report import RunError, RunReport
from runtime_core.sessions.protocol import SessionStore

logger = logging.getLogger(__name__)


class FlowRunner:
    """Runs requests through a planned flow; safe for any number at once."""

    def __init__(
        self,
        plan: Plan,
        dispatcher: Dispatcher,
        *,
        clock: Clock,
        ids: IdSource,
        state: StateBackends,
        sessions: SessionStore | None = None,
    ) -> None:
        self.plan = plan
        self._dispatcher = dispatcher
        self._clock = clock
        self._ids = ids
        self._state = state
        self._sessions = sessions
        self._memories = Memories(plan)
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

        A flow that remembers sessions reads the request's before the run, and the run's turns are in it when this
        returns; those of a failed run are not kept, so that the request can be sent again.
        A `trace_id` in the request is the run's, before the one given here. `parent` is the call that this run is
        the work of: identity, session, trace and event time are then its own.
        """
        run_id = self._ids.new("run")
        trace_id = parent.context.trace_id if parent is not None else trace_id_or_new(trace_id)
        now = self._clock.now()
        event_time = parent.fields["event_time"] if parent is not None else now.isoformat()
        deadline = None if deadline_s is None else now + timedelta(seconds=deadline_s)
        try:
            fields = self._check.prepare(request, trace_id=trace_id, event_time=event_time)
            if parent is not None:
                context = parent.context.child(run_id=run_id, deadline=deadline)
            else:
                session_id = fields.get("session_id")
                identity = identity or Identity()
                context = ExecutionContext(
                    scope_id=identity.scope_id,
                    principal_id=identity.principal_id,
                    session_id=check_id(session_id, what="session_id") if isinstance(session_id, str) else None,
                    run_id=run_id,
                    trace_id=fields["trace_id"],
                    deadline=deadline,
                )
        except (RequestInvalid, IdentityError) as exc:
            return RunReport(run_id=run_id, trace_id=trace_id, error=RunError(code="bad_input", message=str(exc)))
        call = NodeCall(context=context, fields=fields)

        async def in_conversation(conversation: Conversation) -> RunReport:
            try:
                return await self._run(request, call, conversation, deadline_s=deadline_s, observe=observe)
            finally:
                if self._has_request_state:
                    await self._forget(context)

        if parent is not None:
            return await in_conversation(Conversation.inside(self._memories, parent, run_id=run_id))
        if not self._memories.session:
            return await in_conversation(Conversation(self._memories))
        return await run_in_session(self._sessions, self._memories, context, in_conversation)

    async def _run(
        self,
        request: Mapping[str, Any],
        call: NodeCall,
        conversation: Conversation,
        *,
        deadline_s: float | None,
        observe: Observer | None,
    ) -> RunReport:
        async def dispatch(command: StartNode) -> NodeOutcome:
            history = conversation.history(command.node)
            told = replace(call, history=history) if history else call
            outcome = await self._dispatcher.call(command.node, command.inputs, told)
            if outcome.records and outcome.failure is None:
                conversation.add(command.node, outcome.records)
            return outcome

        report = await run_graph(
            self.plan.graph,
            RunStarted(request=_whole(request, call.fields), fields=call.fields),
            dispatch,
            clock=self._clock,
            run_id=call.context.run_id,
            trace_id=call.context.trace_id,
            deadline_s=deadline_s,
            observe=observe,
        )
        return self._checked(replace(report, records=conversation.said()))

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


def _whole(request: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The request with its defaults, and without what it was not asked to carry."""
    return {name: value for name, value in fields.items() if name in request or name not in BUILT_IN_FIELDS}
