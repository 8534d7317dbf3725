"""Several guards behind the one door of llm_client."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from llm_client.guard import Admission, Guard, Lease, NoLease
from llm_client.spec import EmbeddingSpec, RequestSpec
from runtime_core.call_log.records import Attempt, AttemptStatus, Ending
from runtime_core.clock import Clock, SystemClock

logger = logging.getLogger(__name__)


class GuardChain:
    """Asks each guard in turn; the first refusal is the answer, and those asked before are told that nothing was sent.

    The tightest bound of an answer counts, and the first guard that wants another role.
    """

    def __init__(self, *guards: Guard, clock: Clock | None = None) -> None:
        self._guards = guards
        self._clock = clock or SystemClock()

    async def begin(self, attempt: Attempt, request: RequestSpec | EmbeddingSpec) -> Lease:
        """Raises what a guard raises."""
        leases: list[Lease] = []
        try:
            for guard in self._guards:
                leases.append(await guard.begin(attempt, request))  # noqa: PERF401 - what is there when one refuses counts
        except BaseException:
            await self._release(_Leases(leases))
            raise
        at_once = [lease for lease in leases if isinstance(lease, NoLease)]
        return _AtOnce(at_once) if len(at_once) == len(leases) else _Leases(leases)

    async def _release(self, leases: _Leases) -> None:
        """Whoever asked hears why the guard refused; that a lease did not end is told to the log."""
        released = Ending(status=AttemptStatus.RELEASED, ended_at=self._clock.now().timestamp(), error="refused")
        try:
            await leases.end(released)
        except Exception:
            logger.warning("a call was refused, and the guards before could not all be told", exc_info=True)


class _Leases:
    def __init__(self, leases: Sequence[Lease]) -> None:
        self._leases = leases

    @property
    def admission(self) -> Admission:
        return _tightest(self._leases)

    async def end(self, ending: Ending) -> None:
        """Every lease ends; then the first error of them is raised."""
        failed: Exception | None = None
        for lease in reversed(self._leases):
            try:
                await lease.end(ending)
            except Exception as exc:  # noqa: BLE001 - one guard that fails must not keep another's reservation open
                failed = failed or exc
        if failed is not None:
            raise failed


class _AtOnce(NoLease):
    """Leases none of which has anything to wait for at its end."""

    def __init__(self, leases: Sequence[NoLease]) -> None:
        self._leases = leases

    @property
    def admission(self) -> Admission:
        return _tightest(self._leases)

    def ended(self, ending: Ending) -> None:
        for lease in reversed(self._leases):
            lease.ended(ending)

    async def end(self, ending: Ending) -> None:
        await _Leases(self._leases).end(ending)


def _tightest(leases: Sequence[Lease]) -> Admission:
    wanted = [lease.admission for lease in leases]
    bounds = [each.max_tokens for each in wanted if each.max_tokens is not None]
    roles = [each.role for each in wanted if each.role is not None]
    return Admission(max_tokens=min(bounds, default=None), role=roles[0] if roles else None)
