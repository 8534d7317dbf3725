"""Stores on PostgreSQL against the bare driver, in the same run: jobs from 16 clients, and one row that all want."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import count
from time import perf_counter
from typing import Any

import asyncpg

from agent_runtime import JobManager, JobSpec, PostgresJobStore
from benchmarks.harness import Figure, median_ratio, paired, pairs_for
from runtime_core.stores.postgres import PostgresDatabase
from support.postgres import PostgresServer, postgres_server
from support.stores import add, prepare_journal

CLIENTS = 16


def measure(short: bool) -> Iterator[Figure]:
    jobs, additions = (320, 160) if short else (1600, 800)
    pairs = pairs_for(short)
    with postgres_server(fsync=True) as server, asyncio.Runner() as runner:
        compared = paired(
            lambda: runner.run(_manage(server, jobs)), lambda: runner.run(_write(server, jobs)), pairs=pairs
        )
        what = f"jobs a second in PostgreSQL, create + start + complete, {CLIENTS} clients / the bare driver"
        yield Figure("postgres.jobs", what, median_ratio(compared), bound="at least", target=0.5)
        compared = paired(
            lambda: runner.run(_add(server, additions)), lambda: runner.run(_add_bare(server, additions)), pairs=pairs
        )
        what = f"additions a second to one row, {CLIENTS} clients / the bare driver"
        yield Figure("postgres.one_row", what, median_ratio(compared), bound="at least", target=1.0)


async def _manage(server: PostgresServer, jobs: int) -> float:
    async with PostgresJobStore(await server.fresh_url()) as store:
        manager = JobManager(store)

        async def one(_: int) -> None:
            job = await manager.create(JobSpec(principal_id="ada", metadata={"who": "bench"}))
            await manager.start(job.job_id)
            await manager.complete(job.job_id, result_ref="r")

        return await _rate(one, jobs)


async def _write(server: PostgresServer, jobs: int) -> float:
    """Nothing but asyncpg: the same three writes, each a serializable transaction, a connection for each client."""
    async with asyncpg.create_pool(await server.fresh_url(), min_size=CLIENTS, max_size=CLIENTS) as pool:
        await pool.execute(
            "CREATE TABLE jobs (scope_id TEXT, job_id TEXT, principal_id TEXT, status TEXT, created_at TIMESTAMPTZ,"
            " updated_at TIMESTAMPTZ, metadata JSON, result_ref TEXT, PRIMARY KEY (scope_id, job_id))"
        )

        async def one(number: int) -> None:
            job_id, metadata = f"job-{number}", json.dumps({"who": "bench"})
            insert = "INSERT INTO jobs VALUES ('s', $1, 'ada', 'queued', now(), now(), $2, NULL)"
            update = (
                "UPDATE jobs SET status = $2, updated_at = now(), result_ref = $3 WHERE scope_id = 's' AND job_id = $1"
            )
            await _durably(pool, insert, job_id, metadata)
            await _durably(pool, update, job_id, "running", None)
            await _durably(pool, update, job_id, "succeeded", "r")

        return await _rate(one, jobs)


async def _add(server: PostgresServer, additions: int) -> float:
    async with PostgresDatabase(await server.fresh_url()) as database:
        await prepare_journal(database)
        await database.run(lambda: add(1))

        async def one(_: int) -> None:
            await database.run(lambda: add(1))

        return await _rate(one, additions)


async def _add_bare(server: PostgresServer, additions: int) -> float:
    async with asyncpg.create_pool(await server.fresh_url(), min_size=CLIENTS, max_size=CLIENTS) as pool:
        await pool.execute("CREATE TABLE total (scope_id TEXT PRIMARY KEY, amount BIGINT)")
        await pool.execute("INSERT INTO total VALUES ('s', 1)")

        async def one(_: int) -> None:
            async def work(connection: Any) -> None:
                before = await connection.fetchval("SELECT amount FROM total WHERE scope_id = 's'")
                await connection.execute("UPDATE total SET amount = $1 WHERE scope_id = 's'", before + 1)

            await _transact(pool, work)

        return await _rate(one, additions)


async def _durably(pool: Any, statement: str, *values: object) -> None:
    await _transact(pool, lambda connection: connection.execute(statement, *values))


async def _transact(pool: Any, work: Any) -> None:
    """As a careful user of the driver does: serializable, and again after a collision."""
    async with pool.acquire() as connection:
        while True:
            try:
                async with connection.transaction(isolation="serializable"):
                    await work(connection)
                return
            except asyncpg.SerializationError:
                continue


async def _rate(one: Any, times: int) -> float:
    """How often a second `one` is done, CLIENTS at a time."""
    numbers = count()

    async def client() -> None:
        while (number := next(numbers)) < times:
            await one(number)

    began = perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return times / (perf_counter() - began)
