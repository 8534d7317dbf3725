"""A thousand callers in four processes want a budget into which exactly a hundred fit."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from agent_runtime import Budget, BudgetExceededError
from agent_runtime.ledger.worst_case import input_bound
from faults.books import Books
from faults.report import Report
from faults.rig import (
    RATES,
    ROLE,
    SCOPE,
    Crew,
    Said,
    ShiftedClock,
    Stores,
    close_books,
    crew,
    desk,
    open_books,
    requests_since,
    seen,
    stores,
)
from llm_client import CallStoreError, RequestContext, RequestSpec
from llmhub_runtime.sim import SimProcess, parse_script

CALLERS, PROCESSES, FITS = 1000, 4, 100
MAX_TOKENS = 20
REQUEST = RequestSpec.of("Is there room for me?", role=ROLE, max_tokens=MAX_TOKENS)
BOUND = input_bound(REQUEST)
WORST = BOUND + MAX_TOKENS
LATER_S = 3 * 86_400.0
"""By when every lease has run out, on the clock of any process."""
SKEW_S = (0.0, 3600.0, -3600.0, 77.0)
SPREAD_S = 2.0
"""Over how long the callers of a round across a boundary come."""
PAUSE_S = 0.01


@dataclass(frozen=True, slots=True)
class Round:
    """`budget` fits FITS calls; the clocks of the processes are `shifts` off. `windows` is how many it may span."""

    name: str
    budget: Budget
    shifts: tuple[float, ...] = (0.0,) * PROCESSES
    windows: int = 1


def run(short: bool) -> Report:
    report = Report("overshoot")
    usage = {"prompt_tokens": BOUND, "completion_tokens": MAX_TOKENS}
    script = parse_script({"rules": [{"reply": {"answer": "There is.", "usage": usage}}]})
    with (
        tempfile.TemporaryDirectory(prefix="af-") as name,
        stores(Path(name)) as databases,
        SimProcess(script=script) as sim,
    ):
        folder = Path(name)
        for kind in ("sqlite", "postgres"):
            counted = Counter[str]()
            rounds = _rounds(20) if not short else _rounds(2)[kind == "postgres" :][:1]
            for number, each in enumerate(rounds):
                with crew() as them:
                    counted += _race(each, kind, number, databases, folder, sim, them, report)
            done = f"{len(rounds)} x {CALLERS:,} callers in {PROCESSES} processes on a budget for {FITS}"
            report.say(
                f"{kind}: {done}: {counted['admitted']:,} reached the provider, {counted['refused']:,} were refused, "
                f"{counted['again']:,} asked again because the store was busy"
            )
            names = ", ".join(f"{count} {what}" for what, count in Counter(each.name for each in rounds).items())
            report.say(f"{kind}: {names}")
    return report.end()


def _rounds(count: int) -> list[Round]:
    """Plain ones, and one each across the end of a minute, with clocks that differ, and with both."""
    cost = (BOUND * RATES["m"].input + MAX_TOKENS * RATES["m"].output) / 1_000_000
    plain = [
        Round("tokens a day", Budget(scope_id=SCOPE, max_tokens_daily=FITS * WORST)),
        Round("dollars in all", Budget(scope_id=SCOPE, max_cost_total=_whole(cost))),
        Round("requests of a role", Budget(scope_id=SCOPE, role=ROLE, max_requests_monthly=FITS)),
    ]
    minute = Budget(scope_id=SCOPE, max_requests_per_minute=FITS)
    total = Budget(scope_id=SCOPE, principal_id="ann", max_tokens_total=FITS * WORST)
    special = [
        Round("across the end of a minute", minute, windows=2),
        Round("in all, with clocks up to an hour off", total, SKEW_S),
    ]
    if count > 2:
        special.append(Round("across the end of a minute, clocks 0.2 s apart", minute, (0.0, 0.2, -0.2, 0.1), 2))
    return [*special, *(plain[number % len(plain)] for number in range(count - len(special)))]


def _whole(cost_of_one: Decimal) -> Decimal:
    """FITS times what the ledger reserves for one, which it rounds to whole micro-dollars."""
    return FITS * cost_of_one.quantize(Decimal("0.000001"), "ROUND_HALF_UP")


def _race(
    each: Round, kind: str, number: int, databases: Stores, folder: Path, sim: SimProcess, them: Crew, report: Report
) -> Counter[str]:
    url, said = databases.fresh(kind), Said(folder / f"{kind}{number}.said")
    start = time.monotonic() + 0.3
    spread_s = SPREAD_S if each.windows > 1 else 0.0
    base = _shift_to_boundary(start + spread_s / 2) if each.windows > 1 else 0.0
    before = seen(sim)
    open_books(url, each.budget, clock=ShiftedClock(base))
    for process, shift in enumerate(each.shifts):
        times = (start, spread_s)
        them.fork(_callers(url, sim.openai_base, ShiftedClock(base + shift), times, said, process))
    ends = them.wait()
    where = f"{kind}, round {number} ({each.name})"
    report.expect("every process of a race ends well", ends == [0] * PROCESSES, where)
    books = close_books(url, requests_since(sim, before), clock=ShiftedClock(base + LATER_S))
    report.check(books, "I1", "I2", "I4", where=where)
    told = said.all()
    counted = Counter[str](one["said"] for one in told)
    _judge(each, books, told, counted, report, where)
    return counted + Counter(again=sum(one["again"] for one in told))


def _judge(
    each: Round, books: Books, told: list[dict[str, object]], counted: Counter[str], report: Report, where: str
) -> None:
    admitted, sent = counted["admitted"], len(books.requests)
    report.expect(
        "whoever was admitted reached the provider, nobody else did", admitted == sent, f"{where}: {admitted}, {sent}"
    )
    everybody = counted["admitted"] + counted["refused"]
    report.expect("everybody was admitted or refused", everybody == CALLERS, f"{where}: {dict(counted)}")
    if each.windows == 1:
        report.expect(f"exactly {FITS} were admitted", admitted == FITS, f"{where}: {admitted}")
    reasons = {(one["reason"], one["limit"], one["status"]) for one in told if one["said"] == "refused"}
    [limit] = [limit.name for limit in each.budget.limits()]
    status = 402 if limit.endswith("total") else 429
    report.expect(
        "every refusal says which limit, and 402 or 429", reasons == {("budget_exceeded", limit, status)}, reasons
    )
    if each.windows > 1:
        by_minute = Counter(event.timestamp.strftime("%H:%M") for event in books.events if event.type == "model")
        full = {minute for minute, count in by_minute.items() if count == FITS}
        false = [one for one in told if one["said"] == "refused" and one["minute"] and one["minute"] not in full]
        report.expect("nobody was refused in a minute that was not full", not false, f"{where}: {len(false)}")
        report.expect("each minute admitted no more than fit", max(by_minute.values()) <= FITS, f"{where}: {by_minute}")


def _shift_to_boundary(moment: float) -> float:
    """What a clock must be off by to begin a minute at `moment` of the monotonic clock."""
    at = time.time() + moment - time.monotonic()
    return 60 - at % 60


async def _callers(
    url: str, base: str, clock: ShiftedClock, times: tuple[float, float], said: Said, process: int
) -> None:
    """`times` are when the first one begins, and how many seconds later the last one."""
    start, spread_s = times
    callers = CALLERS // PROCESSES
    async with desk(url, base, clock=clock) as place:
        await place.engine.warm_up([ROLE])
        await asyncio.sleep(start - time.monotonic())

        async def want(number: int) -> None:
            context = RequestContext(tenant_id=SCOPE, user_id="ann", run_id=f"run-{process}-{number}")
            again = 0
            await asyncio.sleep(spread_s * number / callers)
            while True:
                before = clock.now()
                try:
                    await place.engine.complete(REQUEST, context=context)
                    said.say(said="admitted", again=again)
                except CallStoreError:  # nothing was sent: the store's trouble is no refusal
                    again += 1
                    await asyncio.sleep(PAUSE_S)
                    continue
                except BudgetExceededError as exc:
                    minute = _one_minute(before, clock.now())
                    facts = {"reason": exc.reason, "limit": exc.limit, "status": exc.status, "minute": minute}
                    said.say(said="refused", again=again, **facts)
                return

        await asyncio.gather(*(want(number) for number in range(callers)))


def _one_minute(before: datetime, after: datetime) -> str | None:
    """The minute that both are in."""
    names = {moment.astimezone(UTC).strftime("%H:%M") for moment in (before, after)}
    return names.pop() if len(names) == 1 else None
