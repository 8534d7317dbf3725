"""How many calls at once, and how many a minute: an engine's own ceiling, and each role's.

A role over its limit waits its turn, first come, first served, and is refused when its turn would come too late.
The limits count in one process; a provider's own 429 remains the last word.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from llm_client.providers.protocol import Target
from runtime_core.clock import Clock

MAX_WAIT_S = 30.0
"""How long a call without a deadline waits for its turn."""


class OverLimit(Exception):
    """The call's turn would come too late. `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(slots=True)
class Bucket:
    """`per_minute` units, refilled evenly. Who takes more than is there owes it, and waits until it is paid."""

    per_minute: int
    level: float
    at: float

    def take(self, amount: float, now: float) -> float:
        """The seconds until what was taken is there."""
        rate = self.per_minute / 60
        self.level = min(float(self.per_minute), self.level + (now - self.at) * rate) - amount
        self.at = now
        return max(0.0, -self.level / rate)

    def give_back(self, amount: float) -> None:
        """What was taken too much; less than nothing for what was taken too little."""
        self.level += amount


@dataclass(slots=True)
class Slot:
    """A call's place. `release` it once, with the tokens that were really used."""

    semaphores: tuple[asyncio.Semaphore, ...] = ()
    tokens: Bucket | None = None
    estimate: int = 0

    def release(self, used: int | None) -> None:
        for semaphore in self.semaphores:
            semaphore.release()
        if self.tokens is not None and used is not None:
            self.tokens.give_back(self.estimate - used)


@dataclass(slots=True)
class _RoleLimits:
    semaphore: asyncio.Semaphore | None
    requests: Bucket | None
    tokens: Bucket | None


@dataclass(slots=True)
class Limits:
    """The limits of one engine, on one event loop."""

    clock: Clock
    max_concurrency: int | None = None
    _roles: dict[str, _RoleLimits] = field(default_factory=dict[str, _RoleLimits])
    _own: asyncio.Semaphore | None = None

    def __post_init__(self) -> None:
        if self.max_concurrency is not None:
            self._own = asyncio.Semaphore(self.max_concurrency)

    def free(self, target: Target) -> bool:
        """Whether nothing limits the target."""
        return self._own is None and not (target.concurrency or target.requests_per_minute or target.tokens_per_minute)

    async def acquire(self, target: Target, *, estimate: int, left_s: float | None) -> Slot:
        """A place for a call of about `estimate` tokens. Raises OverLimit where it would come after `left_s`."""
        patience = MAX_WAIT_S if left_s is None else left_s
        limits = self._of(target)
        await self._wait_for_buckets(target, limits, estimate, patience)
        taken: list[asyncio.Semaphore] = []
        try:
            for semaphore in (limits.semaphore, self._own):
                if semaphore is not None:
                    await _acquire(semaphore, target, patience)
                    taken.append(semaphore)
        except BaseException:
            Slot(tuple(taken), limits.tokens, estimate).release(0)
            raise
        return Slot(tuple(taken), limits.tokens, estimate)

    def _of(self, target: Target) -> _RoleLimits:
        limits = self._roles.get(target.role)
        if limits is None:
            limits = self._roles[target.role] = _RoleLimits(
                asyncio.Semaphore(target.concurrency) if target.concurrency else None,
                self._bucket(target.requests_per_minute),
                self._bucket(target.tokens_per_minute),
            )
        return limits

    def _bucket(self, per_minute: int | None) -> Bucket | None:
        return Bucket(per_minute, float(per_minute), self.clock.monotonic()) if per_minute else None

    async def _wait_for_buckets(self, target: Target, limits: _RoleLimits, estimate: int, patience: float) -> None:
        now = self.clock.monotonic()
        taken = [(bucket, amount) for bucket, amount in ((limits.requests, 1), (limits.tokens, estimate)) if bucket]
        waits = [bucket.take(amount, now) for bucket, amount in taken]
        wait = max(waits, default=0.0)
        try:
            if wait > patience:
                raise OverLimit(
                    f"Role '{target.role}' is at its limit a minute (llmhub.yaml, limits); its turn is in {wait:.0f} s",
                    retry_after=wait,
                )
            if wait > 0:
                await self.clock.sleep(wait)
        except BaseException:
            for bucket, amount in taken:
                bucket.give_back(amount)
            raise


async def _acquire(semaphore: asyncio.Semaphore, target: Target, patience: float) -> None:
    if not semaphore.locked():
        await semaphore.acquire()
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await semaphore.acquire()
            return
    raise OverLimit(
        f"Role '{target.role}' has as many calls in flight as it may; none ended within {patience:.0f} s.",
        retry_after=1.0,
    )
