"""One result of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """`name` is stable, for programs; the message is a sentence, the hint says what to do about it."""

    name: str
    status: Status
    message: str
    hint: str | None = None


def ok(name: str, message: str) -> Check:
    return Check(name, "ok", message)


def warn(name: str, message: str, hint: str) -> Check:
    return Check(name, "warn", message, hint)


def fail(name: str, message: str, hint: str) -> Check:
    return Check(name, "fail", message, hint)


def size(number: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"
