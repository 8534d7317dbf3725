"""What a store in memory adds to the contract: operations that share a transaction do not share their fate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime_core.errors import StoreError, StoreFullError
from runtime_core.stores import Op, Sql
from runtime_core.stores.memory import MemoryDatabase
from support.stores import entry_ids, prepare_journal, record

STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "refuse", "break", "look", "sneak"]), st.integers(0, 40)), max_size=150
)


class Refused(Exception):
    pass


def refused(entry_id: str) -> Op[None]:
    yield from record(entry_id)
    yield Sql("DELETE FROM entry WHERE entry_id < ?", (entry_id,))
    raise Refused


def broken(entry_id: str) -> Op[None]:
    yield from record(entry_id)
    yield Sql("INSERT INTO entry (scope_id, entry_id, amount) VALUES ('s', ?, 1)", (entry_id,))


@given(STEPS)
async def test_whatever_fails_between_them_the_writes_that_were_acknowledged_are_there(
    steps: list[tuple[str, int]],
) -> None:
    written: set[str] = set()
    async with MemoryDatabase() as database:
        await prepare_journal(database)
        for what, number in steps:
            name = f"e{number}"
            match what:
                case "write":
                    await database.run(lambda name=name: record(name))
                    written.add(name)
                case "refuse":
                    with pytest.raises(Refused):
                        await database.run(lambda name=name: refused(name))
                case "break":
                    with pytest.raises(StoreError):
                        await database.run(lambda name=name: broken(name))
                case "sneak":
                    with pytest.raises(StoreError, match="read operation"):
                        await database.read(lambda name=name: record(f"new {name}"))
                case _:
                    assert await database.read(entry_ids) == written
        assert await database.read(entry_ids) == written


async def test_a_full_store_refuses_one_write_and_keeps_the_others() -> None:
    async with MemoryDatabase(max_bytes=2**18) as database:
        await prepare_journal(database)
        written: set[str] = set()
        with pytest.raises(StoreFullError):
            for number in range(10_000):
                name = f"{number:05d}" * 50
                await database.run(lambda name=name: record(name))
                written.add(name)
        assert await database.read(entry_ids) == written
        assert len(written) > 100


async def test_a_table_that_a_read_makes_is_gone_after_it() -> None:
    def sneak() -> Op[None]:
        yield Sql("CREATE TABLE sneaked (a INTEGER)")

    def look() -> Op[int]:
        return len((yield Sql("SELECT a FROM sneaked")))

    async with MemoryDatabase() as database:
        await prepare_journal(database)
        await database.run(lambda: record("e1"))
        await database.read(sneak)
        with pytest.raises(StoreError, match="sneaked"):
            await database.read(look)
        assert await database.read(entry_ids) == {"e1"}
