"""The address of a store: what is understood, and what is said about the rest."""

from __future__ import annotations

import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from runtime_core.errors import StoreUrlError
from runtime_core.stores import open_database
from runtime_core.stores.qmarks import numbered
from support.postgres import PostgresServer
from support.stores import prepare_journal, record, total


async def test_a_relative_file_lies_in_the_working_directory_of_the_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database = open_database("sqlite:///my store.db", node_id="node-1")
    monkeypatch.chdir("/")
    async with database:
        await prepare_journal(database)
    assert (tmp_path / "my store.db").is_file()


async def test_an_absolute_file_is_used_as_it_is(tmp_path: Path) -> None:
    async with open_database(f"sqlite:///{tmp_path}/store.db") as database:
        await prepare_journal(database)
        await database.run(lambda: record("e1"))
    assert (tmp_path / "store.db").is_file()


async def test_each_memory_store_is_its_own() -> None:
    async with open_database("memory:") as first, open_database("memory:") as second:
        for database in (first, second):
            await prepare_journal(database)
        await first.run(lambda: record("e1"))
        assert await second.read(total) == 0


@pytest.mark.parametrize(
    "url",
    [
        "",
        "memory",
        "memory://",
        "store.db",
        "/abs/store.db",
        "sqlite:",
        "sqlite:store.db",
        "sqlite://store.db",
        "sqlite:///",
        "sqlite:////",
        "sqlite:///folder/",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory",
        "sqlite:///store.db?cache=shared",
        "sqlite:///store\0.db",
        "mysql://host/db",
    ],
)
def test_any_other_address_is_refused_with_the_legal_forms(url: str) -> None:
    with pytest.raises(StoreUrlError, match=r"sqlite:///relative\.db|memory:"):
        open_database(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:",
        "postgresql://app:s3cret@db",
        "postgresql://app:s3cret@db/",
        "postgres://app:s3cret@/flows",
        "postgresql://app:s3cret@db:port/flows",
        "postgresql://app:s3cret@[db/flows",
        "postgresql+asyncpg://app:s3cret@db/flows",
    ],
)
def test_an_address_of_postgresql_that_means_nothing_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(StoreUrlError, match="postgresql://user:password@host:5432/database") as caught:
        open_database(url)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_postgresql_without_its_driver_names_the_extra() -> None:
    code = """if True:
        import sys
        sys.modules["asyncpg"] = None
        from runtime_core.stores import open_database
        open_database("memory:")
        try:
            open_database("postgresql://app:s3cret@db/flows")
        except ValueError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "pip install 'agentflow-serve[postgres]'" in done.stdout
    assert "s3cret" not in done.stdout + done.stderr


async def test_a_store_on_postgresql_is_opened_by_its_address(postgres_server: PostgresServer) -> None:
    async with open_database(await postgres_server.fresh_url()) as database:
        await prepare_journal(database)
        assert await database.run(lambda: record("e1")) == 1


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT ?, ?", "SELECT $1, $2"),
        ("SELECT '?', \"?\", 'it''s ?', ?", "SELECT '?', \"?\", 'it''s ?', $1"),
        ("SELECT ? -- why?\n, ?", "SELECT $1 -- why?\n, $2"),
        ("SELECT ? /* what? */, $$ ? $$, $x$ ? $$ $x$, ?", "SELECT $1 /* what? */, $$ ? $$, $x$ ? $$ $x$, $2"),
    ],
)
def test_parameters_are_numbered_and_what_is_quoted_is_left_alone(statement: str, expected: str) -> None:
    assert numbered(statement) == expected
