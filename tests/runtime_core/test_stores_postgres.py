"""PostgreSQL: groups, collisions, cancellation, pools, and a server or a network that is not there."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from runtime_core.errors import (
    StoreConflictError,
    StoreError,
    StoreUnavailableError,
    StoreValueError,
)
from runtime_core.stores import Migration, Op, Sql, migrate
from runtime_core.stores.failpoints import armed
from runtime_core.stores.postgres import PostgresDatabase, PostgresOptions
from support.postgres import SUPERUSER, PostgresServer
from support.proxy import proxy_to
from support.stores import add, entry_ids, persist, prepare_journal, record, total
from support.waiting import until

HASTY = PostgresOptions(connect_timeout_s=0.3, command_timeout_s=0.3, patience_s=0.4)
WRITE_CONNECTIONS = PostgresOptions().write_connections


@pytest.fixture
async def url(postgres_server: PostgresServer) -> str:
    return await postgres_server.fresh_url()


@pytest.fixture
async def database(url: str) -> AsyncIterator[PostgresDatabase]:
    async with PostgresDatabase(url) as opened:
        await prepare_journal(opened)
        yield opened


@asynccontextmanager
async def locked(url: str, table: str) -> AsyncIterator[None]:
    """Somebody else keeps everybody from writing to `table`."""
    other = await asyncpg.connect(url)
    try:
        async with other.transaction():
            await other.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
            yield
    finally:
        await other.close()


async def test_operations_that_wait_together_are_committed_together(database: PostgresDatabase, url: str) -> None:
    before = database.commits
    async with locked(url, "entry"):
        first = [asyncio.create_task(database.run(lambda n=n: record(f"a{n}"))) for n in range(WRITE_CONNECTIONS)]
        await asyncio.sleep(0.05)
        rest = [asyncio.create_task(database.run(lambda n=n: record(f"b{n}"))) for n in range(60)]
        await asyncio.sleep(0.05)
    await asyncio.gather(*first, *rest)
    assert database.commits - before <= 2 * WRITE_CONNECTIONS
    assert await database.read(total) == WRITE_CONNECTIONS + 60


async def test_an_operation_that_is_stuck_holds_up_only_those_in_its_group(
    database: PostgresDatabase, url: str
) -> None:
    async with locked(url, "entry"):
        stuck = [asyncio.create_task(database.run(lambda: record("e1"))) for _ in range(2)]
        await asyncio.sleep(0.01)
        async with asyncio.timeout(20):
            for number in range(5):
                assert await database.run(lambda: add(1)) == number + 1
        assert not any(task.done() for task in stuck)
    await asyncio.gather(*stuck)


async def test_writes_to_a_server_that_is_far_go_side_by_side(
    postgres_server: PostgresServer, database: PostgresDatabase, url: str
) -> None:
    async with proxy_to(postgres_server.socket) as proxy:
        through = f"postgresql://app@127.0.0.1:{proxy.port}/postgres?search_path={url.rpartition('=')[2]}"
        proxy.delay_s = 0.005
        async with PostgresDatabase(through) as far:
            await far.run(total)
            assert proxy.connections == 1
            await asyncio.gather(*(far.run(total) for _ in range(20)))
            assert proxy.connections == WRITE_CONNECTIONS
        await until(lambda: proxy.connections == 0)


async def test_processes_that_collide_lose_no_update(database: PostgresDatabase, url: str) -> None:
    async with PostgresDatabase(url) as second, PostgresDatabase(url) as third:
        writers = (database, second, third)
        await asyncio.gather(*(writers[n % 3].run(lambda: add(1)) for n in range(150)))
    assert await database.read(total) == 150


async def test_processes_that_start_at_once_migrate_once(url: str) -> None:
    starters = [PostgresDatabase(url) for _ in range(4)]
    things = (Migration(version=1, statements=("CREATE TABLE thing (a {int})",)),)
    try:
        await asyncio.gather(
            *(prepare_journal(starter) for starter in starters),
            *(migrate(starter, "things", things) for starter in starters),
        )
        assert await starters[0].run(lambda: record("e1")) == 1
    finally:
        await asyncio.gather(*(starter.close() for starter in starters))


async def test_a_migration_takes_nothing_else_out_of_its_serializable_transaction(url: str) -> None:
    def level() -> Op[str]:
        rows = yield Sql("SELECT current_setting('transaction_isolation')")
        return rows[0][0]

    async with PostgresDatabase(url, options=PostgresOptions(write_connections=1)) as database:
        calls = (prepare_journal(database), *(database.run(level) for _ in range(5)))
        _, *levels = await asyncio.gather(*calls)
        assert set(levels) == {"serializable"}


@pytest.mark.parametrize("count", [1, 100])
async def test_a_cancelled_caller_abandons_the_answer_and_not_the_write(
    database: PostgresDatabase, url: str, count: int
) -> None:
    async with locked(url, "entry"):
        writes = [asyncio.create_task(database.run(lambda n=n: record(f"e{n}"))) for n in range(count)]
        await asyncio.sleep(0.02)
        for write in writes:
            write.cancel()
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
    await database.close()
    async with PostgresDatabase(url) as again:
        assert await again.read(total) == count


async def test_a_failure_after_the_caller_has_left_is_logged(
    database: PostgresDatabase, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> Op[None]:
        yield from record("e1")
        raise ValueError("nobody hears this")

    async with locked(url, "entry"):
        write = asyncio.create_task(database.run(fails))
        await asyncio.sleep(0.02)
        write.cancel()
        await asyncio.gather(write, return_exceptions=True)
    await database.close()
    assert "nobody hears this" in caplog.text


async def test_operations_run_outside_the_context_of_the_request(database: PostgresDatabase) -> None:
    request = contextvars.ContextVar("request", default="none")
    request.set("cancel me and everything I touch")

    def look() -> Op[str]:
        yield Sql("SELECT 1")
        return request.get()

    assert await database.run(look) == "none"


@pytest.mark.parametrize(("failpoint", "stored"), [("store.before_commit", 0), ("store.after_commit", 1)])
async def test_a_failed_commit_is_reported_as_unknown(database: PostgresDatabase, failpoint: str, stored: int) -> None:
    def lose_connection() -> None:
        raise StoreUnavailableError("gone")

    with armed(failpoint, lose_connection), pytest.raises(StoreUnavailableError, match="same ids") as caught:
        await database.run(lambda: record("e1"))
    assert caught.value.outcome_unknown
    assert await database.read(total) == stored
    assert await database.run(lambda: record("e1")) == 1


async def test_times_are_points_in_time_and_sums_of_integers_are_integers(database: PostgresDatabase) -> None:
    moment = 1_800_000_000.123457

    def keep() -> Op[list[tuple[object, ...]]]:
        yield Sql("CREATE TABLE sample (at {time}, n {int})".format_map(database.dialect.types))
        yield Sql("INSERT INTO sample (at, n) VALUES (?, ?), (?, ?)", (moment, 2, None, 3))
        found = "SELECT MAX(at), SUM(n), AVG(n), MAX(n) = 3, pg_typeof(MAX(at)) || '' FROM sample WHERE at < ? OR n > ?"
        return (yield Sql(found, (moment + 1e-6, 2)))

    [row] = await database.run(keep)
    assert row == (moment, 5, 2.5, 1, "timestamp with time zone")
    assert [type(value) for value in row[1:4]] == [int, float, int]


@pytest.mark.parametrize("value", ["secret\0", "secret \ud83d", -(2**63) - 1, float("nan")])
async def test_a_parameter_that_cannot_be_stored_is_not_shown(database: PostgresDatabase, value: str | int) -> None:
    name, amount = (value, 1) if isinstance(value, str) else ("e1", value)
    with pytest.raises(StoreValueError) as caught:
        await database.run(lambda: record(name, amount=amount))
    assert "secret" not in str(caught.value)
    assert await database.run(lambda: record("still working")) == 1


async def test_an_error_shows_no_stored_values(database: PostgresDatabase) -> None:
    def insert() -> Op[None]:
        yield Sql("INSERT INTO entry (scope_id, entry_id, amount) VALUES (?, ?, ?)", ("s", "secret", 1))

    await database.run(insert)
    with pytest.raises(StoreConflictError) as caught:
        await database.run(insert)
    assert "secret" not in str(caught.value)


class TestPool:
    async def test_a_pool_that_is_given_is_used_and_left_open(self, url: str) -> None:
        async with asyncpg.create_pool(url, min_size=0, max_size=3) as pool:
            async with PostgresDatabase(pool) as database:
                await prepare_journal(database)
                await asyncio.gather(*(database.run(lambda n=n: record(f"e{n}")) for n in range(20)))
            assert await pool.fetchval("SELECT amount FROM total") == 20

    async def test_an_exhausted_pool_is_waited_for_and_then_named(self, url: str) -> None:
        async with asyncpg.create_pool(url, min_size=0, max_size=1) as pool:
            database = PostgresDatabase(pool, options=HASTY)
            await prepare_journal(database)
            async with pool.acquire():
                started = time.monotonic()
                calls = [database.run(lambda n=n: record(f"e{n}")) for n in range(200)]
                results = await asyncio.gather(*calls, return_exceptions=True)
                assert time.monotonic() - started < 2
            assert {type(result) for result in results} == {StoreUnavailableError}
            assert not any(result.outcome_unknown for result in results)
            assert await database.run(lambda: record("e1")) == 1
            await database.close()


class TestServer:
    async def test_a_server_that_is_not_there_is_one_clear_error_in_time(self) -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            port = nobody.getsockname()[1]
            database = PostgresDatabase(f"postgresql://app:s3cret@127.0.0.1:{port}/flows", options=HASTY)
            started = time.monotonic()
            with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{port}/flows cannot be reached") as caught:
                await database.read(total)
            assert time.monotonic() - started < 2
            await database.close()
        error: BaseException | None = caught.value
        while error is not None:
            assert "s3cret" not in f"{error} {error!r}"
            error = error.__cause__

    async def test_a_database_or_a_user_that_is_refused_is_an_error_at_once(
        self, postgres_server: PostgresServer, url: str
    ) -> None:
        await _ask(postgres_server, "CREATE ROLE nologin NOLOGIN")
        for address, says in (
            (url.replace("/postgres?", "/nowhere?"), '"nowhere" does not exist'),
            (url.replace("app@", "nologin:s3cret@"), "not permitted to log in"),
        ):
            database = PostgresDatabase(address)
            started = time.monotonic()
            with pytest.raises(StoreError, match=says) as caught:
                await database.read(total)
            assert time.monotonic() - started < 2
            assert not isinstance(caught.value, StoreUnavailableError)
            assert "s3cret" not in "".join(traceback.format_exception(caught.value))
            await database.close()

    async def test_a_server_without_a_free_connection_is_waited_for_and_then_named(
        self, postgres_server: PostgresServer, url: str
    ) -> None:
        await _ask(postgres_server, "CREATE ROLE crowded LOGIN CONNECTION LIMIT 0")
        database = PostgresDatabase(url.replace("app@", "crowded@"), options=HASTY)
        with pytest.raises(StoreUnavailableError, match="no free connection"):
            await database.read(total)
        await _ask(postgres_server, "ALTER ROLE crowded SUPERUSER CONNECTION LIMIT -1")
        async with database:
            await prepare_journal(database)
            assert await database.read(total) == 0

    async def test_a_lock_held_by_somebody_else_is_waited_for_and_then_named(
        self, database: PostgresDatabase, url: str
    ) -> None:
        async with PostgresDatabase(url, options=HASTY) as hasty:
            async with locked(url, "entry"):
                with pytest.raises(StoreUnavailableError, match="took too long") as caught:
                    await hasty.run(lambda: record("e1"))
                assert not caught.value.outcome_unknown
                assert await hasty.read(total) == 0
            assert await hasty.run(lambda: record("e1")) == 1

    async def test_a_server_that_takes_no_writes_is_named(self, database: PostgresDatabase, url: str) -> None:
        async with PostgresDatabase(f"{url}&default_transaction_read_only=on", options=HASTY) as standby:
            assert await standby.read(total) == 0
            with pytest.raises(StoreUnavailableError, match="name the primary"):
                await standby.run(lambda: record("e1"))


async def _ask(server: PostgresServer, statement: str) -> None:
    connection = await asyncpg.connect(server.url(role=SUPERUSER))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


class TestNetwork:
    async def test_a_network_that_swallows_everything_is_one_clear_error_and_recovered_from(
        self, postgres_server: PostgresServer, database: PostgresDatabase, url: str
    ) -> None:
        schema = url.rpartition("=")[2]
        async with proxy_to(postgres_server.socket) as proxy:
            through = f"postgresql://app:s3cret@127.0.0.1:{proxy.port}/postgres?search_path={schema}"
            async with PostgresDatabase(through, options=HASTY) as far:
                assert await far.run(lambda: record("e1")) == 1
                proxy.block()
                started = time.monotonic()
                calls = [far.run(lambda: record("e2")), far.read(total)]
                errors = await asyncio.gather(*calls, return_exceptions=True)
                assert time.monotonic() - started < 3
                assert {type(error) for error in errors} == {StoreUnavailableError}
                assert all("does not answer in time" in str(error) for error in errors)
                assert "s3cret" not in str(errors)
                proxy.unblock()
                assert await persist(lambda: far.run(lambda: record("e2"))) == 2

    async def test_connections_that_are_cut_are_replaced_unseen(
        self, postgres_server: PostgresServer, database: PostgresDatabase, url: str
    ) -> None:
        schema = url.rpartition("=")[2]
        async with proxy_to(postgres_server.socket) as proxy:
            through = f"postgresql://app@127.0.0.1:{proxy.port}/postgres?search_path={schema}"
            async with PostgresDatabase(through) as far:
                for number in range(5):
                    assert await far.run(lambda number=number: record(f"e{number}")) == number + 1
                    proxy.cut()
                assert await far.read(total) == 5

    async def test_a_commit_whose_answer_is_lost_is_unknown_and_counts_once_when_repeated(
        self, postgres_server: PostgresServer, database: PostgresDatabase, url: str
    ) -> None:
        schema = url.rpartition("=")[2]
        async with proxy_to(postgres_server.socket) as proxy:
            through = f"postgresql://app@127.0.0.1:{proxy.port}/postgres?search_path={schema}"
            async with PostgresDatabase(through) as far:
                proxy.cut_after(b"COMMIT")
                calls = [far.run(lambda n=n: record(f"e{n}")) for n in range(10)]
                results = await asyncio.gather(*calls, return_exceptions=True)
                lost = [n for n, result in enumerate(results) if isinstance(result, StoreUnavailableError)]
                assert lost and all(results[n].outcome_unknown for n in lost)
                assert await database.read(total) == 10
                for n in lost:
                    assert await far.run(lambda n=n: record(f"e{n}")) == 10
                assert len(await far.read(entry_ids)) == 10
