"""What the two threads of an SQLite database do with a batch of operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from runtime_core.errors import StoreError, StoreUnavailableError
from runtime_core.stores.connection import Connection
from runtime_core.stores.failpoints import failpoint
from runtime_core.stores.joint import joined, together
from runtime_core.stores.outcome import Done, Failed, Outcome, outcome_of, share
from runtime_core.stores.sql import OpFactory


class GroupCommit:
    """Writes: one transaction and one disk flush for the whole batch.

    When an operation of a batch raises, nothing of the batch is stored and all run once more, each with a savepoint.
    That is rarer, and so cheaper, than savepoints at once.
    """

    def __init__(self, connect: Callable[[], Connection], *, patience_s: float) -> None:
        self._connect = connect
        self._patience_s = patience_s
        self.commits = 0

    def open(self) -> None:
        self._connection = self._connect()

    def close(self) -> None:
        self._connection.close()

    def handle(self, batch: Sequence[OpFactory[Any]]) -> list[Outcome]:
        """One outcome for each operation; all that are Done are durable."""
        try:
            self._connection.begin(patience_s=self._patience_s)
        except StoreError as error:
            return share(error, len(batch))
        if len(batch) == 1:
            return self._alone(batch[0])
        outcome = outcome_of(lambda: self._connection.perform(lambda: together(joined(batch))))
        if isinstance(outcome, Failed):
            self._connection.rollback()
            return self._with_savepoints(batch)
        return self._commit([Done(result) for result in outcome.value])

    def _alone(self, op_factory: OpFactory[Any]) -> list[Outcome]:
        outcome = outcome_of(lambda: self._connection.perform(op_factory))
        if isinstance(outcome, Failed):
            self._connection.rollback()
            return [outcome]
        return self._commit([outcome])

    def _with_savepoints(self, batch: Sequence[OpFactory[Any]]) -> list[Outcome]:
        """Nobody pays for another's error."""
        try:
            self._connection.begin(patience_s=self._patience_s)
        except StoreError as error:
            return share(error, len(batch))
        outcomes: list[Outcome] = []
        for op_factory in batch:
            outcomes.append(outcome_of(lambda op_factory=op_factory: self._connection.attempt(op_factory)))
            if not self._connection.in_transaction:  # SQLite rolled everything back, as it does on a full disk
                return [outcome for each in batch for outcome in self.handle([each])]
        return self._commit(outcomes)

    def _commit(self, outcomes: list[Outcome]) -> list[Outcome]:
        try:
            failpoint("store.before_commit")
            self._connection.commit()
            failpoint("store.after_commit")
        except StoreError as error:
            self._connection.rollback()
            unknown = StoreUnavailableError(
                f"The commit failed, so the write may be stored or not; repeat it with the same ids. {error}",
                location=error.location,
                outcome_unknown=True,
            )
            unknown.__cause__ = error
            # Also for operations that raised: what they saw may never have been committed.
            return share(unknown, len(outcomes))
        self.commits += 1
        return outcomes


class Snapshots:
    """Reads: each operation sees one snapshot, taken when its turn comes."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect

    def open(self) -> None:
        self._connection = self._connect()

    def close(self) -> None:
        self._connection.close()

    def handle(self, batch: Sequence[OpFactory[Any]]) -> list[Outcome]:
        return [outcome_of(lambda op_factory=op_factory: self._connection.look(op_factory)) for op_factory in batch]
