"""What went wrong in SQLite, in the words of the StoreError tree."""

from __future__ import annotations

import sqlite3

from runtime_core.errors import (
    StoreConflictError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    StoreValueError,
)

# Everything a sqlite3 connection raises while it executes: the last two come from binding a parameter.
DRIVER_ERRORS = (sqlite3.Error, OverflowError, UnicodeEncodeError)

BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_ENVIRONMENT = (
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_AUTH,
)


def primary_code(error: BaseException) -> int | None:
    """SQLite's primary result code, None when the error did not come from the SQLite library."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None


def translate(error: BaseException, *, location: str) -> StoreError:
    """The error to raise `from` an error of the driver."""
    code = primary_code(error)
    if code in BUSY:
        return StoreUnavailableError(
            f"Another process kept the database {location} locked for too long; try again.", location=location
        )
    if code == sqlite3.SQLITE_FULL:
        return StoreFullError(
            f"The database {location} cannot grow: free space on its disk. Nothing was written.",
            location=location,
        )
    if code in _DAMAGED:
        return StoreCorruptError(
            f"{location} is damaged or no SQLite database ({error}); stop its users and restore a backup.",
            location=location,
        )
    if code == sqlite3.SQLITE_CONSTRAINT:
        return StoreConflictError(f"The database {location} refused a row: {error}.", location=location)
    if code in _ENVIRONMENT:
        return StoreUnavailableError(f"The database {location} cannot be used: {error}.", location=location)
    if isinstance(error, OverflowError | UnicodeEncodeError):
        return StoreValueError(f"A parameter cannot be stored: {error}.", location=location)
    return StoreError(f"A statement failed in the database {location}: {error}.", location=location)
