"""`RuntimeKernel`: every request is a job, with events, a budget, a policy, a deadline and an end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext, suppress
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeVar

from agent_runtime.actions.manager import ActionManager
from agent_runtime.actions.signals import LocalSignalChannel, SignalChannel
from agent_runtime.actions.sql_store import InMemoryActionStore
from agent_runtime.actions.store import ActionStore
from agent_runtime.errors import ExecutionError, JobError, JobStateError, OrchestrationError
from agent_runtime.events.bus import EventBus
from agent_runtime.events.memory import InMemoryEventBus
from agent_runtime.events.types import RuntimeEventType
from agent_runtime.jobs import announce
from agent_runtime.jobs.machine import Look
from agent_runtime.jobs.manager import JobManager
from agent_runtime.jobs.records import JobFailure, JobRecord
from agent_runtime.jobs.sql_store import InMemoryJobStore
from agent_runtime.jobs.store import JobStore
from agent_runtime.kernel.accounts import JobAccounts, KernelLedger
from agent_runtime.kernel.admission import Admission, Parent, depth_below, let_go, request_of
from agent_runtime.kernel.handle import ExecutionHandle
from agent_runtime.kernel.oversight import PolicyOverseer
from agent_runtime.kernel.request import ExecutionRequest, ExecutionResult
from agent_runtime.kernel.result_store import ResultStore, beside
from agent_runtime.kernel.run import Run, Teller
from agent_runtime.kernel.run_log import RecordingBus, RunLog
from agent_runtime.ledger.writers import SqlLedgerWriter
from agent_runtime.orchestration.budgets import Meter
from agent_runtime.orchestration.config import OrchestrationConfig
from agent_runtime.orchestration.context import OperatorContext
from agent_runtime.orchestration.operators import Operator, Runnable, as_operator
from agent_runtime.plugins.plugin import Plugin
from agent_runtime.plugins.registry import PluginRegistry
from agent_runtime.policy.engine import PolicyEngine
from agent_runtime.policy.named import NamedPolicies
from agent_runtime.policy.rules import PolicyDocument, Rule
from agent_runtime.stores import SqlStore
from llm_client.agent.core import Agent
from llm_client.agent.loop import ModelEngine
from runtime_core.backoff import exponential_s
from runtime_core.clock import Clock, SystemClock
from runtime_core.context import ExecutionContext
from runtime_core.errors import StoreError, StoreUnavailableError
from runtime_core.ids import IdSource, RandomIds, new_trace_id

Owned = TypeVar("Owned", bound=SqlStore)

STORE_TRIES = 6
STORE_PAUSE_S = 0.05

Key = tuple[str, str]


class RuntimeKernel:
    """Does what it is asked, as jobs (source: agent-runtime, RuntimeKernel).

    `agent` answers requests without an operator id; left out, it is a plain one over `engine`, with the plugins'
    tools. Stores that are left out are in memory; results are kept in the database of the job store if it has one.
    `policies` are rules for models and tools, and with them count those of the plugins and a `policy_engine` of your
    own; `policy_documents` are further ones, of which the `policy_ref` of a request selects one for its run and for
    what that starts. `config` bounds jobs that are started below others. `jobs`, `actions` and `bus` are there to be
    shared. A job's record holds what was asked, so that another process can do it again.

    A kernel belongs to one event loop: use it with `async with`, or `aclose()`. It closes what it made itself.

    With a `ledger_writer` the budget of a job is in the ledger while it runs, and each of its tool calls and model
    attempts is reserved there first, also for the jobs above: it is exact for calls at the same time, where limits of
    tokens and money may otherwise be passed by the calls in flight. Engines that are no ExecutionEngine, or have an
    EngineLedger, count their calls themselves.
    """

    def __init__(
        self,
        *,
        engine: ModelEngine,
        agent: Agent | None = None,
        job_store: JobStore | None = None,
        action_store: ActionStore | None = None,
        result_store: ResultStore | None = None,
        ledger_writer: SqlLedgerWriter | None = None,
        event_bus: EventBus | None = None,
        signal_channel: SignalChannel | None = None,
        policies: Iterable[Rule] = (),
        policy_engine: PolicyEngine | None = None,
        policy_documents: Iterable[PolicyDocument] = (),
        operators: Iterable[Runnable] = (),
        plugins: PluginRegistry | Iterable[Plugin] = (),
        config: OrchestrationConfig | None = None,
        clock: Clock | None = None,
        ids: IdSource | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._ids = ids or RandomIds()
        self._engine = engine
        self._agent = agent
        self._config = config or OrchestrationConfig()
        self._stack = AsyncExitStack()
        signals = signal_channel or LocalSignalChannel()
        job_store = self._own(InMemoryJobStore()) if job_store is None else job_store
        self._results = result_store or beside(job_store)
        self._ledger = None if ledger_writer is None else KernelLedger(ledger_writer, clock=self._clock, ids=self._ids)
        self.bus = RecordingBus(event_bus or InMemoryEventBus())
        self.jobs = JobManager(job_store, event_bus=self.bus, signal_channel=signals, clock=self._clock, ids=self._ids)
        self.actions = ActionManager(
            action_store or self._own(InMemoryActionStore()),
            signal_channel=signals,
            job_manager=self.jobs,
            event_bus=self.bus,
            clock=self._clock,
            ids=self._ids,
        )
        self._policy = PolicyEngine(policies, actions=self.actions, event_bus=self.bus)
        engines = (self._policy,) if policy_engine is None else (self._policy, policy_engine)
        self._named = NamedPolicies(policy_documents, actions=self.actions, event_bus=self.bus)
        self._overseer = PolicyOverseer(engines, self._named)
        self._admission = Admission(self._config, self.jobs, self._named)
        self._plugins = plugins if isinstance(plugins, PluginRegistry) else _registered(plugins)
        self._operators: dict[str, Operator] = {}
        for operator in operators:
            self.add_operator(operator)
        self._runs: dict[Key, Run] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._opening = asyncio.Lock()
        self._is_open = self._is_closed = False

    @classmethod
    def create(cls, *, engine: ModelEngine, agent: Agent | None = None, **options: Any) -> Self:
        """A kernel in memory, unless `options`, the constructor's, say otherwise."""
        return cls(engine=engine, agent=agent, **options)

    def add_operator(self, operator: Runnable, operator_id: str | None = None) -> None:
        """Requests may ask for it by that id, or by its name. Raises OrchestrationError for an id that is taken."""
        made = as_operator(operator, operator_id)
        name = operator_id or made.name
        if name in self._operators:
            raise OrchestrationError(f"There is an operator '{name}' already.")
        self._operators[name] = made

    async def execute(self, request: ExecutionRequest) -> ExecutionHandle:
        """Start the request, or find the run of an earlier one with its idempotency key.

        Raises OrchestrationError for an operator or a policy that is not there; LimitReached; JobConflictError for a
        key of another request; JobNotFoundError and JobStateError for its parent; StoreError.
        """
        await self._open()
        doer = self._doer(request)
        parent = await self._admission.under(request, self._runs.get((request.scope_id, request.parent_job_id or "")))
        run_id = self._ids.new("run")
        log = self.bus.expect(run_id)
        try:
            submitted = await self.jobs.submit(self._admission.spec(request, run_id, parent))
        except BaseException:
            self.bus.settle(run_id, None)
            let_go(parent)
            raise
        job = submitted.job
        key = (job.scope_id, job.job_id)
        self.bus.settle(run_id, key if submitted.is_new else None)
        if submitted.is_new:
            self._start(doer, request, job, log, parent)
        else:
            let_go(parent)
        return self.handle(job.job_id, scope_id=job.scope_id, attached=not submitted.is_new)

    def handle(self, job_id: str, *, scope_id: str = "default", attached: bool = True) -> ExecutionHandle:
        """A handle of a run that was started before, here or elsewhere."""
        key = (scope_id, job_id)
        run = self._runs.get(key)

        async def stored() -> ExecutionResult | None:
            here = None if run is None else run.result
            return here or await self._results.get(scope_id, job_id)

        return ExecutionHandle(
            job_id=job_id,
            scope_id=scope_id,
            attached=attached,
            jobs=self.jobs.for_scope(scope_id),
            log=self.bus.find(*key),
            stored=stored,
            cause=lambda: None if run is None else run.error,
        )

    async def cancel(self, job_id: str, *, scope_id: str = "default", reason: str = "it was cancelled") -> JobRecord:
        """End a run and every run that it started, wherever they are. Raises JobNotFoundError, JobStateError."""
        return await self.jobs.for_scope(scope_id).cancel(job_id, reason=reason)

    async def recover(self, *, limit: int = 100) -> list[ExecutionHandle]:
        """Take over runs whose process is gone, of all scopes, and do them again. Call it now and then."""
        await self._open()
        taken: list[ExecutionHandle] = []
        for job in await self.jobs.recover(limit=limit):
            key = (job.scope_id, job.job_id)
            if key in self._runs:  # this process was only slow
                continue
            try:
                request = request_of(job)
                doer = self._doer(request)
                self._named.exact(job.policy_ref)
            except OrchestrationError as exc:
                failure = JobFailure(code="worker_lost", message=f"Its worker was lost, and nobody can go on: {exc}")
                with suppress(JobStateError):
                    await self.jobs.for_scope(job.scope_id).fail(job.job_id, failure)
                continue
            run_id = self._ids.new("run")
            log = self.bus.expect(run_id)
            self.bus.settle(run_id, key)
            self._start(doer, request, job, log, self._runs.get((job.scope_id, job.parent_job_id or "")))
            taken.append(self.handle(job.job_id, scope_id=job.scope_id))
        return taken

    async def aclose(self) -> None:
        """End every run of this kernel as cancelled, and close what it made."""
        self._is_closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel("the kernel was closed")
        if tasks:
            await asyncio.wait(tasks)
        if self._ledger is not None:
            await self._ledger.aclose()
        if self._is_open:
            self._is_open = False
            await self._plugins.stop()
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _open(self) -> None:
        if self._is_closed:
            raise ExecutionError("This kernel is closed; make another one.")
        async with self._opening:
            if self._is_open:
                return
            await self._plugins.start()
            self._is_open = True
            for rule in self._plugins.policies():
                self._policy.add_rule(rule)
            for operator_id, operator in self._plugins.operators().items():
                self.add_operator(operator, operator_id)
            if self._agent is None:
                self._agent = Agent(engine=self._engine, tools=self._plugins.tools())

    def _own(self, store: Owned) -> Owned:
        self._stack.push_async_callback(store.close)
        return store

    def _doer(self, request: ExecutionRequest) -> Agent | Operator:
        if request.operator_id is None:
            assert self._agent is not None
            return self._agent
        if (operator := self._operators.get(request.operator_id)) is None:
            known = ", ".join(self._operators) or "none"
            raise OrchestrationError(f"There is no operator '{request.operator_id}'; there are: {known}.")
        return operator

    def _start(
        self,
        doer: Agent | Operator,
        request: ExecutionRequest,
        job: JobRecord,
        log: RunLog,
        parent: Parent | None,
    ) -> None:
        key = (job.scope_id, job.job_id)
        above = parent if isinstance(parent, Run) else None
        run = self._runs[key] = Run(
            request=request,
            context=self._context(request, job, above),
            depth=depth_below(parent),
            slots=asyncio.Semaphore(self._config.at_a_time),
            parent=above,
            within=parent.run_id if isinstance(parent, JobRecord) else above and above.context.execution.run_id,
        )
        task = self._tasks[key] = asyncio.create_task(self._run(doer, run, job, log))
        task.add_done_callback(lambda _: self._forget(key))

    def _context(self, request: ExecutionRequest, job: JobRecord, parent: Run | None) -> OperatorContext:
        execution = ExecutionContext(
            scope_id=job.scope_id,
            principal_id=job.principal_id,
            session_id=job.session_id,
            run_id=job.run_id or job.job_id,
            job_id=job.job_id,
            trace_id=request.trace_id or (parent.context.execution.trace_id if parent else new_trace_id()),
            parent=parent.context.execution.run_id if parent else None,
            deadline=job.deadline,
            budgets=job.budgets,
            policy_ref=job.policy_ref,
            metadata=request.metadata,
        )
        if parent is None:
            meter = Meter(job.budgets, clock=self._clock)
        else:
            meter = parent.context.meter.child(request.budgets, inherits=self._config.inherit_budgets)
        return OperatorContext(
            execution=execution,
            config=self._config,
            clock=self._clock,
            ids=self._ids,
            observe=Teller(self.bus, job, execution.trace_id).operator,
            overseer=self._overseer,
            meter=meter,
            accounts=None if self._ledger is None else JobAccounts(self._ledger, execution),
        )

    async def _run(self, doer: Agent | Operator, run: Run, job: JobRecord, log: RunLog) -> None:
        jobs = self.jobs.for_scope(job.scope_id)

        async def work(started: JobRecord) -> str:
            # a worker that was lost may have come as far as the result
            known = await self._results.get(job.scope_id, job.job_id) if started.attempt > 1 else None
            if known is None:
                async with self._budgeted(run, started):
                    result = await run.perform(doer, started, self.bus)
                await self._keep(started.scope_id, result)
            return f"result:{started.job_id}"

        ended: JobRecord | None = None
        try:
            ended = await jobs.run(job.job_id, work)
        except (StoreError, JobError) as exc:  # the store is gone, or somebody else has the job
            run.error = run.error or exc
        finally:
            if RuntimeEventType.ACTION_REQUIRED in log.types:
                with suppress(StoreError):
                    await self.actions.for_scope(job.scope_id).cancel_all(job.job_id)
            if ended is not None and (news := announce.changed(ended, Look())) is not None:
                log.append(news)  # another process may have ended the job: then nobody here was told
            self.bus.end(job.scope_id, job.job_id)

    def _budgeted(self, run: Run, job: JobRecord) -> AbstractAsyncContextManager[None]:
        """The job's budget in the ledger, below that of its parent where it inherits one."""
        if self._ledger is None:
            return nullcontext()
        within = run.within if self._config.inherit_budgets else None
        since = job.created_at if job.attempt > 1 else None
        return self._ledger.job(run.context.execution, within=within, since=since)

    async def _keep(self, scope_id: str, result: ExecutionResult) -> None:
        """A store that is gone for a moment must not cost an answer that was paid for."""
        for number in count(1):
            try:
                await self._results.put(scope_id, result, now=self._clock.now())
                break
            except StoreUnavailableError:
                if number == STORE_TRIES:
                    raise
                await self._clock.sleep(exponential_s(STORE_PAUSE_S, number))

    def _forget(self, key: Key) -> None:
        self._tasks.pop(key, None)
        self._runs.pop(key, None)


def _registered(plugins: Iterable[Plugin]) -> PluginRegistry:
    registry = PluginRegistry()
    for plugin in plugins:
        registry.register(plugin)
    return registry
