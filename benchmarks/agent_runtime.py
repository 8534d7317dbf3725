"""The runtime around the calls: events to many, jobs against the bare driver, and what a policy check takes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from agent_runtime import (
    ExecutionContext,
    InMemoryEventBus,
    JobManager,
    JobSpec,
    PolicyEngine,
    RuntimeEvent,
    RuntimeEventType,
    SqliteJobStore,
    ToolPolicy,
)
from benchmarks.harness import Figure, median_ratio, paired, pairs_for

SUBSCRIBERS = 10
CLIENTS = 16
RULES = 100


def measure(short: bool) -> Iterator[Figure]:
    with asyncio.Runner() as runner:
        yield from _events(runner, short)
        yield from _policy(runner)
        yield from _jobs(runner, short)


def _events(runner: asyncio.Runner, short: bool) -> Iterator[Figure]:
    count = 5_000 if short else 40_000
    for slow, name in ((False, "events"), (True, "events.slow")):
        rate = median(runner.run(_publish(count, slow=slow)) for _ in range(pairs_for(short)))
        what = f"events in a second of CPU to {SUBSCRIBERS} subscribers" + (", one of which is stuck" if slow else "")
        yield Figure(f"agent_runtime.{name}", what, rate, unit="/s", bound="at least", target=20_000)


async def _publish(count: int, *, slow: bool) -> float:
    """Events in a second of CPU, from the first one made to the last one heard."""
    bus, heard, stuck = InMemoryEventBus(), 0, asyncio.Event()

    async def hear(event: RuntimeEvent) -> None:
        nonlocal heard
        heard += 1

    async def wait(event: RuntimeEvent) -> None:
        await stuck.wait()

    for number in range(SUBSCRIBERS):
        await bus.subscribe(wait if slow and number == 0 else hear)
    began = time.process_time()
    for number in range(count):
        await bus.publish(RuntimeEvent(type=RuntimeEventType.MODEL_DELTA, job_id="job-1", data={"n": number}))
    await asyncio.sleep(0)  # what is still queued is fewer than one round of publishing
    took = time.process_time() - began
    assert heard == (SUBSCRIBERS - int(slow)) * count
    stuck.set()
    await bus.flush()
    return count / took


def _policy(runner: asyncio.Runner) -> Iterator[Figure]:
    rules = [ToolPolicy(tool_patterns=(f"area_{n}_*", f"*.{n}"), allowed_scopes=("internal",)) for n in range(RULES)]
    names = [f"area_{n % RULES}_tool_{n}" for n in range(3000)]
    context = ExecutionContext(scope_id="internal")
    for what, asked in (("new names", names), ("a name asked for before", names[:1] * 3000)):
        seconds = runner.run(_check(PolicyEngine(rules), asked, context))
        name = "policy" if len(set(asked)) > 1 else "policy.known"
        yield Figure(
            f"agent_runtime.{name}", f"a check of {RULES} rules, {what}", seconds * 1e6, unit="µs", target=100.0
        )


async def _check(engine: PolicyEngine, names: list[str], context: ExecutionContext) -> float:
    """Seconds of a check, the median of some rounds."""
    rounds: list[float] = []
    for start in range(0, len(names), 100):
        began = time.process_time()
        for name in names[start : start + 100]:
            assert (await engine.check_tool(name, context)).allowed
        rounds.append((time.process_time() - began) / 100)
    return median(rounds)


def _jobs(runner: asyncio.Runner, short: bool) -> Iterator[Figure]:
    count = 2_400 if short else 4_800  # SQLite's log grows for the first 800 of ours, and a commit costs more meanwhile
    with tempfile.TemporaryDirectory(prefix="af-") as folder:
        files = iter(range(1_000))

        def ours() -> float:
            return runner.run(_manage(Path(folder) / f"{next(files)}.db", count))

        def bare() -> float:
            return _write(Path(folder) / f"{next(files)}.db", count)

        ratio = median_ratio(paired(ours, bare, pairs=pairs_for(short)))
    what = f"jobs a second in SQLite, create + start + complete, {CLIENTS} clients / the bare driver"
    yield Figure("agent_runtime.jobs.sqlite", what, ratio, bound="at least", target=0.5)


async def _manage(path: Path, count: int) -> float:
    """Jobs a second through the manager."""
    async with SqliteJobStore(path) as store:
        manager, left = JobManager(store), iter(range(count))

        async def client() -> None:
            for _ in left:
                job = await manager.create(JobSpec(principal_id="ada", metadata={"who": "bench"}))
                await manager.start(job.job_id)
                await manager.complete(job.job_id, result_ref="r")

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        return count / (time.perf_counter() - began)


_INSERT = "INSERT INTO jobs VALUES (?, ?, ?, 'queued', ?, ?, ?, NULL)"
_UPDATE = "UPDATE jobs SET status = ?, updated_at = ?, result_ref = ? WHERE scope_id = ? AND job_id = ?"


def _write(path: Path, count: int) -> float:
    """Jobs a second with nothing but sqlite3: the same three writes, each durable, a connection for each client."""
    opened, left = list[sqlite3.Connection](), iter(range(count))
    setup = _connect(path)
    setup.execute(
        "CREATE TABLE jobs (scope_id TEXT, job_id TEXT, principal_id TEXT, status TEXT, created_at REAL,"
        " updated_at REAL, metadata TEXT, result_ref TEXT, PRIMARY KEY (scope_id, job_id))"
    )

    def client(_: int) -> None:
        raw = _connect(path)
        opened.append(raw)
        for number in left:
            job_id, metadata = f"job-{number}", json.dumps({"who": "bench"})
            _durably(raw, _INSERT, ("s", job_id, "ada", 1.0, 1.0, metadata))
            _durably(raw, _UPDATE, ("running", 2.0, None, "s", job_id))
            _durably(raw, _UPDATE, ("succeeded", 3.0, "r", "s", job_id))

    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))
    rate = count / (time.perf_counter() - began)
    for raw in (setup, *opened):
        raw.close()
    return rate


def _connect(path: Path) -> sqlite3.Connection:
    raw = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute("PRAGMA synchronous = FULL")
    return raw


def _durably(raw: sqlite3.Connection, text: str, values: tuple[object, ...]) -> None:
    raw.execute("BEGIN IMMEDIATE")
    raw.execute(text, values)
    raw.execute("COMMIT")
