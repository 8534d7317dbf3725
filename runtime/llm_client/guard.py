"""The one door that may refuse a call: the ledger and the policy engine stand behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from llm_client.spec import EmbeddingSpec, RequestSpec
from runtime_core.call_log.records import Attempt, Ending


@dataclass(frozen=True, slots=True)
class Admission:
    """What the guard allows: `max_tokens` caps the answer, `role` is the role to call instead; None changes nothing."""

    max_tokens: int | None = None
    role: str | None = None


class AdmissionChanged(Exception):
    """From a log: nothing was reserved, because the lease now admits something else. Go by that, and reserve again."""


class Lease(Protocol):
    """An attempt that was admitted."""

    @property
    def admission(self) -> Admission: ...

    async def end(self, ending: Ending) -> None:
        """Called exactly once, however the attempt ended."""
        ...


class Guard(Protocol):
    """Asked before every attempt, after its retries and fallbacks were decided and before its row is reserved."""

    async def begin(self, attempt: Attempt, request: RequestSpec | EmbeddingSpec) -> Lease:
        """Raises CallRefused, or one of its subclasses, to refuse."""
        ...


NO_BOUNDS = Admission()


class NoLease:
    """Nothing was held back, so nothing ends; what was admitted may still be bounded.

    Where the attempt's row has its end, `ended` is told, in place of `end` and the task that it would run in: it waits
    for nothing and raises nothing.
    """

    def __init__(self, admission: Admission = NO_BOUNDS) -> None:
        self.admission = admission

    def ended(self, ending: Ending) -> None:
        return None

    async def end(self, ending: Ending) -> None:
        self.ended(ending)


class AdmitAll:
    """The default guard."""

    async def begin(self, attempt: Attempt, request: RequestSpec | EmbeddingSpec) -> Lease:
        return NoLease()
