"""What became of one operation, as a value that crosses from a thread to its caller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias


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
