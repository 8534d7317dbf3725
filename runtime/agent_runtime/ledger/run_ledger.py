"""`RunLedger`: gives runs their budgets, keeps them alive, and takes them away again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import TypeVar

from agent_runtime.ledger import runs
from agent_runtime.ledger.budgets import Budget
from agent_runtime.ledger.decide import Refusal
from agent_runtime.ledger.runs import Beginning
from agent_runtime.ledger.writers import SqlLedgerWriter
from agent_runtime.repeat import until_known
from llm_client.detached import Detached
from runtime_core.clock import Clock, SteadyTime, SystemClock
from runtime_core.context import BudgetSpec, ExecutionContext
from runtime_core.errors import StoreError
from runtime_core.stores.database import Database
from runtime_core.stores.scope import everywhere, in_scope
from runtime_core.stores.sql import OpFactory

T = TypeVar("T")

log = logging.getLogger(__name__)

RUN_LEASE_S = 120.0
_EXPIRED_AT_ONCE = 100


class RunLedger:
    """The budgets of runs, on the database of the ledger, which its caller opens and closes.

    A budget that nobody renews within `lease_s`, because the run's process died, is taken away by any other process;
    what the run wants to use after that is refused. Use as an async context manager, or `aclose()`.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock | None = None,
        lease_s: float = RUN_LEASE_S,
    ) -> None:
        self._writer = SqlLedgerWriter(database)
        self._clock = clock or SystemClock()
        self._lease_s = lease_s
        self._now = SteadyTime(self._clock).now
        self._open: dict[tuple[str, str], float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._detached = Detached()

    async def __aenter__(self) -> RunLedger:
        await self._writer.prepare()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Wait until what is ending has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._detached.drain()

    @asynccontextmanager
    async def budgeted(
        self,
        run: ExecutionContext,
        limits: BudgetSpec,
        *,
        within: str | None = None,
        holds: bool = False,
        since: datetime | None = None,
    ) -> AsyncGenerator[None]:
        """The run has that budget in this block; what it uses counts for the run `within` as well.

        With `holds` the whole of it in tokens and money is taken from the budgets above at once, and the calls of the
        run draw on it. `since` is when a run that is done again began first: what runs below it used then counts.
        Raises BudgetExceededError where it does not fit, and errors of the StoreError tree.
        """
        now, place = self._now(), (run.scope_id, run.run_id)
        budget = Budget.of_run(*place, limits, parent_run_id=within)
        first_at = None if since is None else since.timestamp()
        beginning = Beginning(budget, run.principal_id, now, now + self._lease_s, holds, first_at)
        try:
            refusal = await self._done(in_scope(run.scope_id, lambda: runs.begin(beginning)))
        except BaseException:  # it may have begun all the same
            await self._detached.run(self._finish(*place))
            raise
        _demand(refusal)
        self._open[place] = beginning.lease_until
        self._keep()
        try:
            yield
        finally:
            self._open.pop(place, None)
            await self._detached.run(self._finish(*place))

    async def raise_limits(self, scope_id: str, run_id: str, limits: Mapping[str, object]) -> bool:
        """Give a run more, limit by limit of its Budget; False if it has no budget any more.

        Raises pydantic's ValidationError for what is no limit, and errors of the StoreError tree.
        """
        now = self._now()
        raised = in_scope(scope_id, lambda: runs.raise_limits(scope_id, run_id, limits, now))
        return await self._done(raised) is not None

    async def _done(self, change: OpFactory[T]) -> T:
        return await until_known(lambda: self._writer.run(change), self._clock)

    async def _finish(self, scope_id: str, run_id: str) -> None:
        now = self._now()
        try:
            await self._done(in_scope(scope_id, lambda: runs.finish(scope_id, run_id, now)))
        except StoreError as exc:  # its lease runs out
            log.warning("The budget of run %s could not be taken away yet: %s", run_id, exc)

    def _keep(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._lease_s / 4, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._open:
            self._keep()
        self._detached.start(self._renew())

    async def _renew(self) -> None:
        now = self._now()
        try:
            for place, until in list(self._open.items()):
                if until - now < self._lease_s * 3 / 4:
                    renewal = partial(runs.renew, *place, now + self._lease_s)
                    if not await self._writer.run(in_scope(place[0], renewal)):
                        log.warning("The budget of run %s is gone while it goes on: it may use nothing more.", place[1])
                    if place in self._open:
                        self._open[place] = now + self._lease_s
            await self._writer.run(everywhere(lambda: runs.expire(now, _EXPIRED_AT_ONCE)))
        except StoreError as exc:  # the next tick tries again
            log.warning("The budgets of runs could not be renewed: %s", exc)


def _demand(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise refusal.error()
