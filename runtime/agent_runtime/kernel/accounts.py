"""The ledger of a kernel: jobs have their budgets in it, and every call of theirs is counted there first."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from weakref import WeakKeyDictionary

from agent_runtime.guards import GuardChain
from agent_runtime.ledger.engine import EngineLedger, LedgerLog
from agent_runtime.ledger.run_ledger import RunLedger
from agent_runtime.ledger.tool_calls import ToolLedger
from agent_runtime.ledger.writers import SqlLedgerWriter
from llm_client.agent.loop import ModelEngine
from llm_client.attempts import Parts
from llm_client.engine import ExecutionEngine
from llm_client.guard import Guard
from llm_client.log import AttemptLog
from runtime_core.clock import Clock
from runtime_core.context import BudgetSpec, ExecutionContext
from runtime_core.ids import IdSource


class KernelLedger:
    """Counts on the database of `writer`, which stays its caller's. `aclose()` it when the last job has ended."""

    def __init__(self, writer: SqlLedgerWriter, *, clock: Clock, ids: IdSource) -> None:
        self._database = writer.database
        self._clock = clock
        self._runs = RunLedger(writer.database, clock=clock)
        self.tools = ToolLedger(writer, clock=clock, ids=ids)
        self._engines: WeakKeyDictionary[ExecutionEngine, ExecutionEngine] = WeakKeyDictionary()

    @asynccontextmanager
    async def job(
        self, execution: ExecutionContext, *, within: str | None, since: datetime | None
    ) -> AsyncGenerator[None]:
        """The job's budget is there while it runs; what it uses counts for the run `within` as well.

        `since` is when a job that is done again was made: what it and the jobs below it used then counts.

        Raises BudgetExceededError, and errors of the StoreError tree.
        """
        # The time of a job is its deadline: what tools take side by side does not add up to it.
        limits = (execution.budgets or BudgetSpec()).model_copy(update={"max_runtime_seconds": None})
        async with self._runs.budgeted(execution, limits, within=within, since=since):
            yield

    def engine(self, engine: ModelEngine) -> ModelEngine:
        """An ExecutionEngine whose attempts are reserved here; any other engine counts its calls itself."""
        if not isinstance(engine, ExecutionEngine):
            return engine
        if engine not in self._engines:
            self._engines[engine] = engine.accounted(self._accounts)
        return self._engines[engine]

    async def aclose(self) -> None:
        """Wait until every call has its end in the ledger."""
        for engine in list(self._engines.values()):
            await engine.aclose()
        await self.tools.aclose()
        await self._runs.aclose()

    def _accounts(self, parts: Parts) -> tuple[Guard, AttemptLog]:
        if isinstance(parts.log, LedgerLog):  # it has a ledger of its own, where its calls stay
            return parts.guard, parts.log
        ledger = EngineLedger(
            self._database,
            router=parts.router,
            prices=parts.prices,
            clock=self._clock,
            in_budgeted_run=lambda: True,
        )
        return GuardChain(parts.guard, ledger.guard, clock=self._clock), ledger.log


class JobAccounts:
    """What the operators of one job are told of the ledger."""

    def __init__(self, ledger: KernelLedger, execution: ExecutionContext) -> None:
        self._ledger = ledger
        self._execution = execution

    @property
    def run_id(self) -> str:
        return self._execution.run_id

    def engine(self, engine: ModelEngine) -> ModelEngine:
        return self._ledger.engine(engine)

    def tool_call(self, name: str, *, most_s: float) -> AbstractAsyncContextManager[None]:
        return self._ledger.tools.call(self._execution, name, most_s=most_s, budgeted=True)
