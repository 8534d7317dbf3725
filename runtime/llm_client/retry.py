"""What is tried after a failure: the same role again, after a pause, or the next role.

There is one layer of retries, here: the SDKs under any-llm have theirs switched off, and a flow node that tries
again hands the same AttemptBudget to every try, so that its attempts and the engine's are one count.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llm_client.providers.protocol import Provider
from runtime_core.backoff import exponential_s


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`attempts` tries of each role, in all.

    The pause before the second is `backoff_s`, then twice the last one up to `max_backoff_s`; with `jitter` it is
    anything from nothing to that. A provider's own Retry-After is kept to instead, unless it is longer than the
    deadline allows or, without a deadline, than `max_retry_after_s`: then the error goes out with it.
    """

    attempts: int = 3
    backoff_s: float = 0.5
    max_backoff_s: float = 20.0
    jitter: bool = True
    max_retry_after_s: float = 60.0

    def pause_s(self, failed: int, *, retry_after: float | None, draw: Callable[[], float]) -> float:
        """Seconds to wait after the `failed`th failure of a role."""
        if retry_after is not None:
            return retry_after
        pause = min(exponential_s(self.backoff_s, failed), self.max_backoff_s)
        return pause * draw() if self.jitter else pause


NO_RETRY = RetryPolicy(attempts=1)


@dataclass(slots=True)
class AttemptBudget:
    """The tries that are left, counted for each role; shared by everybody who tries the same thing again."""

    attempts: int
    _used: dict[str, int] = field(default_factory=dict[str, int])

    def take(self, role: str) -> bool:
        """Use up one try of `role`; False if there is none."""
        used = self._used.get(role, 0)
        if used >= self.attempts:
            return False
        self._used[role] = used + 1
        return True

    def used(self, role: str | None = None) -> int:
        """Tries of a role, or of all of them."""
        return sum(self._used.values()) if role is None else self._used.get(role, 0)


@dataclass(frozen=True, slots=True)
class Failure:
    """What the next step depends on. `retry_after` is in seconds."""

    retry: bool
    fallback: bool
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Next:
    """Try `provider`, `pause_s` from now; `again` if it is the one that has just failed."""

    provider: Provider
    pause_s: float = 0.0
    again: bool = False


class Tries:
    """The tries of one call along its chain of providers: the asked one first, then its fallbacks."""

    def __init__(
        self,
        chain: Sequence[Provider],
        policy: RetryPolicy,
        budget: AttemptBudget,
        *,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._chain = list(chain)
        self._policy = policy
        self._budget = budget
        self._draw = draw
        self._failed = 0
        self.made = 0

    def first(self) -> Next | None:
        """None if the budget has been used up before."""
        return self._take_from_chain()

    def after(self, failure: Failure, *, left_s: float | None) -> Next | None:
        """What to do after a failure of the current provider; None to give up. `left_s` is until the deadline."""
        self._failed += 1
        if failure.retry:
            pause = self._policy.pause_s(self._failed, retry_after=failure.retry_after, draw=self._draw)
            longest = self._policy.max_retry_after_s if left_s is None else left_s
            may = self._failed < self._policy.attempts and pause <= longest
            if may and self._take(self._chain[0]):
                return Next(self._chain[0], pause, again=True)
        if failure.fallback and (left_s is None or left_s > 0):
            self._chain.pop(0)
            return self._take_from_chain()
        return None

    def _take_from_chain(self) -> Next | None:
        while self._chain:
            if self._take(self._chain[0]):
                self._failed = 0
                return Next(self._chain[0])
            self._chain.pop(0)
        return None

    def _take(self, provider: Provider) -> bool:
        if not self._budget.take(provider.target.role):
            return False
        self.made += 1
        return True
