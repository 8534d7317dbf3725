"""What reserving and settling costs on SQLite: against bare commits of the same file system, grouped or not, and as
the shared actor commits what replicas send it. On uvloop, the event loop of Ray's workers.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import uvloop

from agent_runtime import Budget, Ledger, SqliteLedgerWriter
from agent_runtime.ledger.transactions import StoredTransactions
from agentflow_serve.ledger_commits import LedgerCommits
from agentflow_serve.run_store import RunStore
from agentflow_serve.shared_commits import SharedCommits
from benchmarks.harness import Figure, median_ratio, paired, pairs_for
from benchmarks.ledger_replicas import budgeted, spend
from runtime_core.call_log.records import Usage
from runtime_core.context import Identity
from runtime_core.stores.outcome import Outcome, outcome_of
from runtime_core.stores.sqlite import SqliteDatabase
from runtime_core.stores.worker import Worker

CALLERS = 64
REPLICAS = 4
WHO = Identity(scope_id="bench", principal_id="ada")
COMMITTED = ("INSERT INTO attempts VALUES (?, 100)", "UPDATE attempts SET tokens = 50 WHERE attempt_id = ?")


def measure(short: bool) -> Iterator[Figure]:
    # Until SQLite first writes over its log, a few hundred commits, each makes the file longer and costs twice as much:
    # a short round of bare commits is all of that kind.
    attempts = 960 if short else 4_992
    pairs = pairs_for(short)
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with tempfile.TemporaryDirectory(prefix="af-ledger-") as folder, runner:
        places = (Path(folder) / f"{number}.db" for number in range(1000))
        compared = paired(
            lambda: 1 / runner.run(_spend(next(places), attempts, callers=1)),
            lambda: (1 / runner.run(_commit_from_loop(next(places), attempts)), 1 / _commit(next(places), attempts)),
            pairs=pairs,
        )
        what = "time of reserve + settle on SQLite, one caller / two commits of one row, {}"
        bare = median_ratio((ours, raw) for ours, (_, raw) in compared)
        yield Figure("ledger.alone", what.format("in a loop of the driver alone"), bare, target=3.0)
        awaited = median_ratio((ours, raw) for ours, (raw, _) in compared)
        yield Figure("ledger.awaited", what.format("awaited from a thread as the ledger's are"), awaited)
        compared = paired(
            lambda: runner.run(_spend(next(places), attempts, callers=CALLERS)),
            lambda: runner.run(_spend(next(places), attempts, callers=1)),
            pairs=pairs,
        )
        what = f"attempts a second on SQLite, {CALLERS} callers in one process / one commit each"
        yield Figure("ledger.grouped", what, median_ratio(compared), bound="at least", target=5.0)
        compared = paired(
            lambda: runner.run(_send(next(places), attempts)),
            lambda: runner.run(_own(next(places), attempts)),
            pairs=pairs,
        )
        what = f"model calls a second on SQLite, {REPLICAS} replicas through the actor's queue / one commit each"
        yield Figure("ledger.actor", what, median_ratio(compared))


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


async def _send(place: Path, attempts: int) -> float:
    """The two ends of the shared actor in one process, without Ray's way between them."""
    async with AsyncExitStack() as stack:
        store = RunStore(stack, f"sqlite:///{place}")
        database, commits = await store.database(), LedgerCommits(store)
        await budgeted(database)
        start = perf_counter()
        replicas = [SharedCommits(_Calls(commits), "", database) for _ in range(REPLICAS)]
        share = attempts // REPLICAS
        await asyncio.gather(*(spend(each, share, callers=CALLERS // REPLICAS) for each in replicas))
        return attempts / (perf_counter() - start)


class _Calls:
    def __init__(self, commits: LedgerCommits) -> None:
        self._commits = commits

    async def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        _, commands = args
        return await self._commits.commit(commands)


async def _own(place: Path, attempts: int) -> float:
    """One caller: each reservation and each settlement is a commit."""
    async with SqliteDatabase(place) as database:
        await budgeted(database)
        start = perf_counter()
        await spend(StoredTransactions(database), attempts, callers=1)
        return attempts / (perf_counter() - start)


async def _commit_from_loop(place: Path, attempts: int) -> float:
    """`_commit` by a thread, since an event loop must not wait for a disk: `_spend` without a ledger or a store."""
    with _bare(place) as commit:
        thread = Worker(_Doing(), name="commits", max_pending=1, max_batch=1)
        await thread.start()
        try:
            start = perf_counter()
            for number in range(attempts):
                for statement in COMMITTED:
                    work: Any = partial(commit, statement, number)  # no operation: _Doing just calls it
                    await thread.submit(work)
            return attempts / (perf_counter() - start)
        finally:
            await thread.stop()


class _Doing:
    """What is submitted is done."""

    def open(self) -> None: ...

    def handle(self, batch: Sequence[Callable[[], Any]]) -> list[Outcome]:
        return [outcome_of(work) for work in batch]

    def close(self) -> None: ...


def _commit(place: Path, attempts: int) -> float:
    """Nothing but the driver: two transactions of one row for each attempt."""
    with _bare(place) as commit:
        start = perf_counter()
        for number in range(attempts):
            for statement in COMMITTED:
                commit(statement, number)
        return attempts / (perf_counter() - start)


@contextmanager
def _bare(place: Path) -> Iterator[Callable[[str, int], None]]:
    """How one of the statements is committed for the attempt of that number."""
    connection = sqlite3.connect(place, isolation_level=None, check_same_thread=False)

    def commit(statement: str, number: int) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(statement, (f"attempt-{number}",))
        connection.execute("COMMIT")

    with closing(connection):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE attempts (attempt_id TEXT PRIMARY KEY, tokens INTEGER)")
        yield commit
