"""Model calls of several replicas counted through the shared actor, against each replica's own commits.

It is why `ledger` in the serve config has the default that it has. On a Ray cluster, because a call to the actor is
what the shared way costs; with SQLite and PostgreSQL, and one and four replicas that write.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from agent_runtime import Budget, Ledger
from agent_runtime.ledger.amounts import Amounts
from agent_runtime.ledger.records import MODEL, Entry
from agent_runtime.ledger.transactions import LedgerTransactions, StoredTransactions, prepare_ledger
from agent_runtime.ledger.writers import SqlLedgerWriter
from benchmarks.cluster import cluster, cpu_s
from benchmarks.harness import Figure, median_ratio, paired, pairs_for
from runtime_core.call_log.records import Attempt, AttemptStatus, CallKind, Ending, Usage
from runtime_core.ids import RandomIds
from runtime_core.stores.database import Database
from support.postgres import postgres_server

CALLERS = 16
"""Model calls at a time in a replica."""
REPLICAS = (1, 4)
SCOPE = "bench"


def measure(short: bool) -> Iterator[Figure]:
    attempts = 320 if short else 1600
    with tempfile.TemporaryDirectory(prefix="af-") as folder, postgres_server(fsync=True) as server, cluster():
        there = asyncio.run(server.fresh_url())
        for store, url in (("SQLite", f"sqlite:///{Path(folder) / 'ledger.db'}"), ("PostgreSQL", there)):
            for replicas in REPLICAS:
                yield from _compared(store, url, replicas, attempts=attempts, pairs=pairs_for(short))


def _compared(store: str, url: str, replicas: int, *, attempts: int, pairs: int) -> Iterator[Figure]:
    import ray

    make: Any = ray.remote(num_cpus=0)(Replica)
    writing = [make.remote(url, f"{store}-{replicas}") for _ in range(replicas)]

    def run(way: str, count: int = attempts) -> tuple[float, float]:
        """Attempts a second, and seconds of CPU for each one."""
        began, used = perf_counter(), cpu_s()
        ray.get([each.spend.remote(way, count // replicas) for each in writing])
        return count / (perf_counter() - began), (cpu_s() - used) / count

    for way in ("shared", "own"):
        run(way, attempts // 4)
    results = paired(lambda: run("shared"), lambda: run("own"), pairs=pairs)
    for each in writing:
        ray.kill(each)
    where = f"{store}, {replicas} replica{'s' if replicas > 1 else ''} of {CALLERS} callers"
    rate = median_ratio((shared[0], own[0]) for shared, own in results)
    cpu = median_ratio((shared[1], own[1]) for shared, own in results)
    name = f"ledger.shared.{store.lower()}.{replicas}"
    alone = median(own[0] for _, own in results)
    yield Figure(f"{name}.rate", f"attempts a second through the actor / own commits ({alone:.0f}/s): {where}", rate)
    yield Figure(f"{name}.cpu", f"CPU of the cluster for an attempt through the actor / own commits: {where}", cpu)


class Replica:
    """A process that makes model calls, without the models."""

    async def __init__(self, url: str, app_name: str) -> None:
        from agentflow_serve.run_store import RunStore
        from agentflow_serve.session_ledger import LedgerCalls
        from agentflow_serve.shared_commits import SharedCommits

        stack = AsyncExitStack()
        store = RunStore(stack, url)
        database = await store.database()
        await budgeted(database)
        self._ways: dict[str, LedgerTransactions] = {
            "own": StoredTransactions(database),
            "shared": await SharedCommits.open(stack, LedgerCalls(app_name), url, store),
        }

    async def spend(self, way: str, attempts: int) -> None:
        await spend(self._ways[way], attempts, callers=CALLERS)


async def spend(books: LedgerTransactions, attempts: int, *, callers: int) -> None:
    """Reserve and settle that many attempts, so many at a time."""
    ids = RandomIds()

    async def call(_: int) -> None:
        for _ in range(attempts // callers):
            attempt, entry = _booked(ids.new("att"), asyncio.get_running_loop().time())
            assert await books.reserve(attempt, entry) is None
            usage = Usage(input=20, output=30)
            ending = Ending(status=AttemptStatus.SETTLED, ended_at=attempt.reserved_at + 1, usage=usage, cost_micro=7)
            await books.end(attempt, ending, entry)

    await asyncio.gather(*map(call, range(callers)))


async def budgeted(database: Database) -> None:
    """The tables, and a budget with room for everything, so that reservations have something to check."""
    await prepare_ledger(database)
    budget = Budget(scope_id=SCOPE, max_tokens_daily=10**12, max_requests_per_minute=10**9)
    await Ledger(SqlLedgerWriter(database)).set_budget(budget)


def _booked(attempt_id: str, now: float) -> tuple[Attempt, Entry]:
    attempt = Attempt(
        scope_id=SCOPE,
        attempt_id=attempt_id,
        call_id=attempt_id,
        number=1,
        kind=CallKind.CHAT,
        role="chat",
        provider="sim",
        model="sim-1",
        request_hash="0" * 64,
        reserved_at=now,
        lease_until=now + 60,
    )
    most = Amounts(tokens=100, cost_micro=1000, requests=1, turns=1)
    entry = Entry(scope_id=SCOPE, event_id=attempt_id, type=MODEL, at=now, most=most, role="chat")
    return attempt, entry
