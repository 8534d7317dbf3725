"""What reserving and settling costs on SQLite: against bare commits of the same file system, and grouped or not."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from agent_runtime import Budget, Ledger, SqliteLedgerWriter
from benchmarks.harness import Figure, median_ratio, paired, pairs_for
from runtime_core.call_log.records import Usage
from runtime_core.context import Identity

CALLERS = 64
WHO = Identity(scope_id="bench", principal_id="ada")


def measure(short: bool) -> Iterator[Figure]:
    alone, together = (60, 640) if short else (300, 3200)
    pairs = pairs_for(short)
    with tempfile.TemporaryDirectory(prefix="af-ledger-") as folder, asyncio.Runner() as runner:
        places = (Path(folder) / f"{number}.db" for number in range(1000))
        compared = paired(
            lambda: 1 / runner.run(_spend(next(places), alone, callers=1)),
            lambda: 1 / _commit(next(places), alone),
            pairs=pairs,
        )
        what = "time of reserve + settle on SQLite, one caller / two bare commits of one row"
        yield Figure("ledger.alone", what, median_ratio(compared), target=3.0)
        compared = paired(
            lambda: runner.run(_spend(next(places), together, callers=CALLERS)),
            lambda: runner.run(_spend(next(places), alone, callers=1)),
            pairs=pairs,
        )
        what = f"attempts a second on SQLite, {CALLERS} callers in one process / one commit each"
        yield Figure("ledger.grouped", what, median_ratio(compared), bound="at least", target=5.0)


async def _spend(place: Path, attempts: int, *, callers: int) -> float:
    """Attempts a second, each reserved and settled under a budget."""
    async with SqliteLedgerWriter(place) as writer:
        ledger = Ledger(writer)
        await ledger.set_budget(Budget(scope_id="bench", max_tokens_daily=10**9, max_requests_per_minute=10**9))

        async def call(_: int) -> None:
            for _ in range(attempts // callers):
                reservation = await ledger.reserve(WHO, tokens=100, requests=1)
                await ledger.settle(reservation, Usage(input=20, output=30))

        start = perf_counter()
        await asyncio.gather(*map(call, range(callers)))
        return attempts / (perf_counter() - start)


def _commit(place: Path, attempts: int) -> float:
    """Nothing but the driver: two transactions of one row for each attempt."""
    connection = sqlite3.connect(place, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE attempts (attempt_id TEXT PRIMARY KEY, tokens INTEGER)")
        start = perf_counter()
        for number in range(attempts):
            for statement in (
                "INSERT INTO attempts VALUES (?, 100)",
                "UPDATE attempts SET tokens = 50 WHERE attempt_id = ?",
            ):
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(statement, (f"attempt-{number}",))
                connection.execute("COMMIT")
        return attempts / (perf_counter() - start)
    finally:
        connection.close()
