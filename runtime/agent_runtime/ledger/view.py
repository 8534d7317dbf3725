"""`LedgerView`: what a scope's ledger says to those who only look, at a command line or over HTTP."""

from __future__ import annotations

import asyncio

from agent_runtime.ledger import attempts, standing, usage
from agent_runtime.ledger.attempts import AttemptPage
from agent_runtime.ledger.budgets import Account
from agent_runtime.ledger.finds import EventFilter
from agent_runtime.ledger.standing import BudgetFilter, BudgetPage
from agent_runtime.ledger.transactions import prepare_ledger
from agent_runtime.ledger.usage import GroupBy, GroupCursor, GroupPage
from runtime_core.call_log.finds import Cursor
from runtime_core.clock import Clock, SystemClock
from runtime_core.ids import check_scope_id
from runtime_core.stores.database import Database
from runtime_core.stores.scope import everywhere, in_scope


class LedgerView:
    """The ledger and the call log of a database that the caller opens and closes; nothing is changed in them.

    Every answer is a page, and every question that a tenant may ask names one scope. The methods raise errors of the
    StoreError tree, and IdentityError for a scope that is not in its one spelling.
    """

    def __init__(self, database: Database, *, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        self._preparing = asyncio.Lock()
        self._is_prepared = False

    async def prepare(self) -> None:
        """Create or upgrade the tables; every other method does it when it is first called."""
        async with self._preparing:
            if not self._is_prepared:
                await prepare_ledger(self._database)
                self._is_prepared = True

    async def usage(
        self, *, scope_id: str, which: EventFilter, by: GroupBy, after: GroupCursor | None = None, limit: int = 100
    ) -> GroupPage:
        """`after` is the page before's `next`, here and below."""
        await self._ready(scope_id)
        return await self._database.read(in_scope(scope_id, lambda: usage.usage(scope_id, which, by, after, limit)))

    async def attempts(
        self, *, scope_id: str, which: EventFilter, after: Cursor | None = None, limit: int = 100
    ) -> AttemptPage:
        await self._ready(scope_id)
        return await self._database.read(in_scope(scope_id, lambda: attempts.attempts(scope_id, which, after, limit)))

    async def budgets(
        self, *, scope_id: str, which: BudgetFilter, after: Account | None = None, limit: int = 100
    ) -> BudgetPage:
        """As they stand now."""
        await self._ready(scope_id)
        now = self._clock.now().timestamp()
        return await self._database.read(
            in_scope(scope_id, lambda: standing.budgets(scope_id, which, now, after, limit))
        )

    async def unknown_in(self, seconds: float) -> int:
        """How many attempts of all scopes have ended as unknown in the last `seconds`: not for tenants to see."""
        if not self._is_prepared:
            await self.prepare()
        since = self._clock.now().timestamp() - seconds
        return await self._database.read(everywhere(lambda: attempts.unknown_since(since)))

    async def _ready(self, scope_id: str) -> None:
        check_scope_id(scope_id)
        if not self._is_prepared:
            await self.prepare()
