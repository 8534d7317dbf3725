"""What became of one operation, as a value that crosses from a thread to its caller."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Done:
    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    error: BaseException


Outcome: TypeAlias = Done | Failed


def outcome_of(work: Callable[[], Any]) -> Outcome:
    """Run `work` at a thread's edge: whatever it raises belongs to the caller, not to the thread."""
    try:
        return Done(work())
    except StopIteration as error:  # a future refuses to carry it
        return Failed(RuntimeError(f"an operation raised {error!r}"))
    except BaseException as error:  # noqa: BLE001 - see above
        return Failed(error)


def settle(answer: asyncio.Future[Any], outcome: Outcome) -> None:
    """Tell the caller, on its event loop, if it still waits."""
    if not answer.done():
        if isinstance(outcome, Done):
            answer.set_result(outcome.value)
        else:
            answer.set_exception(outcome.error)
    elif isinstance(outcome, Failed):
        _log.warning("A store operation failed after its caller had left: %s", outcome.error)
