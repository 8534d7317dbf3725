"""A process that uses a store, to be killed: `python -m support.store_process COMMAND STORE ARGUMENT`.

STORE is an SQLite file or a postgresql:// address.

write STORE PREFIX   record entries PREFIX-0, PREFIX-1, ... from 16 tasks for ever; a line for each
record STORE ID      record one entry; a line when it is acknowledged
add STORE COUNT      add 1 to the total, COUNT times, from 8 tasks
full FILE ID         record one entry while the disk takes nothing more, and again later; a line for each
"""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import sys

from runtime_core.errors import StoreUnavailableError
from runtime_core.stores import Database, open_database
from runtime_core.stores.failpoints import arm_from_environment
from runtime_core.stores.sqlite import SqliteDatabase
from support.stores import add, prepare_journal, record


async def main(command: str, store: str, argument: str) -> None:
    opened = open_database(store) if store.startswith("postgresql:") else SqliteDatabase(store, node_id="node-1")
    async with opened as database:
        await prepare_journal(database)
        arm_from_environment(os.environ)
        match command:
            case "write":
                numbers = itertools.count()
                await asyncio.gather(*(_write(database, argument, numbers) for _ in range(16)))
            case "record":
                await database.run(lambda: record(argument))
                _say(argument)
            case "add":
                await asyncio.gather(*(_add(database, int(argument) // 8) for _ in range(8)))
            case "full":
                await _full(database, store, argument)
            case _:
                raise SystemExit(f"no command {command}")


async def _write(database: Database, prefix: str, numbers: itertools.count[int]) -> None:
    for number in numbers:
        entry_id = f"{prefix}-{number}"
        await database.run(lambda entry_id=entry_id: record(entry_id))
        _say(entry_id)


async def _add(database: Database, count: int) -> None:
    for _ in range(count):
        await database.run(lambda: add(1))


async def _full(database: Database, file: str, entry_id: str) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(f"{file}-wal"), hard))
    try:
        await database.run(lambda: record(entry_id))
    except StoreUnavailableError as error:
        _say(f"unknown={error.outcome_unknown}")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    _say(f"total={await database.run(lambda: record(entry_id))}")


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
