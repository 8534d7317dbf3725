"""One execution, one answer, for each idempotency key of a scope.

Within a process duplicates wait for the first one's future; across processes they ask the log until the answer is
there or the first one's lease has run out, and then take over. A first one that is cancelled fails nobody: the
next takes over. Failures are shared with those who waited, and not stored.
"""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from llm_client.errors import IdempotencyConflictError
from runtime_core.call_log.keys import Answer, Claim, Completion, Conflict, Done, InFlight, KeyState, Started
from runtime_core.call_log.records import Attempt, Ending
from runtime_core.clock import Clock, SystemClock

_FIRST_POLL_S = 0.01
_LONGEST_POLL_S = 0.25


class KeyStore(Protocol):
    """Where keys live; CallLog is one, on any database. An answer is stored with its attempt, in one commit."""

    async def begin(self, claim: Claim) -> Started | KeyState: ...
    async def renew_claim(self, claim: Claim) -> bool: ...
    async def fail(self, claim: Claim) -> bool: ...
    async def end_with_claim(self, attempt: Attempt, ending: Ending, claim: Claim) -> Completion: ...


@dataclass(frozen=True, slots=True)
class _Finished:
    value: Any


@dataclass(frozen=True, slots=True)
class _Failed:
    error: Exception


class _Abandoned:
    """The leader was cancelled: somebody else's turn."""


@dataclass(frozen=True, slots=True)
class _Running:
    request_hash: str
    outcome: asyncio.Future[_Finished | _Failed | _Abandoned]


@dataclass(frozen=True, slots=True)
class Given:
    """The key has its answer: `value` from this process, or the `text` that the log kept."""

    value: Any = None
    text: str | None = None


class IdempotencyTracker:
    """Duplicates of one key, in this process and in all that share the engine's log.

    `request_timeout` is for how many seconds a key is held without a sign of life from whoever executes it; then
    it is taken over. `ttl_s` is how long an answer is kept. A duplicate of a request in flight waits for it
    (`conflict="wait"`), or gets IdempotencyConflictError with `in_flight` (`"error"`).
    """

    def __init__(
        self,
        request_timeout: float = 60.0,
        *,
        ttl_s: float = 86_400.0,
        conflict: Literal["wait", "error"] = "wait",
        clock: Clock | None = None,
    ) -> None:
        self.request_timeout = request_timeout
        self.ttl_s = ttl_s
        self.conflict = conflict
        self._clock = clock or SystemClock()
        self._running: dict[tuple[str, str], _Running] = {}

    def claim(self, *, scope_id: str, key: str, request_hash: str, owner: str) -> Claim:
        """Raises StoreValueError for a key that is not 1 to 255 characters long."""
        return Claim(scope_id, key, request_hash, owner, lease_s=self.request_timeout, ttl_s=self.ttl_s)

    async def enter(self, claim: Claim, store: KeyStore) -> Leader | Given:
        """The right to execute, or the answer. Raises IdempotencyConflictError, and what the first one failed with."""
        place = (claim.scope_id, claim.key)
        while (running := self._running.get(place)) is not None:
            self._check(running.request_hash, claim)
            outcome = await asyncio.shield(running.outcome)
            if isinstance(outcome, _Finished):
                return Given(value=outcome.value)
            if isinstance(outcome, _Failed):
                raise _own_copy(outcome.error)
        leader = Leader(self, claim, store)
        self._running[place] = leader.running
        try:
            answer = await self._claim(claim, store)
        except BaseException as exc:
            leader.leave(exc)
            raise
        if answer is None:
            return leader
        leader.leave(None)
        return Given(text=answer.text)

    async def follow(self, claim: Claim, store: KeyStore) -> Answer | None:
        """The answer of whoever took the key over; None if they gave up, and the key is the claimant's again."""
        return await self._claim(claim, store)

    def forget(self, claim: Claim, running: _Running) -> None:
        place = (claim.scope_id, claim.key)
        if self._running.get(place) is running:
            del self._running[place]

    async def _claim(self, claim: Claim, store: KeyStore) -> Answer | None:
        pause = _FIRST_POLL_S
        while True:
            match await store.begin(claim):
                case Started():
                    return None
                case Done(answer):
                    return answer
                case Conflict(request_hash):
                    self._check(request_hash, claim)
                case InFlight():
                    self._check(claim.request_hash, claim)
            await self._clock.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL_S)

    def _check(self, request_hash: str, claim: Claim) -> None:
        if request_hash != claim.request_hash:
            raise IdempotencyConflictError(
                "The idempotency key was used for another request; use a new key for a new request.", key=claim.key
            )
        if self.conflict == "error":
            raise IdempotencyConflictError(
                "A request with this idempotency key is being executed; ask again when it has ended.",
                key=claim.key,
                in_flight=True,
            )


class Leader:
    """Executes. `async with` it, and give it the result with `finish`; leaving without one tells those who wait."""

    def __init__(self, tracker: IdempotencyTracker, claim: Claim, store: KeyStore) -> None:
        self.claim = claim
        self.running = _Running(claim.request_hash, asyncio.get_running_loop().create_future())
        self._tracker = tracker
        self._store = store

    def finish(self, value: Any) -> None:
        """`value` is stored; whoever waits gets it."""
        self._tell(_Finished(value))

    def leave(self, error: BaseException | None) -> None:
        """Without a result: an error is shared, a cancellation is not."""
        self._tell(_Failed(error) if isinstance(error, Exception) else _Abandoned())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave(error)

    def _tell(self, outcome: _Finished | _Failed | _Abandoned) -> None:
        self._tracker.forget(self.claim, self.running)
        if not self.running.outcome.done():
            self.running.outcome.set_result(outcome)


def _own_copy(error: Exception) -> Exception:
    """Raising one object in several tasks would mix up their tracebacks."""
    own = copy.copy(error)
    own.__cause__ = error
    return own
