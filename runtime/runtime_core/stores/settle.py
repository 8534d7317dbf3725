"""What became of an operation, told to whoever waits for it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from runtime_core.stores.outcome import Done, Failed, Outcome

_log = logging.getLogger(__name__)


def settle(answer: asyncio.Future[Any], outcome: Outcome) -> None:
    """On the event loop of `answer`. One that nobody waits for any more stays as it is."""
    if not answer.done():
        if isinstance(outcome, Done):
            answer.set_result(outcome.value)
        else:
            answer.set_exception(outcome.error)
    elif isinstance(outcome, Failed):
        _log.warning("A store operation failed after its caller had left: %s", outcome.error)
