"""The second wall between tenants: on PostgreSQL a statement that is wrong about its scope reads and writes nothing.

Everything here runs as an ordinary role that owns the tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from runtime_core.errors import StoreConflictError, StoreError, StoreValueError
from runtime_core.stores import Op, OpFactory, Sql, everywhere, in_scope, keyed, migrate
from runtime_core.stores.postgres import PostgresDatabase
from runtime_core.stores.scope import in_scopes
from support.postgres import PostgresServer
from support.scoped_tables import created_in_the_source, insert, prepare_everything, scopes_in, tables_with_scopes

HOSTILE = (
    *(
        "*",
        "{a}",
        "{*}",
        "NULL",
        "null",
        "a,b",
        '"',
        '"a"',
        '","a',
        '{"a"}',
        "'",
        "''",
        "\\",
        "\\'",
        "\\\\'",
        '\\"',
        "$1",
        "?",
    ),
    *(
        "a'; SET agentflow.scopes = '*'; --",
        "' OR '1'='1",
        "E'",
        "a\nb",
        "a\r\n*",
        "\x1f",
        " a",
        "a ",
        "ä",
        "\U0001f600",
    ),
    "'; ROLLBACK; BEGIN; SET LOCAL agentflow.scopes = E'*",
)


@pytest.fixture
async def url(postgres_server: PostgresServer) -> str:
    return await postgres_server.fresh_url()


@pytest.fixture
async def database(url: str) -> AsyncIterator[PostgresDatabase]:
    async with PostgresDatabase(url) as opened:
        await prepare_everything(opened)
        yield opened


async def kept_by(database: PostgresDatabase, table: str, *scope_ids: str) -> None:
    for scope_id in scope_ids:
        await database.run(in_scope(scope_id, lambda scope_id=scope_id: insert(table, scope_id)))


def changes(text: str, *params: str) -> OpFactory[int]:
    """How many rows a statement changes."""

    def op() -> Op[int]:
        [(count,)] = yield Sql(text, params, counts=True)
        return count

    return op


async def test_every_table_with_scopes_has_the_policy_for_its_owner_too(database: PostgresDatabase) -> None:
    def protected() -> Op[set[str]]:
        rows = yield Sql(
            "SELECT c.relname FROM pg_class c JOIN pg_policy p ON p.polrelid = c.oid"
            " WHERE c.relnamespace = current_schema()::regnamespace AND c.relrowsecurity AND c.relforcerowsecurity"
            " AND p.polcmd = '*' AND p.polpermissive AND pg_get_expr(p.polqual, c.oid) LIKE '%agentflow.scopes%'"
            " AND pg_get_expr(p.polwithcheck, c.oid) = pg_get_expr(p.polqual, c.oid)"
        )
        return {table for (table,) in rows}

    tables = set(await database.read(tables_with_scopes))
    assert tables == created_in_the_source(), "support.scoped_tables prepares every store"
    assert await database.read(protected) == tables, "name a new table in `scoped` of its migration"


async def test_a_wrong_statement_reads_and_writes_nothing_of_another_scope(database: PostgresDatabase) -> None:
    for table in await database.read(tables_with_scopes):
        await kept_by(database, table, "a", "b")
        assert await database.read(in_scope("a", lambda table=table: scopes_in(table))) == {"a"}
        for wrong in (
            changes(f"UPDATE {table} SET scope_id = scope_id WHERE scope_id = ?", "b"),
            changes(f"DELETE FROM {table} WHERE scope_id <> ?", "a"),
        ):
            assert await database.run(in_scope("a", wrong)) == 0, table
        for wrong in (
            lambda table=table: insert(table, "c"),
            changes(f"UPDATE {table} SET scope_id = ?", "c"),
        ):
            with pytest.raises(StoreError, match="row-level security") as caught:
                await database.run(in_scope("a", wrong))
            assert not isinstance(caught.value, StoreConflictError | StoreValueError)
        assert await database.run(in_scope("a", changes(f"DELETE FROM {table}"))) == 1
        assert await database.read(everywhere(lambda table=table: scopes_in(table))) == {"b"}


async def test_an_operation_that_says_nothing_touches_nothing(database: PostgresDatabase) -> None:
    for table in await database.read(tables_with_scopes):
        await kept_by(database, table, "a")
        assert await database.read(lambda table=table: scopes_in(table)) == set()
        assert await database.run(in_scopes((), lambda table=table: scopes_in(table))) == set()
        assert await database.run(changes(f"UPDATE {table} SET scope_id = scope_id")) == 0
        assert await database.run(changes(f"DELETE FROM {table} WHERE scope_id = ?", "a")) == 0
        with pytest.raises(StoreError, match="row-level security"):
            await database.run(lambda table=table: insert(table, "a2"))
        assert await database.run(everywhere(changes(f"DELETE FROM {table}"))) == 1


async def test_operations_of_many_scopes_that_go_together_keep_apart(database: PostgresDatabase) -> None:
    scopes = [f"t-{number}" for number in range(5)]
    await kept_by(database, "kv", *scopes)
    see: OpFactory[set[str]] = lambda: scopes_in("kv")  # noqa: E731
    asked: list[tuple[OpFactory[set[str]], set[str]]] = [
        *((in_scope(scope_id, see), {scope_id}) for scope_id in scopes),
        (everywhere(see), set(scopes)),
        (see, set()),
        (in_scopes(scopes[1:3], see), set(scopes[1:3])),
    ]
    Random(8).shuffle(asked := asked * 12)
    before = database.commits
    for ask in (database.read, database.run):
        assert await asyncio.gather(*(ask(op) for op, _ in asked)) == [seen for _, seen in asked]
    assert database.commits - before < len(asked) / 2, "they went together"


async def test_nobody_pays_for_a_neighbour_that_is_refused(database: PostgresDatabase) -> None:
    ops = [
        in_scope("a", lambda: insert("kv", "a")),
        in_scope("b", lambda: insert("kv", "c")),
        in_scope("a\0", lambda: insert("kv", "d")),
        lambda: insert("kv", "e"),
        in_scope("\ud800", lambda: insert("kv", "f")),
        in_scope("g", lambda: insert("kv", "g")),
    ]
    results = await asyncio.gather(*map(database.run, ops), return_exceptions=True)
    refused = [StoreError, StoreValueError]
    assert [type(result) for result in results] == [type(None), *refused, *refused, type(None)]
    assert await database.read(everywhere(lambda: scopes_in("kv"))) == {"a", "g"}
    reads = [in_scope(name, lambda: scopes_in("kv")) for name in ("\0", "a", "\ud800", "g")]
    found = await asyncio.gather(*map(database.read, reads), return_exceptions=True)
    assert found[1::2] == [{"a"}, {"g"}]
    assert {type(error) for error in found[::2]} == {StoreValueError}


async def test_whatever_a_scope_is_called_it_is_that_scope_alone(database: PostgresDatabase) -> None:
    rng = Random(7)
    random = {"".join(rng.choices("a*{}\"'\\,; \n\t$?-", k=rng.randint(1, 8))) for _ in range(150)} - {"a"}
    names = sorted({*HOSTILE, *random, "x" * 2000})
    await kept_by(database, "kv", "a")
    await asyncio.gather(*(kept_by(database, "kv", name) for name in names))
    see: OpFactory[set[str]] = lambda: scopes_in("kv")  # noqa: E731
    for read in (database.read, database.run):
        assert await asyncio.gather(*(read(in_scope(name, see)) for name in names)) == [{name} for name in names]
    assert await database.read(in_scopes(names, see)) == set(names)
    for name in ("", "x" * 1_000_000, '{"a"}*', "A"):
        assert await database.read(in_scope(name, see)) == set()


async def test_what_a_role_or_an_address_sets_counts_for_nothing(database: PostgresDatabase, url: str) -> None:
    await kept_by(database, "kv", "a")
    async with PostgresDatabase(f"{url}&agentflow.scopes=*") as other:
        assert await other.read(lambda: scopes_in("kv")) == set()
        assert await other.run(in_scope("b", lambda: scopes_in("kv"))) == set()


async def test_a_database_made_before_there_were_policies_gets_them_and_keeps_its_rows(url: str) -> None:
    before = [step for step in keyed.MIGRATIONS if not step.scoped]
    assert len(before) < len(keyed.MIGRATIONS)
    async with PostgresDatabase(url) as database:
        await migrate(database, "keyed", before)
        for scope_id in ("a", "b"):
            await database.run(lambda scope_id=scope_id: insert("kv", scope_id))
        assert await database.read(lambda: scopes_in("kv")) == {"a", "b"}
        await asyncio.gather(*(migrate(database, "keyed", keyed.MIGRATIONS) for _ in range(3)))
        assert await database.read(lambda: scopes_in("kv")) == set()
        assert await database.read(in_scope("b", lambda: scopes_in("kv"))) == {"b"}
        assert await database.read(everywhere(lambda: scopes_in("kv"))) == {"a", "b"}


async def test_only_the_server_looks_at_scopes() -> None:
    """Elsewhere the statement alone decides, and an operation costs nothing more."""
    from runtime_core.stores.memory import MemoryDatabase

    async with MemoryDatabase() as database:
        await prepare_everything(database)
        await database.run(in_scope("a", lambda: _row("b")))
        assert await database.read(in_scope("a", lambda: scopes_in("kv"))) == {"b"}


def _row(scope_id: str) -> Op[Any]:
    return (yield Sql("INSERT INTO kv VALUES (?, 's', 'b', 'k', 1, NULL, 1, '1')", (scope_id,)))
