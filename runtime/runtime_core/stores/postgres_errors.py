"""What went wrong with PostgreSQL, in the words of the StoreError tree.

Texts come from SQLSTATE codes and the server's one-line message: its DETAIL, and what is said of a parameter,
hold stored values. For those errors the driver's own is no cause either, or a traceback would show it.
"""

from __future__ import annotations

from enum import Enum

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from runtime_core.errors import (
    StoreConflictError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    StoreValueError,
)

# Everything that connecting, executing and reading rows raise: InternalClientError is a protocol gone wrong.
DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,  # TimeoutError too
    EOFError,
)

_COLLISIONS = ("40001", "40P01")  # serialization failure, deadlock
_GONE = ("57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "53300")
_REFUSED = ("28000", "28P01", "3D000")


class Trouble(Enum):
    """What an error means for the operation that met it."""

    COLLISION = "collision"  # nothing is stored; the same again may well succeed
    GONE = "gone"  # the server or the connection is not there (now)
    FAILED = "failed"  # the same again fails again


class Interrupted(Exception):
    """A statement failed on the way to a commit. It never leaves this package's PostgreSQL modules."""

    def __init__(self, trouble: Trouble, error: StoreError) -> None:
        super().__init__(trouble, error)
        self.trouble = trouble
        self.error = error


def interruption(error: BaseException, *, location: str, reading: bool = False) -> Interrupted:
    """How a driver's error interrupts an operation."""
    translated = translate(error, location=location, reading=reading)
    if not isinstance(translated, StoreValueError | StoreConflictError):
        translated.__cause__ = error
    return Interrupted(trouble_of(error), translated)


def trouble_of(error: BaseException) -> Trouble:
    """Decided by SQLSTATE where the server has spoken."""
    if isinstance(error, asyncpg.PostgresError):
        state = _fact(error, "sqlstate")
        if state in _COLLISIONS or isinstance(error, asyncpg.InvalidCachedStatementError):
            return Trouble.COLLISION
        if state in _REFUSED:
            return Trouble.FAILED
        if state in _GONE or state.startswith("08") or _fact(error, "severity_en") in ("FATAL", "PANIC"):
            return Trouble.GONE
        return Trouble.FAILED
    if isinstance(error, ValueError):  # a parameter, or a setting of the connection
        return Trouble.FAILED
    if isinstance(error, asyncpg.InterfaceError) and not _is_about_the_connection(error):
        return Trouble.FAILED
    return Trouble.GONE


def translate(error: BaseException, *, location: str, reading: bool = False) -> StoreError:
    """The error to raise `from` an error of the driver. `reading`: in a read operation."""
    if isinstance(error, asyncpg.PostgresError):
        return _of_state(error, location, reading)
    if isinstance(error, asyncpg.ClientConfigurationError):
        return StoreError(f"The address or the settings of {location} are not understood.", location=location)
    if isinstance(error, ValueError):
        return StoreValueError(f"A parameter cannot be stored ({type(error).__name__}).", location=location)
    if isinstance(error, TimeoutError):
        return StoreUnavailableError(
            f"{location} does not answer in time; see whether it is overloaded or the network is cut.",
            location=location,
        )
    if trouble_of(error) is Trouble.FAILED:
        return StoreError(f"A statement failed in {location}: {error}.", location=location)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return StoreUnavailableError(
        f"{location} cannot be reached ({reason}); see whether it runs there.", location=location
    )


def _of_state(error: asyncpg.PostgresError, location: str, reading: bool) -> StoreError:
    state = _fact(error, "sqlstate")
    message = _first_line(error)
    if state == "25006":
        if reading:
            return StoreError("A read operation tried to change the store; use run() for it.", location=location)
        return StoreUnavailableError(f"{location} is read-only now: name the primary server.", location=location)
    if state.startswith("23"):
        return StoreConflictError(f"{location} refused a row: {message}.", location=location)
    if state.startswith("22"):
        return StoreValueError(f"A parameter cannot be stored ({type(error).__name__}).", location=location)
    if state in ("53100", "53400"):
        return StoreFullError(
            f"{location} cannot grow: free space on its disk. Nothing was written.", location=location
        )
    if state.startswith("XX0") and state != "XX000":
        return StoreCorruptError(
            f"{location} is damaged ({message}); stop its users and restore a backup.", location=location
        )
    if state in _COLLISIONS:
        return StoreUnavailableError(
            f"Operations on {location} kept colliding with others; try again, and ask for less at once.",
            location=location,
        )
    if state == "42501" and "row-level security" in message:
        return StoreError(
            f"An operation wanted to write a row of a scope that it does not name, and {location} refused: {message}.",
            location=location,
        )
    if state in _REFUSED:
        return StoreError(f"{location} refuses the connection: {message}.", location=location)
    if state == "57014" or state == "55P03":
        return StoreUnavailableError(
            f"A statement took too long in {location} ({message}); see what holds its rows.", location=location
        )
    if state == "53300":
        return StoreUnavailableError(
            f"{location} has no free connection; allow more, or run fewer processes.", location=location
        )
    if trouble_of(error) is Trouble.GONE or state.startswith(("53", "58")):
        return StoreUnavailableError(f"{location} cannot be used now: {message}.", location=location)
    return StoreError(f"A statement failed in {location}: {message}.", location=location)


def _is_about_the_connection(error: asyncpg.InterfaceError) -> bool:
    """asyncpg has one class for a closed connection or pool and for a call that makes no sense."""
    return any(word in str(error) for word in ("closed", "closing", "released"))


def _first_line(error: asyncpg.PostgresError) -> str:
    return str(error.args[0] if error.args else error).partition("\n")[0].rstrip(".")


def _fact(error: asyncpg.PostgresError, name: str) -> str:
    """asyncpg sets what the server said as attributes that its types do not name."""
    return str(getattr(error, name, None) or "")
