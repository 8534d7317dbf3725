"""What every Database promises; one suite for all of them, alone and behind injected faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from runtime_core.errors import (
    StoreConflictError,
    StoreError,
    StoreSchemaError,
    StoreUnavailableError,
    StoreValueError,
)
from runtime_core.stores import Database, Migration, Op, Sql, migrate, open_database
from runtime_core.stores.faults import FaultyDatabase
from support.stores import JOURNAL, add, entry_ids, fresh_store_url, persist, prepare_journal, record, total


class Refused(Exception):
    """An error of the operation itself, from outside the tree of stores."""


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    url = await fresh_store_url(request.param, request, tmp_path)
    async with open_database(url, node_id="node-1") as opened:
        await prepare_journal(opened)
        yield opened


@pytest.fixture(params=["plain", "faulty"])
def any_database(request: pytest.FixtureRequest, database: Database) -> Database:
    """Behind faults, a third of all calls fails, and callers have to `persist`."""
    return database if request.param == "plain" else FaultyDatabase(database, Random(7), rate=0.33)


def refused_after_writing(entry_id: str) -> Op[None]:
    yield from record(entry_id)
    raise Refused(entry_id)


async def test_a_read_sees_every_acknowledged_write(any_database: Database) -> None:
    for number in range(20):
        await persist(lambda number=number: any_database.run(lambda: record(f"e{number}")))
        assert await persist(lambda: any_database.read(total)) == number + 1


async def test_a_write_repeated_with_its_id_counts_once(any_database: Database) -> None:
    async def send(number: int) -> None:
        await persist(lambda: any_database.run(lambda: record(f"e{number}", amount=number)))

    await asyncio.gather(*(send(number) for number in range(100)))

    assert await persist(lambda: any_database.read(total)) == sum(range(100))
    assert len(await persist(lambda: any_database.read(entry_ids))) == 100
    if isinstance(any_database, FaultyDatabase):
        assert any_database.faults > 20


async def test_a_lost_answer_says_that_the_outcome_is_unknown_and_leaves_the_write(
    database: Database,
) -> None:
    unlucky = FaultyDatabase(database, Random(1), rate=1.0)
    errors: list[StoreUnavailableError] = []
    for number in range(20):
        with pytest.raises(StoreUnavailableError) as caught:
            await unlucky.run(lambda number=number: record(f"e{number}"))
        errors.append(caught.value)

    stored = await database.read(entry_ids)
    assert stored == {f"e{number}" for number, error in enumerate(errors) if error.outcome_unknown}
    assert 0 < len(stored) < 20


async def test_operations_are_serializable(database: Database) -> None:
    await asyncio.gather(*(database.run(lambda: add(1)) for _ in range(200)))
    assert await database.read(total) == 200


async def test_an_operation_that_raises_changes_nothing_and_hurts_nobody_beside_it(
    database: Database,
) -> None:
    operations = [refused_after_writing if number % 3 == 0 else record for number in range(60)]
    results = await asyncio.gather(
        *(database.run(lambda n=n, op=op: op(f"e{n}")) for n, op in enumerate(operations)),
        return_exceptions=True,
    )

    for number, result in enumerate(results):
        if number % 3 == 0:
            assert isinstance(result, Refused) and result.args == (f"e{number}",)
    assert await database.read(entry_ids) == {f"e{number}" for number in range(60) if number % 3}
    assert await database.read(total) == 40


async def test_the_cleanup_code_of_an_operation_runs_when_a_statement_fails(database: Database) -> None:
    cleaned: list[str] = []

    def broken() -> Op[None]:
        try:
            yield Sql("SELECT amount FROM nowhere")
        finally:
            cleaned.append("yes")

    with pytest.raises(StoreError, match="nowhere"):
        await database.run(broken)
    assert cleaned == ["yes"]


async def test_a_factory_that_fails_hurts_nobody_beside_it(database: Database) -> None:
    def exhausted() -> Op[int]:
        return next(iter(()))

    broken, fine = await asyncio.gather(
        database.run(exhausted), database.run(lambda: record("e1")), return_exceptions=True
    )
    assert isinstance(broken, RuntimeError)
    assert fine == 1


async def test_a_key_that_is_taken_is_a_conflict(database: Database) -> None:
    def insert() -> Op[None]:
        yield Sql("INSERT INTO entry (scope_id, entry_id, amount) VALUES (?, ?, ?)", ("s", "same", 1))

    await database.run(insert)
    with pytest.raises(StoreConflictError):
        await database.run(insert)


@pytest.mark.parametrize("value", [2**63, "half of a pair: \ud83d"])
async def test_a_parameter_that_no_database_holds_is_a_value_error(database: Database, value: str | int) -> None:
    def insert() -> Op[None]:
        yield Sql("INSERT INTO entry (scope_id, entry_id, amount) VALUES (?, ?, ?)", ("s", "e", value))

    with pytest.raises(StoreValueError):
        await database.run(insert)
    assert await database.run(lambda: record("still working")) == 1


async def test_a_read_that_tries_to_write_fails_and_changes_nothing(database: Database) -> None:
    with pytest.raises(StoreError, match="read operation"):
        await database.read(lambda: record("e1"))
    assert await database.read(entry_ids) == set()
    assert await database.run(lambda: record("e1")) == 1


async def test_values_come_back_as_they_went_in(database: Database) -> None:
    values = (2**63 - 1, -1.5, "ünï\ncödé", b"\0\xff", None)

    def echo() -> Op[tuple[object, ...]]:
        table = "CREATE TABLE sample (i {int}, r {real}, t {text}, b {bytes}, n {json})"
        yield Sql(table.format_map(database.dialect.types))
        yield Sql("INSERT INTO sample (i, r, t, b, n) VALUES (?, ?, ?, ?, ?)", values)
        rows = yield Sql("SELECT i, r, t, b, n FROM sample")
        return rows[0]

    assert await database.run(echo) == values


async def test_a_caller_that_only_polls_lets_the_writer_run(database: Database) -> None:
    async def write_later() -> None:
        await asyncio.sleep(0)
        await database.run(lambda: record("e1"))

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(write_later())
        while not await database.read(total):
            pass


async def test_a_closed_database_refuses_and_closes_again_quietly(database: Database) -> None:
    await database.close()
    await database.close()
    for call in (database.run, database.read):
        with pytest.raises(StoreUnavailableError, match="closed"):
            await call(total)


async def test_close_finishes_what_was_accepted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    async with open_database(url) as database:
        await prepare_journal(database)
        writes = [asyncio.create_task(database.run(lambda n=n: record(f"e{n}"))) for n in range(50)]
        await asyncio.sleep(0)
    await asyncio.gather(*writes)
    async with open_database(url) as database:
        assert await database.read(total) == 50


async def test_migrations_are_applied_once_and_continue_where_they_stopped(database: Database) -> None:
    second = Migration(version=2, statements=("ALTER TABLE entry ADD COLUMN note {text}",))
    await migrate(database, "journal", JOURNAL)
    await migrate(database, "journal", (*JOURNAL, second))
    await migrate(database, "journal", (*JOURNAL, second))

    def notes() -> Op[int]:
        return len((yield Sql("SELECT note FROM entry WHERE scope_id = ?", ("s",))))

    assert await database.read(notes) == 0


async def test_a_schema_from_the_future_is_refused(database: Database) -> None:
    second = Migration(version=2, statements=("ALTER TABLE entry ADD COLUMN note {text}",))
    await migrate(database, "journal", (*JOURNAL, second))

    with pytest.raises(StoreSchemaError) as caught:
        await migrate(database, "journal", JOURNAL)
    assert (caught.value.component, caught.value.found, caught.value.known) == ("journal", 2, 1)


async def test_a_failed_migration_leaves_nothing_behind(database: Database) -> None:
    broken = (Migration(version=1, statements=("CREATE TABLE thing (a {int})", "CREATE NONSENSE")),)
    fixed = (Migration(version=1, statements=("CREATE TABLE thing (a {int})",)),)
    with pytest.raises(StoreError):
        await migrate(database, "things", broken)
    await migrate(database, "things", fixed)


@pytest.mark.parametrize("versions", [(2,), (1, 3), (1, 1)])
async def test_migrations_must_be_numbered_without_a_gap(database: Database, versions: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="numbered"):
        await migrate(database, "things", [Migration(version=version, statements=()) for version in versions])


@pytest.mark.parametrize("component", ["", "Kv", "kv; DROP TABLE entry", "a" * 32])
async def test_a_component_name_never_carries_sql(database: Database, component: str) -> None:
    with pytest.raises(ValueError, match="component"):
        await migrate(database, component, JOURNAL)
