"""Opening an SQLite file: is it ours, is it whole, does it have the settings that make commits durable?"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from runtime_core.errors import StoreCorruptError, StoreLocationError, StoreUnavailableError
from runtime_core.stores.connection import Connection
from runtime_core.stores.sqlite_errors import BUSY, primary_code, translate

# quick_check reads the whole file, 60 to 90 ms for 55 MiB; damage in larger files is found when it is touched.
CHECK_UP_TO_BYTES = 64 * 2**20

# How long SQLite itself waits for a lock before Connection.begin looks at its own patience again.
_POLL_S = 0.02

_OWNER = "SELECT node_id FROM database_owner"


def open_writer(path: Path, *, node_id: str | None, patience_s: float) -> Connection:
    """The writing connection of this process to the file, which is created if it is not there.

    Raises StoreLocationError, StoreCorruptError or StoreUnavailableError; the file is then as it was.
    """
    if node_id is not None:
        _refuse_other_owner(path, owner=_peek_owner(path), node_id=node_id)
    _create(path)
    raw = _connect(path, timeout_s=_POLL_S)
    give_up_at = time.monotonic() + patience_s
    try:
        _patiently(lambda: _check(raw, path), give_up_at=give_up_at)
        _patiently(lambda: _configure(raw, path), give_up_at=give_up_at)
        if node_id is not None:
            _patiently(lambda: _claim(raw, path, node_id), give_up_at=give_up_at)
    except sqlite3.Error as error:
        raw.close()
        raise translate(error, location=str(path)) from error
    except BaseException:
        raw.close()
        raise
    return Connection(raw, location=str(path))


def open_reader(path: Path, *, patience_s: float) -> Connection:
    """A connection that cannot write, to a file that a writer of this process has prepared."""
    return Connection(_connect(path, timeout_s=patience_s), location=str(path), read_only=True)


def _connect(path: Path, *, timeout_s: float) -> sqlite3.Connection:
    try:
        return sqlite3.connect(path, isolation_level=None, timeout=timeout_s, cached_statements=512)
    except sqlite3.Error as error:
        raise translate(error, location=str(path)) from error


def _create(path: Path) -> None:
    """Make a missing file readable by its owner only: it will hold prompts and answers."""
    try:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreUnavailableError(
            f"The database {path} cannot be created: {error.strerror}.", location=str(path)
        ) from error


def _check(raw: sqlite3.Connection, path: Path) -> None:
    if path.stat().st_size > CHECK_UP_TO_BYTES:
        raw.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        return
    found = [str(row[0]) for row in raw.execute("PRAGMA quick_check(1)")]
    if found != ["ok"]:
        raise StoreCorruptError(
            f"{path} is damaged ({found[0]}); stop its processes and restore a backup.", location=str(path)
        )


def _configure(raw: sqlite3.Connection, path: Path) -> None:
    (mode,) = raw.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreUnavailableError(
            f"The file system of {path} has no write-ahead logging; put the database on a local disk.",
            location=str(path),
        )
    raw.execute("PRAGMA synchronous = FULL")
    raw.execute("PRAGMA foreign_keys = ON")
    raw.execute("PRAGMA journal_size_limit = 67108864")  # give the disk back after a burst


def _claim(raw: sqlite3.Connection, path: Path, node_id: str) -> None:
    """Write our node into a file without an owner; refuse a file with another one."""
    raw.execute("BEGIN IMMEDIATE")
    raw.execute(
        "CREATE TABLE IF NOT EXISTS database_owner"
        " (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), node_id TEXT NOT NULL)"
    )
    raw.execute("INSERT INTO database_owner VALUES (1, ?) ON CONFLICT (only_row) DO NOTHING", (node_id,))
    (owner,) = raw.execute(_OWNER).fetchone()
    raw.execute("COMMIT")
    _refuse_other_owner(path, owner=owner, node_id=node_id)
    raw.execute("PRAGMA wal_checkpoint").fetchall()  # into the file itself, for _peek_owner


def _peek_owner(path: Path) -> str | None:
    """The owner by a look that takes no lock and no shared memory, which two nodes cannot share safely.

    None when that look shows nothing; _claim decides then.
    """
    with suppress(sqlite3.Error):
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as raw:
            return str(raw.execute(_OWNER).fetchone()[0])
    return None


def _refuse_other_owner(path: Path, *, owner: str | None, node_id: str) -> None:
    if owner is not None and owner != node_id:
        raise StoreLocationError(
            f"The SQLite database {path} belongs to node {owner!r}, and this process runs on {node_id!r}; "
            "SQLite serves one machine, so use a PostgreSQL store (postgresql://...) for several.",
            location=str(path),
            owner=owner,
            here=node_id,
        )


def _patiently(action: Callable[[], None], *, give_up_at: float) -> None:
    """Repeat `action` while others hold the file; switching to WAL fails at once instead of waiting."""
    while True:
        try:
            action()
            return
        except sqlite3.Error as error:
            if primary_code(error) not in BUSY or time.monotonic() >= give_up_at:
                raise
        time.sleep(0.002)
