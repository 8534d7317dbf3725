"""What a run store needs now and then, requests or none: what nobody will end any more ends, and what is old goes.

An engine does the first for what it holds itself, while it holds anything. Somebody has to do it for the replica that
died with the last request of the day. So it is with questions to people: whoever waits for an answer ends the question
when its time is up, and nobody does when that process died.
"""

from __future__ import annotations

import logging

from agent_runtime.actions import ops as action_ops
from agent_runtime.actions.manager import ActionManager
from agent_runtime.actions.sql_store import SqlActionStore
from agent_runtime.ledger import retention
from agent_runtime.ledger.transactions import EXPIRED_TOGETHER, expire_attempts, forget_counters
from runtime_core.call_log.keys import Claim, Started
from runtime_core.call_log.log import CallLog
from runtime_core.clock import Clock, SystemClock
from runtime_core.errors import StoreError
from runtime_core.stores.database import Database
from runtime_core.stores.scope import everywhere

log = logging.getLogger(__name__)

EVERY_S = 20.0
"""Beside a lease of a minute, this is when a dead replica's calls are reported as unknown at the latest."""
FORGET_EVERY_S = 600.0
_SCOPE = "agentflow-upkeep"
_AT_ONCE = 500
_MOST_BATCHES = 200


class Upkeep:
    """Of all that keep one store in order, `owner` by `owner`, one works; when it stops, another takes over.

    `keep_s` is for how many seconds calls, their answers, their events in the ledger, and questions to people stay
    after they ended; None is for ever. The tables of calls and of the ledger must be there.
    """

    def __init__(
        self,
        database: Database,
        *,
        owner: str,
        keep_s: float | None,
        clock: Clock | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        self._log = CallLog(database, clock=self._clock)
        self._actions = ActionManager(SqlActionStore(database), clock=self._clock)
        self._keep_s = keep_s
        self._every_s = every_s
        self._claim = Claim(_SCOPE, "upkeep", "upkeep", owner, lease_s=3 * every_s, ttl_s=every_s)
        self._forget_at = self._clock.monotonic()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self.once()
            except StoreError as exc:  # the next round tries again
                log.warning("The run store could not be kept in order: %s", exc)
            await self._clock.sleep(self._every_s)

    async def once(self) -> bool:
        """One round; False if it is another's work. Raises errors of the StoreError tree."""
        if not isinstance(await self._log.begin(self._claim), Started):
            return False
        for _ in range(_MOST_BATCHES):
            if not await self._expire():
                break
        for _ in range(_MOST_BATCHES):
            if not await self._actions.sweep(limit=_AT_ONCE):
                break
        if self._clock.monotonic() >= self._forget_at:
            self._forget_at = self._clock.monotonic() + FORGET_EVERY_S
            await self._forget()
        return True

    async def _expire(self) -> bool:
        """Whether more may be due."""
        now = self._log.now()
        return (await self._database.run(everywhere(lambda: expire_attempts(now, EXPIRED_TOGETHER)))).more

    async def _forget(self) -> None:
        await self._log.forget_keys(limit=_AT_ONCE * _MOST_BATCHES)
        now = self._log.now()
        for _ in range(_MOST_BATCHES):
            if not await self._database.run(everywhere(lambda: forget_counters(now))):
                break
        if self._keep_s is None:
            return
        before = self._log.now() - self._keep_s
        for _ in range(_MOST_BATCHES):
            gone = await self._log.forget(older_than=before, limit=_AT_ONCE)
            gone += await self._database.run(everywhere(lambda: retention.forget_events(None, before, _AT_ONCE)))
            gone += await self._database.run(everywhere(lambda: action_ops.forget(None, before, _AT_ONCE)))
            if not gone:
                break
