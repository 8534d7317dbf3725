"""What a replica asks of the app's shared actor, or of the run store itself where the actor does not answer.

Both ways end in the same transactions of the same store, and what arrives on both is kept once; so nothing has to be
known about a call that was given up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from agentflow_serve.errors import LedgerAway
from runtime_core.errors import StoreUnavailableError
from runtime_core.stores.url import MEMORY as MEMORY

Store = TypeVar("Store")

CALL_TIMEOUT_S = 15.0
"""A restart takes two to four seconds; a call waits for it, and no longer than this."""
ANSWER_WITHIN_S = 2.0
"""With a store of one's own there is no reason to wait for a restart."""
AWAY_S = 5.0
"""How long an actor that did not answer is passed by."""
logger = logging.getLogger(__name__)


class Calls(Protocol):
    """The app's actor: `LedgerCalls` is one."""

    async def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        """What the method gives or raises on purpose. Raises LedgerAway where it does neither in time."""
        ...


class ActorOrStore(Generic[Store]):
    """`past` is the store itself; None where only the actor has it, because it is in memory."""

    def __init__(
        self, calls: Calls, past: Store | None, *, what: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._calls = calls
        self._past = past
        self._what = what
        self._timeout_s = CALL_TIMEOUT_S if past is None else ANSWER_WITHIN_S
        self._clock = clock
        self._away_until = clock()
        self._away = False

    async def ask(self, method: str, *args: Any) -> Any:
        """What the actor says. Raises LedgerAway where it says nothing, or said nothing a moment ago."""
        if self._past is not None and self._clock() < self._away_until:
            raise LedgerAway("the shared actor of this flow did not answer a moment ago", sent=False)
        try:
            answer = await self._calls.call(method, *args, timeout_s=self._timeout_s)
        except LedgerAway as exc:
            self._away_until = self._clock() + AWAY_S
            self._tell_once(away=True, why=exc)
            raise
        self._tell_once(away=False)
        return answer

    def _tell_once(self, *, away: bool, why: LedgerAway | None = None) -> None:
        if away == self._away:
            return
        self._away = away
        if not away:
            logger.warning("The shared actor of this flow answers again, and the %s go through it.", self._what)
        elif self._past is None:
            logger.warning("The %s of this flow cannot be reached: %s", self._what, why)
        else:
            logger.warning("The %s of this flow go to the run store past its shared actor: %s", self._what, why)

    def without(self, away: LedgerAway) -> Store:
        """The store itself. Raises StoreUnavailableError where there is none."""
        if self._past is None:
            message = (
                f"The {self._what} of this flow are in its shared actor's memory, and that does not answer; try again."
            )
            raise StoreUnavailableError(message, outcome_unknown=True) from away
        return self._past
