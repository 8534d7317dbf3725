"""Processes that make every kind of call are killed at random, and the books are compared with the provider's log."""

from __future__ import annotations

import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from random import Random

from agent_runtime import Budget
from faults.books import Books, KeyedCall
from faults.report import Report
from faults.rig import SCOPE, Said, ShiftedClock, close_books, count_attempts, crew, open_books, stores
from faults.soak_callers import call_until, provider_script
from faults.stall import Stall
from llmhub_runtime.sim import LogEntry, SimProcess, read_log_file
from runtime_core.call_log.records import AttemptStatus

WORKERS = 3
LOOK_EVERY_S = 0.2
STALLED_S = 60.0
"""Without a single request, or with requests of which the call log has none: then the run falls short."""
LATER_S = 3600.0
BUDGETS = (
    Budget(scope_id=SCOPE, max_tokens_daily=10**9, max_cost_monthly=Decimal(10_000)),
    Budget(scope_id=SCOPE, principal_id="poor", max_tokens_per_minute=8_000, max_requests_total=10**6),
    Budget(scope_id=SCOPE, run_id="run-7", max_tokens_total=40_000),
)


@dataclass(frozen=True, slots=True)
class Part:
    """How many attempts are to be made, on which kind of store; `kill_every` is how many requests are between kills."""

    kind: str
    attempts: int
    kill_every: tuple[int, int] = (30, 150)


def run(short: bool) -> Report:
    report = Report("soak")
    parts = [Part("sqlite", 200, (10, 60))] if short else [Part("sqlite", 16_000), Part("postgres", 4_000)]
    made = sum(_soak(part, report) for part in parts)
    report.reach("attempts", made, sum(part.attempts for part in parts))
    return report.end()


def _soak(part: Part, report: Report) -> int:
    """How many attempts there were."""
    with tempfile.TemporaryDirectory(prefix="af-") as name, stores(Path(name)) as databases:
        folder = Path(name)
        url, said, log = databases.fresh(part.kind), Said(folder / "said"), folder / "sim.log"
        open_books(url, *BUDGETS)
        with SimProcess(script=provider_script(), log_path=log) as sim:
            kills, died = _kill_at_random(part, folder / "stop", url, sim, said, report)
        requests, told = read_log_file(log), said.all()
        books = close_books(url, requests, clock=ShiftedClock(LATER_S))
    books = replace(books, keyed=_keyed(books, told))
    report.check(books, "I1", "I2", "I3", "I4", where=part.kind)
    report.expect("processes were killed", kills, part.kind)
    report.expect("no process died of itself", not died, f"{part.kind}: {died}")
    counted = Counter[str](one["said"] for one in told)
    moods = Counter(_mood(entry) for entry in books.requests)
    report.say(f"{part.kind}: {kills} times kill -9 of one of {WORKERS} processes; {books.summary()}")
    report.say(
        f"{part.kind}: {counted['answered']:,} calls answered, {counted['refused']:,} refused by a budget, "
        f"{len(books.keyed)} idempotency keys wanted by all processes at once"
    )
    report.say(f"{part.kind}: the provider: {', '.join(f'{count} {mood}' for mood, count in moods.most_common())}")
    return len(books.rows)


def _kill_at_random(
    part: Part, stop: Path, url: str, sim: SimProcess, said: Said, report: Report
) -> tuple[int, list[int]]:
    """The number of kills, and the exits of those that were not killed."""
    choose, kills, seeds = Random(part.kind), 0, 0
    count, next_kill = 0, choose.randrange(*part.kill_every)
    no_requests, no_attempts = Stall(STALLED_S), Stall(STALLED_S)
    with crew() as them, sim.control() as control:
        while not no_requests.at(count):
            while len(them.alive) < WORKERS:
                seeds += 1
                them.fork(call_until(stop.exists, url, sim.openai_base, said, seeds))
            time.sleep(choose.uniform(0, LOOK_EVERY_S))
            if ended := them.ended():
                return kills, sorted(ended)
            count = control.health()["requests"]
            if count >= next_kill:
                them.kill(choose.choice(sorted(them.alive)))
                kills, next_kill = kills + 1, count + choose.randrange(*part.kill_every)
                if (attempts := count_attempts(url, SCOPE)) >= part.attempts:
                    break
                stuck, found = no_attempts.at(attempts), f"{part.kind}: {attempts} attempts, {count} requests"
                report.expect("the call log grows while the provider is asked", not stuck, found)
                if stuck:
                    return kills, []
        else:
            return kills, []
        stop.touch()
        return kills, [status for status in them.wait() if status != 0]


def _keyed(books: Books, told: Sequence[dict[str, str]]) -> list[KeyedCall]:
    """Every key that was asked for. A crash is an attempt that its process did not live to end."""
    answers, sent, lost = defaultdict[str, list[str]](list), Counter[str](), Counter[str]()
    status = {row.attempt.attempt_id: row.status for row in books.rows}
    for one in told:
        if one["said"] == "keyed":
            answers[one["key"]].append(one["answer"])
    for entry in books.requests:
        if (key := _key(entry)) is not None:
            sent[key] += 1
            lost[key] += status.get(entry.attempt_id or "") is AttemptStatus.UNKNOWN
    return [KeyedCall(SCOPE, key, tuple(answers[key]), sent[key], lost[key]) for key in sorted({*answers, *sent})]


def _text(entry: LogEntry) -> str:
    match entry.request:
        case {"messages": [{"content": str(text)}, *_]}:
            return text
        case _:
            return ""


def _key(entry: LogEntry) -> str | None:
    text = _text(entry)
    return text.split()[-1].rstrip(".") if "keyed" in text else None


def _mood(entry: LogEntry) -> str:
    text = _text(entry)
    if entry.kind == "embedding":
        return "embedding"
    return "keyed" if "keyed" in text else text.split()[1] if text else "other"
