"""One run of a request in this process: who does it, on whose behalf, and what it says while it does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field

from agent_runtime.errors import BudgetExceededError
from agent_runtime.events.bus import EventBus
from agent_runtime.events.types import RuntimeEvent, RuntimeEventType
from agent_runtime.jobs.failure import failure_of
from agent_runtime.jobs.records import JobRecord
from agent_runtime.kernel.request import ExecutionRequest, ExecutionResult, as_json
from agent_runtime.orchestration.context import OperatorContext, OperatorEvent
from agent_runtime.orchestration.governed import BoundAgent
from agent_runtime.orchestration.operators import Operator
from agent_runtime.orchestration.results import TEXT, OperatorResult
from llm_client.agent.core import Agent
from llm_client.agent.events import AgentEnded
from llm_client.agent.results import AgentResult
from llm_client.events import StreamFailed
from runtime_core.errors import AgentflowError


class RunFailed(AgentflowError):
    """A run that failed without an error of its own; `code` goes into the job's record."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class Run:
    """`children` counts the jobs that were started below it, and `slots` bounds how many of them work at a time.

    `within` is the parent's run, wherever that is.
    """

    request: ExecutionRequest
    context: OperatorContext
    depth: int
    slots: asyncio.Semaphore
    parent: Run | None = None
    within: str | None = None
    children: int = 0
    result: ExecutionResult | None = None
    error: BaseException | None = field(default=None, repr=False)

    async def perform(self, doer: Agent | Operator, job: JobRecord, bus: EventBus) -> ExecutionResult:
        """Raises whatever goes wrong, and RunFailed for an operator's result without success."""
        teller = Teller(bus, job, self.context.execution.trace_id)
        async with self.parent.slots if self.parent is not None else nullcontext():
            await teller.tell(RuntimeEventType.RUN_STARTED, {"operator_id": self.request.operator_id})
            try:
                self.result = await self._done(doer, job)
            except asyncio.CancelledError as exc:
                self.context.cancellation.cancel(str(exc.args[0]) if exc.args else "the job has ended")
                raise
            except Exception as exc:  # the edge of a job
                self.error = exc
                if isinstance(exc, BudgetExceededError):
                    await teller.tell(RuntimeEventType.BUDGET_EXCEEDED, {"limit": exc.limit})
                failure = failure_of(exc)
                await teller.tell(RuntimeEventType.RUN_FAILED, failure.model_dump())
                raise
        counts = self.result.model_dump(exclude={"job_id", "content", "output", "data"})
        await teller.tell(RuntimeEventType.RUN_COMPLETED, counts)
        return self.result

    async def _done(self, doer: Agent | Operator, job: JobRecord) -> ExecutionResult:
        self.context.meter.check()
        if isinstance(doer, Operator):
            return self._of_operator(await self._operate(doer), job)
        agent = BoundAgent(doer, self.context)
        prompt = self.request.prompt
        return self._of_agent(await (_streamed(agent, prompt) if self.request.stream else agent.run(prompt)), job)

    async def _operate(self, operator: Operator) -> OperatorResult:
        prompt, fields = self.request.prompt, self.request.input
        given = {TEXT: prompt, **fields} if prompt else dict(fields)
        done = await operator.execute(given, self.context)
        if not done.success:
            if isinstance(done.cause, AgentflowError):
                raise done.cause
            raise RunFailed(done.error or "The operator failed.", done.code or "operator_failed") from done.cause
        return done

    def _of_agent(self, answer: AgentResult, job: JobRecord) -> ExecutionResult:
        return self._counted(ExecutionResult(job_id=job.job_id, content=answer.content, output=as_json(answer.output)))

    def _of_operator(self, done: OperatorResult, job: JobRecord) -> ExecutionResult:
        data = {name: as_json(value) for name, value in done.data.items()}
        return self._counted(ExecutionResult(job_id=job.job_id, content=as_json(done.content), data=data))

    def _counted(self, result: ExecutionResult) -> ExecutionResult:
        taken = self.context.meter
        return result.model_copy(
            update={
                "model_calls": taken.use.calls,
                "tool_calls": taken.tool_calls,
                "input_tokens": taken.use.input_tokens,
                "output_tokens": taken.use.output_tokens,
                "cost_micro": taken.use.cost_micro,
                "unpriced": taken.use.unpriced,
            }
        )


async def _streamed(agent: BoundAgent, prompt: str) -> AgentResult:
    async with aclosing(agent.stream(prompt)) as events:
        async for event in events:
            if isinstance(event, AgentEnded):
                return event.result
            if isinstance(event, StreamFailed):
                raise RunFailed(event.message, event.code)
    raise AssertionError("the last event of a stream is its end")


class Teller:
    """Publishes what happens in one job."""

    def __init__(self, bus: EventBus, job: JobRecord, trace_id: str) -> None:
        self._bus = bus
        self._job = job
        self._trace_id = trace_id

    async def operator(self, event: OperatorEvent) -> None:
        await self.tell(event.type, {**event.facts, "path": list(event.path)})

    async def tell(self, type: RuntimeEventType, data: Mapping[str, object]) -> None:
        job = self._job
        await self._bus.publish(
            RuntimeEvent.model_validate(
                {
                    "type": type,
                    "scope_id": job.scope_id,
                    "job_id": job.job_id,
                    "run_id": job.run_id,
                    "session_id": job.session_id,
                    "trace_id": self._trace_id,
                    "data": data,
                }
            )
        )
