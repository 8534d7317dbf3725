"""Several processes on one store, and what is left when one of them is killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runtime_core.stores import Database, open_database
from runtime_core.stores.sqlite import SqliteDatabase
from support.stores import entry_ids, prepare_journal, record, store_process, total


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return await request.getfixturevalue("postgres_server").fresh_url()
    return str(tmp_path / "store.db")


def opened(store: str) -> Database:
    return open_database(store) if store.startswith("postgresql:") else SqliteDatabase(store, node_id="node-1")


async def test_kill_9_loses_no_acknowledged_write(store: str) -> None:
    acknowledged: set[str] = set()
    for attempt in range(2 if store.startswith("postgresql:") else 5):
        async with store_process("write", store, f"round-{attempt}") as process:
            assert process.stdout is not None
            # Another number each time, so that the kill falls into another moment of a group.
            for _ in range(100 + 37 * attempt):
                acknowledged.add((await process.stdout.readline()).decode().strip())
            process.kill()
            rest, _ = await process.communicate()
            acknowledged.update(line for line in rest.decode().splitlines(keepends=False) if line)

        async with opened(store) as database:
            stored = await database.read(entry_ids)
            assert acknowledged <= stored
            assert len(stored - acknowledged) <= 16 * (attempt + 1)
            assert await database.read(total) == len(stored)


@pytest.mark.parametrize(("failpoint", "stored"), [("store.before_commit", set[str]()), ("store.after_commit", {"e1"})])
async def test_a_write_whose_process_died_before_the_answer_can_be_repeated(
    store: str, failpoint: str, stored: set[str]
) -> None:
    async with store_process("record", store, "e1", failpoints=f"{failpoint}:kill") as process:
        output, _ = await process.communicate()
        assert (process.returncode, output) == (-9, b"")

    async with opened(store) as database:
        assert await database.read(entry_ids) == stored
        assert await database.run(lambda: record("e1")) == 1


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
async def test_processes_that_start_at_once_share_the_store_and_lose_no_update(store: str) -> None:
    async def add_in_a_process() -> None:
        async with store_process("add", store, "200") as process:
            await process.communicate()
            assert process.returncode == 0

    await asyncio.gather(*(add_in_a_process() for _ in range(3)))

    async with opened(store) as database:
        await prepare_journal(database)
        assert await database.read(total) == 600
