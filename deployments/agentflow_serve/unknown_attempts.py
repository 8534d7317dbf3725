"""How many model calls nobody can tell the end of, whoever found that out: asked of the run store now and then."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from runtime_core.clock import Clock
from runtime_core.errors import StoreError

WINDOW_S = 300.0
EVERY_S = 30.0
logger = logging.getLogger(__name__)


class Unknowns(Protocol):
    async def unknown_in(self, seconds: float) -> int:
        """How many attempts have ended as unknown in the last `seconds`."""
        ...


async def count_unknown(ledger: Unknowns, tell: Callable[[int], None], *, clock: Clock) -> None:
    """Until it is cancelled. While the store does not answer, what was told last stands."""
    while True:
        try:
            tell(await ledger.unknown_in(WINDOW_S))
        except StoreError:
            logger.debug("the run store does not tell how many calls ended as unknown", exc_info=True)
        except Exception:
            logger.exception("calls that ended as unknown were not counted, for a reason that nobody foresaw")
        await clock.sleep(EVERY_S)
