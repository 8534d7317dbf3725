"""A PostgreSQL server that crashes under load and comes back.

AGENTFLOW_RESTART_ROUNDS is the number of crashes.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from random import Random

from runtime_core.errors import StoreUnavailableError
from runtime_core.stores.postgres import PostgresDatabase, PostgresOptions
from support.postgres import postgres_server
from support.stores import entry_ids, persist, prepare_journal, record, total
from support.waiting import until

ROUNDS = int(os.environ.get("AGENTFLOW_RESTART_ROUNDS", "4"))
CLIENTS = 16


class Load:
    """Clients that record entries for ever, each again until it is acknowledged, and what became of them."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._numbers = itertools.count()
        self.acknowledged: list[str] = []
        self.errors: list[StoreUnavailableError] = []
        self.stopping = False

    async def client(self) -> None:
        while not self.stopping:
            name = f"e{next(self._numbers)}"
            await persist(lambda name=name: self._record(name))
            self.acknowledged.append(name)

    async def _record(self, name: str) -> None:
        try:
            await self._database.run(lambda: record(name))
        except StoreUnavailableError as error:
            self.errors.append(error)
            raise


async def test_a_crash_loses_no_acknowledged_write_and_doubles_none() -> None:
    rng = Random(11)
    with postgres_server() as server:
        async with PostgresDatabase(server.url()) as database:
            await prepare_journal(database)
            load = Load(database)
            async with asyncio.TaskGroup() as clients:
                for _ in range(CLIENTS):
                    clients.create_task(load.client())
                for _ in range(ROUNDS):
                    await _until_more_acknowledged(load, rng.randint(50, 150))
                    await asyncio.to_thread(server.stop, immediately=True)
                    await asyncio.sleep(rng.uniform(0, 0.3))
                    await asyncio.to_thread(server.start)
                    back = time.monotonic()
                    await _until_more_acknowledged(load, 1)
                    assert time.monotonic() - back <= 1.0
                load.stopping = True
            stored = await database.read(entry_ids)
            assert len(load.acknowledged) == len(set(load.acknowledged))
            assert set(load.acknowledged) == stored
            assert await database.read(total) == len(stored)
        # Short downtimes are waited through: what callers hear of is only commits that were under way.
        assert all(error.outcome_unknown for error in load.errors)


async def test_a_server_that_stays_away_fails_callers_in_time_and_is_found_when_it_is_back() -> None:
    hasty = PostgresOptions(patience_s=0.5)
    with postgres_server() as server:
        async with PostgresDatabase(server.url(), options=hasty) as database:
            await prepare_journal(database)
            await asyncio.to_thread(server.stop)
            started = time.monotonic()
            results = await asyncio.gather(
                *(database.run(lambda n=n: record(f"e{n}")) for n in range(100)), return_exceptions=True
            )
            assert time.monotonic() - started < 2
            assert {type(result) for result in results} == {StoreUnavailableError}
            assert not any(isinstance(result, StoreUnavailableError) and result.outcome_unknown for result in results)
            await asyncio.to_thread(server.start)
            assert await database.run(lambda: record("e1")) == 1


async def _until_more_acknowledged(load: Load, more: int) -> None:
    goal = len(load.acknowledged) + more
    await until(lambda: len(load.acknowledged) >= goal)
