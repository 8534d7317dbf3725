"""A served flow on a real cluster, of which a random process is killed every fifteen seconds while clients ask it."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from agent_runtime import Budget
from faults.report import Report
from faults.rig import ShiftedClock, close_books, open_books, seen, stores
from faults.served import KINDS, Door, flow_of, hub_document, victims
from llmhub_runtime.sim import Script, SimProcess, parse_script, read_log_file

APP = "soak"
SCOPE = "default"
CLIENTS = 24
ATTEMPTS = 5000
KILL_EVERY_S = 15.0
LONGEST_S = 160.0
LATER_S = 3600.0
MOODS: dict[str, tuple[int, dict[str, Any]]] = {
    # what a message contains: how many of a hundred, and what the provider does then
    "plain": (60, {"latency_ms": 50}),
    "slow": (15, {"latency_ms": 600}),
    "small": (10, {"usage": {"prompt_tokens": 3, "completion_tokens": 1}}),
    "silent": (8, {"usage": "missing"}),
    "failing": (4, {"fault": {"kind": "error", "status": 500}}),
    "garbled": (3, {"fault": {"kind": "malformed", "body": "bad_json"}}),
}


@dataclass(frozen=True, slots=True)
class Killing:
    """Every `every_s`, but not before what was killed last is there again: a slow machine starts things slowly."""

    every_s: float
    kinds: frozenset[str]
    most: int


def run(short: bool) -> Report:
    from benchmarks.cluster import cluster

    from agentflow_serve import AppArgs, app

    report = Report("cluster")
    with tempfile.TemporaryDirectory(prefix="af-") as name, stores(Path(name)) as databases:
        url, log = databases.fresh("sqlite"), Path(name) / "sim.log"
        open_books(url, Budget(scope_id=SCOPE, max_tokens_daily=10**12))
        with SimProcess(script=provider_script(), log_path=log) as sim, cluster() as ray:
            args = {"llmhub": hub_document(sim.openai_base), "store": url, "placement": "per_node", "ledger": "shared"}
            flow = flow_of(APP, predictors=2, replicas=2)
            ray.deploy(**{APP: app(AppArgs.model_validate({"flow": flow, **args}))})
            every_s, attempts = (5.0, 200) if short else (KILL_EVERY_S, ATTEMPTS)
            door = Door(ray.port, APP, APP)
            ask_while_killing(door, sim, report, attempts=attempts, every_s=every_s)
        books = close_books(url, read_log_file(log), clock=ShiftedClock(LATER_S), scope_id=SCOPE)
    report.check(books, "I1", "I2", "I4")
    report.say(books.summary())
    return report.end()


def provider_script() -> Script:
    """Moods by what a message contains."""
    return parse_script(
        {"rules": [{"match": {"contains": f" {mood} "}, "reply": reply} for mood, (_, reply) in MOODS.items()]}
    )


def ask_while_killing(
    door: Door,
    sim: SimProcess,
    report: Report,
    *,
    attempts: int,
    every_s: float,
    kinds: frozenset[str] = frozenset(KINDS),
    most: int = 10**6,
) -> None:
    """Ask until the provider has seen that many attempts, while the app loses up to `most` processes of these kinds."""
    done = threading.Event()
    killed = Counter[str]()
    killer = threading.Thread(target=_kill, args=(done, Killing(every_s, kinds, most), door, killed))
    killer.start()
    try:
        ends, asked = asyncio.run(_clients(door, sim, attempts))
    finally:
        done.set()
        killer.join()
    dead = ", ".join(f"{count} x {kind}" for kind, count in killed.items())
    report.say(f"killed with -9: {dead}; {sum(ends.values()):,} requests were asked {asked:,} times: {_told(ends)}")
    report.expect("processes were killed while clients asked", killed)
    report.expect("every client got an answer", set(ends) <= {200, 500}, dict(ends))


def _told(ends: Counter[int]) -> str:
    return ", ".join(f"{count:,} x {status}" for status, count in ends.most_common())


async def _clients(door: Door, sim: SimProcess, attempts: int) -> tuple[Counter[int], int]:
    """The statuses of all requests, and how often they were asked."""
    ends, asked = Counter[int](), 0
    over, give_up = asyncio.Event(), time.monotonic() + LONGEST_S

    async def client(number: int) -> None:
        nonlocal asked
        choose = Random(number)
        while not over.is_set():
            mood = choose.choices(list(MOODS), [weight for weight, _ in MOODS.values()])[0]
            status, times = await door.ask_until_answered(f"A {mood} provider, please.", choose)
            ends[status] += 1
            asked += times

    async def watch() -> None:
        while await asyncio.to_thread(seen, sim) < attempts and time.monotonic() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        over.set()

    await asyncio.gather(watch(), *map(client, range(CLIENTS)))
    return ends, asked


def _kill(done: threading.Event, how: Killing, door: Door, killed: Counter[str]) -> None:
    choose, whole = Random(door.app), len(_alive(door))
    pause_s = 1.0
    while not done.wait(pause_s) and killed.total() < how.most:
        alive = _alive(door)
        there = [(kind, pid) for kind, pid in alive if kind in how.kinds]
        if not there or len(alive) < whole:
            continue
        kind = choose.choice(sorted({kind for kind, _ in there}))
        pid = choose.choice([pid for each, pid in there if each == kind])
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        killed[kind] += 1
        pause_s = how.every_s


def _alive(door: Door) -> list[tuple[str, int]]:
    return list(victims(door.app, door.model))
