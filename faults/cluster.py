"""A served flow on a real cluster, of which a random process is killed every fifteen seconds while clients ask it."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from agent_runtime import Budget
from faults.report import Report
from faults.rig import ShiftedClock, close_books, open_books, stores
from faults.served import KINDS, Door, flow_of, hub_document, victims
from faults.stall import Stall
from llmhub_runtime.sim import Script, SimProcess, parse_script, read_log_file

APP = "soak"
SCOPE = "default"
CLIENTS = 24
ATTEMPTS = 5000
KILL_EVERY_S = 15.0
LOOK_EVERY_S = 1.0
STALLED_S = 120.0
"""Without a single request, or a client without an answer in the end: then something hangs, and the run falls short."""
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
    """Every `every_s`, but not before what was killed last is there again: a slow machine starts things slowly.

    Each of the `kinds` once, in an order of chance, before any of them for a second time.
    """

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
            killed = ask_while_killing(door, sim, report, attempts=attempts, every_s=every_s)
        books = close_books(url, read_log_file(log), clock=ShiftedClock(LATER_S), scope_id=SCOPE)
    report.reach("attempts", len(books.rows), attempts)
    report.reach("kinds of processes killed", len(killed), len(KINDS))
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
) -> Counter[str]:
    """Ask until the provider has seen that many attempts, while the app loses up to `most` processes of these kinds.

    How many of each it lost.
    """
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
    return killed


def _told(ends: Counter[int]) -> str:
    return ", ".join(f"{count:,} x {status}" for status, count in ends.most_common())


async def _clients(door: Door, sim: SimProcess, attempts: int) -> tuple[Counter[int], int]:
    """The statuses of all requests, and how often they were asked."""
    ends, asked, over = Counter[int](), 0, asyncio.Event()

    async def client(number: int) -> None:
        nonlocal asked
        choose = Random(number)
        while not over.is_set():
            mood = choose.choices(list(MOODS), [weight for weight, _ in MOODS.values()])[0]
            status, times = await door.ask_until_answered(f"A {mood} provider, please.", choose)
            ends[status] += 1
            asked += times

    async def watch() -> None:
        made, stall = 0, Stall(STALLED_S)
        with sim.control() as control:
            while made < attempts and not stall.at(made):
                await asyncio.sleep(LOOK_EVERY_S)
                made = (await asyncio.to_thread(control.health))["requests"]
        over.set()

    clients = [asyncio.create_task(client(number)) for number in range(CLIENTS)]
    await watch()
    answered, left_waiting = await asyncio.wait(clients, timeout=STALLED_S)
    for task in left_waiting:
        task.cancel()
        ends[0] += 1
    await asyncio.gather(*answered)
    return ends, asked


def _kill(done: threading.Event, how: Killing, door: Door, killed: Counter[str]) -> None:
    choose, whole = Random(door.app), len(_alive(door))
    order, kill_at = _order(how.kinds, choose), time.monotonic() + LOOK_EVERY_S
    kind = next(order)
    while not done.wait(LOOK_EVERY_S) and killed.total() < how.most:
        if time.monotonic() < kill_at or len(alive := _alive(door)) < whole:
            continue
        if not (there := [pid for each, pid in alive if each == kind]):
            continue
        try:
            os.kill(choose.choice(there), signal.SIGKILL)
        except ProcessLookupError:
            continue
        killed[kind] += 1
        kind, kill_at = next(order), time.monotonic() + how.every_s


def _order(kinds: frozenset[str], choose: Random) -> Iterator[str]:
    while True:
        yield from choose.sample(sorted(kinds), len(kinds))


def _alive(door: Door) -> list[tuple[str, int]]:
    return list(victims(door.app, door.model))
