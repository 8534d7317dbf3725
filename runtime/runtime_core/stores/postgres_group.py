"""What is done with the operations that wait for a PostgreSQL connection: one transaction for all of them.

That halves the round trips, and operations of one process then seldom collide. Nobody pays for another's error:
when an operation of a group fails, nothing of the group is stored and each runs again as a transaction of its own.
That is rarer, and so cheaper, than a savepoint around every operation.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any, Protocol, TypeAlias

from runtime_core.errors import StoreError, StoreUnavailableError
from runtime_core.stores.failpoints import failpoint
from runtime_core.stores.joint import Apart, Share, apart, in_order, joined
from runtime_core.stores.outcome import Done, Failed, Outcome
from runtime_core.stores.postgres_errors import Interrupted, Trouble
from runtime_core.stores.postgres_session import Session
from runtime_core.stores.sql import OpFactory

# With the pauses between them, which grow to the longest, these take about 2 s.
COLLISIONS = 25
_LONGEST_PAUSE_S = 0.2

Batch: TypeAlias = Sequence[OpFactory[Any]]
Shares: TypeAlias = Sequence[Share]

# None: nothing is stored, because the connection was lost; run it again on another.
Outcomes: TypeAlias = list[Outcome | None]


class Engine(Protocol):
    """What a lane does with a batch: one outcome for each operation. `collisions` are those so far."""

    @property
    def collisions(self) -> int: ...

    async def handle(self, session: Session, batch: Batch) -> Outcomes: ...


class Writes:
    """Everything that is Done is durable. Groups that collided go one at a time, so they meet only others' writes."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._gate = asyncio.Lock()
        self.commits = 0
        self.collisions = 0

    async def handle(self, session: Session, batch: Batch) -> Outcomes:
        shares = joined(batch)
        result = await self._transact(session, shares)
        if isinstance(result, Apart):
            shares = apart(batch)
            result = await self._transact(session, shares)
        if _collided(result):
            self.collisions += 1
            async with self._gate:
                result = await self._insist(session, shares, result)
        if isinstance(result, list):
            return result
        if len(batch) > 1:
            return [outcome for op_factory in batch for outcome in await self.handle(session, [op_factory])]
        return [Failed(result.error if isinstance(result, Interrupted) else result)]

    async def _insist(self, session: Session, shares: Shares, result: Outcomes | Exception) -> Outcomes | Exception:
        for attempt in range(COLLISIONS):
            await asyncio.sleep(self._rng.uniform(0, min(_LONGEST_PAUSE_S, 0.001 * 2**attempt)))
            result = await self._transact(session, shares)
            if not _collided(result):
                break
        return result

    async def _transact(self, session: Session, shares: Shares) -> Outcomes | Exception:
        """The outcomes of the committed group, or what kept it from being stored."""
        count = sum(len(share.places) for share in shares)
        try:
            await session.begin(first=shares[0].op_factory, reading=False, alone=count == 1)
            results = in_order(shares, [await session.run(share.op_factory) for share in shares])
        except Interrupted as error:
            await _roll_back(session)
            return _nothing(count) if error.trouble is Trouble.GONE else error
        except Exception as error:  # noqa: BLE001 - an operation's own; it belongs to its caller
            await _roll_back(session)
            return error
        return await self._commit(session, [Done(result) for result in results])

    async def _commit(self, session: Session, outcomes: Outcomes) -> Outcomes | Exception:
        try:
            failpoint("store.before_commit")
            await session.commit()
            failpoint("store.after_commit")
        except Interrupted as error:
            if error.trouble is not Trouble.GONE:
                return error
            return _unknown(error.error, len(outcomes))
        except StoreError as error:
            await _roll_back(session)
            return _unknown(error, len(outcomes))
        self.commits += 1
        return outcomes


class Reads:
    """All operations of a batch see one snapshot, taken when its turn comes."""

    collisions = 0

    async def handle(self, session: Session, batch: Batch) -> Outcomes:
        outcomes: Outcomes = []
        while len(outcomes) < len(batch):  # a statement that fails ends the snapshot; the others get another one
            outcomes += await self._look(session, batch[len(outcomes) :])
        return outcomes

    async def _look(self, session: Session, batch: Batch) -> Outcomes:
        outcomes: Outcomes = []
        try:
            await session.begin(first=batch[0], reading=True)
            for op_factory in batch:
                outcomes.append(await _outcome(session, op_factory))
        except Interrupted as error:
            if error.trouble is Trouble.FAILED:
                outcomes.append(Failed(error.error))
            else:
                outcomes += _nothing(len(batch) - len(outcomes))
        await _roll_back(session)
        return outcomes


async def _outcome(session: Session, op_factory: OpFactory[Any]) -> Outcome:
    try:
        return Done(await session.run(op_factory))
    except Interrupted:
        raise
    except Exception as error:  # noqa: BLE001 - an operation's own; it belongs to its caller
        return Failed(error)


async def _roll_back(session: Session) -> None:
    if session.broken is None:
        with suppress(Interrupted):
            await session.rollback()


def _nothing(count: int) -> Outcomes:
    return [None for _ in range(count)]


def _collided(result: Outcomes | Exception) -> bool:
    return isinstance(result, Interrupted) and result.trouble is Trouble.COLLISION


def _unknown(error: StoreError, count: int) -> Outcomes:
    """Also for operations that only read: what they saw may never have been committed."""
    unknown = StoreUnavailableError(
        f"The commit failed, so the write may be stored or not; repeat it with the same ids. {error}",
        location=error.location,
        outcome_unknown=True,
    )
    unknown.__cause__ = error
    return [Failed(own) for own in copies(unknown, count)]


def copies(error: StoreError, count: int) -> list[StoreError]:
    """An error object of its own for each caller: raising one object twice mixes up the tracebacks."""
    own = [copy.copy(error) for _ in range(count)]
    for each in own:
        each.__cause__ = error.__cause__
    return own
