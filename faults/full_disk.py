"""The ledger's disk fills up under a predictor: it refuses before the provider is asked, until there is room."""

from __future__ import annotations

import resource
import tempfile
from collections import Counter
from pathlib import Path

import httpx

from agent_runtime import Budget
from faults.doors import PLAIN, port_of, serve_until
from faults.report import Report
from faults.rig import Said, ShiftedClock, close_books, crew, open_books, requests_since, seen, stores
from llmhub_runtime.sim import SimProcess

SCOPE = "default"
ROOM = 256 * 1024
"""Bytes that the store's largest file may still grow."""
UNTIL_FULL = 400
LATER_S = 3600.0


def run(short: bool) -> Report:
    report = Report("full_disk")
    with (
        tempfile.TemporaryDirectory(prefix="af-") as name,
        stores(Path(name)) as databases,
        SimProcess() as sim,
        crew() as them,
    ):
        folder = Path(name)
        url, said, stop = databases.fresh("sqlite"), Said(folder / "said"), folder / "stop"
        open_books(url, Budget(scope_id=SCOPE, max_tokens_total=10**12))
        server = them.fork(serve_until(stop.exists, url, sim.openai_base, said))
        with httpx.Client(base_url=f"http://127.0.0.1:{port_of(said)}", timeout=60, trust_env=False) as client:
            for turn in range(1 if short else 3):
                _fill(turn, folder, server, client, sim, report)
        stop.touch()
        report.expect("the server ends well", them.wait() == [0])
        books = close_books(url, requests_since(sim, 0), clock=ShiftedClock(LATER_S), scope_id=SCOPE)
    report.check(books, "I1", "I2", "I4")
    report.say(books.summary())
    return report.end()


def _fill(turn: int, folder: Path, server: int, client: httpx.Client, sim: SimProcess, report: Report) -> None:
    before = [_ask(client) for _ in range(5)]
    largest = max(path.stat().st_size for path in folder.glob("*.db*"))
    resource.prlimit(server, resource.RLIMIT_FSIZE, (largest + ROOM, resource.RLIM_INFINITY))
    until = 0
    while _ask(client) == 200 and until < UNTIL_FULL:
        until += 1
    sent = seen(sim)
    full = Counter(_ask(client) for _ in range(20))
    unsent = seen(sim) == sent
    resource.prlimit(server, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    after = [_ask(client) for _ in range(5)]
    report.expect("with room, every request is answered", {*before, *after} == {200}, (before, after))
    report.expect("on a full disk every request is refused with 503", full == Counter({503: 20}), dict(full))
    report.expect("on a full disk nothing is sent to the provider", unsent)
    report.say(
        f"turn {turn + 1}: the disk was full after {until} requests; then 20 were refused with {sorted(full)}, "
        f"{'none' if unsent else 'some'} sent; with room again, 5 of 5 answered"
    )


def _ask(client: httpx.Client) -> int:
    return client.post(PLAIN, json={"instances": [{"x": "Is there any room left?"}]}).status_code
