"""The address of a store: what is understood, and what is said about the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime_core.errors import StoreUrlError
from runtime_core.stores import open_database
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


@pytest.mark.parametrize("url", ["postgresql://app:s3cret@db/flows", "postgres://app:s3cret@db/flows"])
def test_postgresql_is_refused_for_now_without_showing_the_password(url: str) -> None:
    with pytest.raises(StoreUrlError, match="PostgreSQL are not supported yet") as caught:
        open_database(url)
    assert "s3cret" not in str(caught.value)
