"""Signs of life: what is in flight is renewed, what nobody renews any more becomes unknown.

One timer for the whole engine, not one for each call: most calls end long before their first renewal.
"""

from __future__ import annotations

import asyncio
import logging

from llm_client.detached import Detached
from llm_client.log import AttemptLog
from runtime_core.call_log.keys import Claim
from runtime_core.call_log.records import AttemptKey
from runtime_core.errors import StoreError

log = logging.getLogger(__name__)

_FORGET_AT_ONCE = 500


class LeaseKeeper:
    """Renews what it holds three times in every lease. `keep_s` is how long an engine's own log keeps its rows."""

    def __init__(self, call_log: AttemptLog, detached: Detached, *, lease_s: float, claim_lease_s: float) -> None:
        self._log = call_log
        self._detached = detached
        self._lease_s = lease_s
        self._claim_lease_s = claim_lease_s
        self._interval_s = min(lease_s, claim_lease_s) / 3
        self._attempts: dict[AttemptKey, float] = {}
        self._claims: set[Claim] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.keep_s: float | None = None

    def of(self, call_log: AttemptLog, detached: Detached) -> LeaseKeeper:
        """One for another log, with the same leases."""
        return LeaseKeeper(call_log, detached, lease_s=self._lease_s, claim_lease_s=self._claim_lease_s)

    def hold(self, key: AttemptKey, lease_until: float) -> None:
        self._attempts[key] = lease_until
        self._start()

    def let_go(self, key: AttemptKey) -> None:
        self._attempts.pop(key, None)

    def hold_claim(self, claim: Claim) -> None:
        self._claims.add(claim)
        self._start()

    def let_go_claim(self, claim: Claim) -> None:
        self._claims.discard(claim)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._attempts or self._claims:
            self._start()
        self._detached.start(self._work())

    async def _work(self) -> None:
        try:
            await self._renew()
            await self._log.expire()
            if self.keep_s is not None:
                before = self._log.now() - self.keep_s
                while await self._log.forget(older_than=before, limit=_FORGET_AT_ONCE):
                    pass
                await self._log.forget_keys()
        except StoreError as exc:  # the next tick tries again
            log.warning("The leases of model calls in flight could not be renewed: %s", exc)

    async def _renew(self) -> None:
        now = self._log.now()
        for key, until in list(self._attempts.items()):
            if until - now < self._lease_s * 2 / 3:
                await self._log.renew(key, lease_until=now + self._lease_s)
                if key in self._attempts:
                    self._attempts[key] = now + self._lease_s
        for claim in list(self._claims):
            if not await self._log.renew_claim(claim):
                self._claims.discard(claim)
