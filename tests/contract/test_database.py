"""What every Database promises, on each of ours; the promises are shipped as agent_runtime.testing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_runtime.testing import DatabaseContract
from runtime_core.stores import Database, open_database
from support.stores import fresh_store_url, prepare_journal, record, total


class TestDatabases(DatabaseContract):
    @pytest.fixture(params=["memory", "sqlite", "postgres"])
    async def empty_database(self, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
        url = await fresh_store_url(request.param, request, tmp_path)
        async with open_database(url, node_id="node-1") as opened:
            yield opened


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_close_finishes_what_was_accepted(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = await fresh_store_url(kind, request, tmp_path)
    async with open_database(url) as database:
        await prepare_journal(database)
        writes = [asyncio.create_task(database.run(lambda n=n: record(f"e{n}"))) for n in range(50)]
        await asyncio.sleep(0)
    await asyncio.gather(*writes)
    async with open_database(url) as database:
        assert await database.read(total) == 50
