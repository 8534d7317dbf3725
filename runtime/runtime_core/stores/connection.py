"""One SQLite connection that runs operations; every error leaves it translated."""

from __future__ import annotations

import sqlite3
import time
from typing import TypeVar

from runtime_core.errors import StoreError
from runtime_core.stores.sql import OpFactory, Rows, Sql, drive
from runtime_core.stores.sqlite_errors import BUSY, DRIVER_ERRORS, primary_code, translate

T = TypeVar("T")

_BEGIN = Sql("BEGIN IMMEDIATE", counts=True)
_BEGIN_DEFERRED = Sql("BEGIN")
_COMMIT = Sql("COMMIT", counts=True)
_ROLLBACK = Sql("ROLLBACK")
_SAVE = Sql("SAVEPOINT operation")
_UNDO = Sql("ROLLBACK TO operation")
_FORGET = Sql("RELEASE operation")
_REFUSE_WRITES = Sql("PRAGMA query_only = ON")


class Connection:
    """Owns `raw`, which is in autocommit mode and is used by one thread at a time."""

    def __init__(self, raw: sqlite3.Connection, *, location: str, read_only: bool = False) -> None:
        self._raw = raw
        self._location = location
        self._read_only = read_only
        if read_only:
            self.execute(_REFUSE_WRITES)

    @classmethod
    def in_memory(cls, max_bytes: int) -> Connection:
        """A private, empty database that grows to `max_bytes` at most.

        After a page was split, a commit looks at all pages that there are, so they are large. What is deleted from
        memory need not be overwritten.
        """
        raw = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=512)
        raw.execute("PRAGMA page_size = 8192")
        raw.execute("PRAGMA secure_delete = OFF")
        raw.execute("PRAGMA foreign_keys = ON")
        [page_size] = raw.execute("PRAGMA page_size").fetchone()
        raw.execute(f"PRAGMA max_page_count = {max(1, max_bytes // page_size)}")
        return cls(raw, location="memory:")

    @property
    def in_transaction(self) -> bool:
        return self._raw.in_transaction

    def execute(self, statement: Sql) -> Rows:
        try:
            cursor = self._raw.execute(statement.text, statement.params)
            return [(cursor.rowcount,)] if statement.counts else cursor.fetchall()
        except DRIVER_ERRORS as error:
            if self._read_only and primary_code(error) == sqlite3.SQLITE_READONLY:
                raise self._no_write_while_reading() from error
            raise translate(error, location=self._location) from error

    def begin_alone(self) -> None:
        """Start a transaction where nobody else can hold the database."""
        self.execute(_BEGIN_DEFERRED)

    def begin(self, *, patience_s: float) -> None:
        """Start a write transaction, waiting up to `patience_s` for other processes.

        Polls often: SQLite's own waiting backs off to 100 ms and then starves beside a busy writer.
        """
        if self._raw.in_transaction:
            self.rollback()
        give_up_at = time.monotonic() + patience_s
        while True:
            try:
                self._raw.execute(_BEGIN.text)
                return
            except sqlite3.Error as error:
                if primary_code(error) not in BUSY or time.monotonic() >= give_up_at:
                    raise translate(error, location=self._location) from error
            time.sleep(0.001)

    def commit(self) -> None:
        self.execute(_COMMIT)

    def rollback(self) -> None:
        if self._raw.in_transaction:
            self.execute(_ROLLBACK)

    def perform(self, op_factory: OpFactory[T]) -> T:
        """Run an operation inside the open transaction; if it raises, only rollback() is left to do."""
        return drive(op_factory(), self.execute)

    def attempt(self, op_factory: OpFactory[T]) -> T:
        """`perform`; if it raises, its part alone is undone."""
        self.execute(_SAVE)
        try:
            result = drive(op_factory(), self.execute)
        except BaseException:
            self._undo_saved()
            raise
        self.execute(_FORGET)
        return result

    def look(self, op_factory: OpFactory[T]) -> T:
        """Run an operation on one snapshot, as a read-only connection."""
        self.execute(_BEGIN_DEFERRED)
        try:
            return drive(op_factory(), self.execute)
        finally:
            self.rollback()

    def look_within(self, op_factory: OpFactory[T]) -> T:
        """`look` inside the open transaction, which goes on as it was: query_only would re-prepare every statement."""
        before = self._raw.total_changes
        self.execute(_SAVE)
        try:
            result = drive(op_factory(), self.execute)
        finally:
            self._undo_saved()
        if self._raw.total_changes != before:
            raise self._no_write_while_reading()
        return result

    def close(self) -> None:
        self._raw.close()

    def _undo_saved(self) -> None:
        if self._raw.in_transaction:  # else SQLite itself has rolled everything back
            self.execute(_UNDO)
            self.execute(_FORGET)

    def _no_write_while_reading(self) -> StoreError:
        return StoreError("A read operation tried to change the store; use run() for it.", location=self._location)
