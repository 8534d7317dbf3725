"""What every Database promises, as tests.

    pytest.register_assert_rewrite("agent_runtime.testing")  # in conftest.py, for readable failures


    class TestMyDatabase(DatabaseContract):
        @pytest_asyncio.fixture
        async def empty_database(self):
            async with MyDatabase(...) as database:
                yield database

Needs pytest and pytest-asyncio.
"""

from __future__ import annotations

import asyncio
from random import Random

import pytest
import pytest_asyncio

from agent_runtime.testing.journal import JOURNAL, add, entry_ids, persist, prepare_journal, record, total
from runtime_core.errors import (
    StoreConflictError,
    StoreError,
    StoreSchemaError,
    StoreUnavailableError,
    StoreValueError,
)
from runtime_core.stores import Database, Migration, Op, Sql, migrate
from runtime_core.stores.faults import FaultyDatabase


class Refused(Exception):
    """An error of the operation itself, from outside the tree of stores."""


def refused_after_writing(entry_id: str) -> Op[None]:
    yield from record(entry_id)
    raise Refused(entry_id)


@pytest.mark.asyncio
class DatabaseContract:
    """Give it a fixture `empty_database`: a new, open database for each test."""

    @pytest_asyncio.fixture
    async def database(self, empty_database: Database) -> Database:
        await prepare_journal(empty_database)
        return empty_database

    @pytest.fixture(params=["plain", "faulty"])
    def any_database(self, request: pytest.FixtureRequest, database: Database) -> Database:
        """Behind faults, a third of all calls fails, and callers have to `persist`."""
        return database if request.param == "plain" else FaultyDatabase(database, Random(7), rate=0.33)

    async def test_a_read_sees_every_acknowledged_write(self, any_database: Database) -> None:
        for number in range(20):
            await persist(lambda number=number: any_database.run(lambda: record(f"e{number}")))
            assert await persist(lambda: any_database.read(total)) == number + 1

    async def test_a_write_repeated_with_its_id_counts_once(self, any_database: Database) -> None:
        async def send(number: int) -> None:
            await persist(lambda: any_database.run(lambda: record(f"e{number}", amount=number)))

        await asyncio.gather(*(send(number) for number in range(100)))

        assert await persist(lambda: any_database.read(total)) == sum(range(100))
        assert len(await persist(lambda: any_database.read(entry_ids))) == 100
        if isinstance(any_database, FaultyDatabase):
            assert any_database.faults > 20

    async def test_a_lost_answer_says_that_the_outcome_is_unknown_and_leaves_the_write(
        self,
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

    async def test_operations_are_serializable(self, database: Database) -> None:
        await asyncio.gather(*(database.run(lambda: add(1)) for _ in range(200)))
        assert await database.read(total) == 200

    async def test_an_operation_that_raises_changes_nothing_and_hurts_nobody_beside_it(
        self,
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

    async def test_the_cleanup_code_of_an_operation_runs_when_a_statement_fails(self, database: Database) -> None:
        cleaned: list[str] = []

        def broken() -> Op[None]:
            try:
                yield Sql("SELECT amount FROM nowhere")
            finally:
                cleaned.append("yes")

        with pytest.raises(StoreError, match="nowhere"):
            await database.run(broken)
        assert cleaned == ["yes"]

    async def test_a_factory_that_fails_hurts_nobody_beside_it(self, database: Database) -> None:
        def exhausted() -> Op[int]:
            return next(iter(()))

        broken, fine = await asyncio.gather(
            database.run(exhausted), database.run(lambda: record("e1")), return_exceptions=True
        )
        assert isinstance(broken, RuntimeError)
        assert fine == 1

    async def test_a_key_that_is_taken_is_a_conflict(self, database: Database) -> None:
        def insert() -> Op[None]:
            yield Sql("INSERT INTO entry (scope_id, entry_id, amount) VALUES (?, ?, ?)", ("s", "same", 1))

        await database.run(insert)
        with pytest.raises(StoreConflictError):
            await database.run(insert)

    @pytest.mark.parametrize("value", [2**63, "half of a pair: \ud83d"])
    async def test_a_parameter_that_no_database_holds_is_a_value_error(
        self, database: Database, value: str | int
    ) -> None:
        def insert() -> Op[None]:
            yield Sql("INSERT INTO entry (scope_id, entry_id, amount) VALUES (?, ?, ?)", ("s", "e", value))

        with pytest.raises(StoreValueError):
            await database.run(insert)
        assert await database.run(lambda: record("still working")) == 1

    @pytest.mark.parametrize("params", [(), ("s", "e"), ("s", "e", 1, 1)], ids=len)
    async def test_parameters_that_do_not_fit_the_statement_are_an_error_at_once(
        self, database: Database, params: tuple[str | int, ...]
    ) -> None:
        def insert() -> Op[None]:
            yield Sql("INSERT INTO entry (scope_id, entry_id, amount) VALUES (?, ?, ?)", params)

        async with asyncio.timeout(2):
            with pytest.raises(StoreError) as caught:
                await database.run(insert)
        assert not isinstance(caught.value, StoreUnavailableError)

    async def test_a_read_that_tries_to_write_fails_and_changes_nothing(self, database: Database) -> None:
        with pytest.raises(StoreError, match="read operation"):
            await database.read(lambda: record("e1"))
        assert await database.read(entry_ids) == set()
        assert await database.run(lambda: record("e1")) == 1

    async def test_a_statement_that_fails_hurts_no_read_beside_it(self, database: Database) -> None:
        def broken() -> Op[None]:
            yield Sql("SELECT amount FROM nowhere")

        await database.run(lambda: record("e1"))
        reads = [broken if number % 4 == 0 else total for number in range(20)]
        results = await asyncio.gather(*(database.read(read) for read in reads), return_exceptions=True)
        for number, result in enumerate(results):
            assert isinstance(result, StoreError) if number % 4 == 0 else result == 1

    async def test_a_read_that_raises_hurts_no_read_beside_it(self, database: Database) -> None:
        def refused() -> Op[None]:
            yield from total()
            raise Refused

        reads = [refused if number % 4 == 0 else total for number in range(20)]
        results = await asyncio.gather(*(database.read(read) for read in reads), return_exceptions=True)
        for number, result in enumerate(results):
            assert isinstance(result, Refused) if number % 4 == 0 else result == 0

    async def test_text_is_ordered_by_code_points(self, database: Database) -> None:
        names = ["é", "a", "Z", "_", "a b", "ab", "B", "\U0001f600", "z"]
        for name in names:
            await database.run(lambda name=name: record(name))

        def ordered() -> Op[list[str]]:
            rows = yield Sql("SELECT entry_id FROM entry WHERE entry_id > ? ORDER BY entry_id", ("B",))
            return [row[0] for row in rows]

        assert await database.read(ordered) == [name for name in sorted(names) if name > "B"]

    async def test_what_is_computed_is_of_the_types_of_values(self, database: Database) -> None:
        for number in range(3):
            await database.run(lambda number=number: record(f"e{number}", amount=number))

        def computed() -> Op[tuple[object, ...]]:
            rows = yield Sql("SELECT COUNT(*), SUM(amount), MAX(amount) = 2 FROM entry WHERE amount >= ?", (1,))
            return rows[0]

        row = await database.read(computed)
        assert row == (2, 3, 1)
        assert [type(value) for value in row] == [int, int, int]

    async def test_a_counting_statement_gives_the_number_of_rows_that_it_changed(self, database: Database) -> None:
        await database.run(lambda: record("e1"))

        def changes() -> Op[list[int]]:
            counted: list[int] = []
            insert = "INSERT INTO entry (scope_id, entry_id, amount) VALUES (?, ?, 1) ON CONFLICT DO NOTHING"
            for text, params in (
                (insert, ("s", "e1")),
                (insert, ("s", "e2")),
                ("UPDATE entry SET amount = 2 WHERE scope_id = ?", ("s",)),
                ("DELETE FROM entry WHERE scope_id = ? AND entry_id = ?", ("s", "e1")),
                ("DELETE FROM entry WHERE scope_id = ? AND entry_id = ?", ("s", "e1")),
            ):
                [(count,)] = yield Sql(text, params, counts=True)
                counted.append(count)
            return counted

        assert await database.run(changes) == [0, 1, 2, 1, 0]

    async def test_times_are_kept_to_the_microsecond(self, database: Database) -> None:
        early, late = 1_800_000_000.123456, 1_800_000_000.123457

        def keep() -> Op[list[tuple[object, ...]]]:
            yield Sql("CREATE TABLE sample (at {time})".format_map(database.dialect.types))
            for at in (late, None, early):
                yield Sql("INSERT INTO sample (at) VALUES (?)", (at,))
            yield Sql("UPDATE sample SET at = CASE WHEN at < ? THEN ? ELSE at END", (late, early - 1))
            return (yield Sql("SELECT at FROM sample WHERE at <= ? ORDER BY at", (late,)))

        assert await database.run(keep) == [(early - 1,), (late,)]

    async def test_values_come_back_as_they_went_in(self, database: Database) -> None:
        values = (2**63 - 1, -1.5, "ünï\ncödé", b"\0\xff", None)

        def echo() -> Op[tuple[object, ...]]:
            table = "CREATE TABLE sample (i {int}, r {real}, t {text}, b {bytes}, n {json})"
            yield Sql(table.format_map(database.dialect.types))
            yield Sql("INSERT INTO sample (i, r, t, b, n) VALUES (?, ?, ?, ?, ?)", values)
            rows = yield Sql("SELECT i, r, t, b, n FROM sample")
            return rows[0]

        assert await database.run(echo) == values

    async def test_a_caller_that_only_polls_lets_the_writer_run(self, database: Database) -> None:
        async def write_later() -> None:
            await asyncio.sleep(0)
            await database.run(lambda: record("e1"))

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(write_later())
            while not await database.read(total):
                pass

    async def test_starters_that_migrate_at_once_do_it_once(self, database: Database) -> None:
        things = (Migration(version=1, statements=("CREATE TABLE thing (a {int})",)),)
        await asyncio.gather(*(migrate(database, f"things_{n % 2}", things[: n % 2]) for n in range(6)))

    async def test_a_closed_database_refuses_and_closes_again_quietly(self, database: Database) -> None:
        await database.close()
        await database.close()
        for call in (database.run, database.read):
            with pytest.raises(StoreUnavailableError, match="closed"):
                await call(total)

    async def test_migrations_are_applied_once_and_continue_where_they_stopped(self, database: Database) -> None:
        second = Migration(version=2, statements=("ALTER TABLE entry ADD COLUMN note {text}",))
        await migrate(database, "journal", JOURNAL)
        await migrate(database, "journal", (*JOURNAL, second))
        await migrate(database, "journal", (*JOURNAL, second))

        def notes() -> Op[int]:
            return len((yield Sql("SELECT note FROM entry WHERE scope_id = ?", ("s",))))

        assert await database.read(notes) == 0

    async def test_a_schema_from_the_future_is_refused(self, database: Database) -> None:
        second = Migration(version=2, statements=("ALTER TABLE entry ADD COLUMN note {text}",))
        await migrate(database, "journal", (*JOURNAL, second))

        with pytest.raises(StoreSchemaError) as caught:
            await migrate(database, "journal", JOURNAL)
        assert (caught.value.component, caught.value.found, caught.value.known) == ("journal", 2, 1)

    async def test_a_failed_migration_leaves_nothing_behind(self, database: Database) -> None:
        broken = (Migration(version=1, statements=("CREATE TABLE thing (a {int})", "CREATE NONSENSE")),)
        fixed = (Migration(version=1, statements=("CREATE TABLE thing (a {int})",)),)
        with pytest.raises(StoreError):
            await migrate(database, "things", broken)
        await migrate(database, "things", fixed)

    @pytest.mark.parametrize("versions", [(2,), (1, 3), (1, 1)])
    async def test_migrations_must_be_numbered_without_a_gap(
        self, database: Database, versions: tuple[int, ...]
    ) -> None:
        with pytest.raises(ValueError, match="numbered"):
            await migrate(database, "things", [Migration(version=version, statements=()) for version in versions])

    @pytest.mark.parametrize("component", ["", "Kv", "kv; DROP TABLE entry", "a" * 32])
    async def test_a_component_name_never_carries_sql(self, database: Database, component: str) -> None:
        with pytest.raises(ValueError, match="component"):
            await migrate(database, component, JOURNAL)
