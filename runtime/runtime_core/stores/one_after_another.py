"""Operations on a database that nobody else sees, each a transaction to its caller, many of them in one of SQLite's.

SQLite copies every page before a transaction changes it for the first time, and for a small operation that is most
of the work; operations that follow each other change the same pages.
"""

from __future__ import annotations

from typing import TypeVar

from runtime_core.stores.connection import Connection
from runtime_core.stores.sql import OpFactory, Rows, Sql, drive

T = TypeVar("T")

_TOGETHER = 64
"""Statements of one transaction. They are kept until it ends, with what they store."""


class OneAfterAnother:
    """When an operation raises, its transaction is rolled back, and the statements before its own run once more.

    They see the same rows as the first time, so they do the same; nobody reads their answers again.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._done: list[Sql] = []

    def run(self, op_factory: OpFactory[T]) -> T:
        """Run an operation; if it raises, nothing has changed."""
        self._go_on()
        done = len(self._done)
        try:
            result = drive(op_factory(), self._execute)
            if len(self._done) >= _TOGETHER:
                self._commit()
        except BaseException:
            if len(self._done) > done:
                del self._done[done:]
                self._connection.rollback()
            raise
        return result

    def look(self, op_factory: OpFactory[T]) -> T:
        """Run an operation that changes nothing; one that tries to raises StoreError."""
        self._go_on()
        return self._connection.look_within(op_factory)

    def _execute(self, statement: Sql) -> Rows:
        self._done.append(statement)
        return self._connection.execute(statement)

    def _go_on(self) -> None:
        """Be in a transaction that has seen everything; one that was rolled back left its statements."""
        if self._connection.in_transaction:
            return
        self._connection.begin_alone()
        if self._done:
            self._do_again()
            self._connection.begin_alone()

    def _do_again(self) -> None:
        try:
            for statement in self._done:
                self._connection.execute(statement)
            self._commit()
        except BaseException:
            self._connection.rollback()
            raise

    def _commit(self) -> None:
        self._connection.commit()
        self._done.clear()
