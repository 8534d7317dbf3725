"""A provider that ignores max_tokens: what it gives too much is counted, and the next call is refused."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from agent_runtime import Budget, BudgetExceededError
from agent_runtime.ledger.worst_case import input_bound
from faults.report import Report
from faults.rig import ROLE, SCOPE, ShiftedClock, close_books, desk, open_books, requests_since, seen, stores
from llm_client import RequestContext, RequestSpec
from llmhub_runtime.sim import SimProcess, parse_script

MAX_TOKENS = 20
REQUEST = RequestSpec.of("How much will you give me?", role=ROLE, max_tokens=MAX_TOKENS)
BOUND = input_bound(REQUEST)
WORST = BOUND + MAX_TOKENS
GIVEN = BOUND + 3 * MAX_TOKENS
LATER_S = 3600.0
CALLERS = 40


def run(short: bool) -> Report:
    report = Report("excess")
    usage = {"prompt_tokens": BOUND, "completion_tokens": 3 * MAX_TOKENS}
    script = parse_script({"rules": [{"reply": {"answer": "more", "usage": usage, "latency_ms": 300}}]})
    with (
        tempfile.TemporaryDirectory(prefix="af-") as name,
        stores(Path(name)) as databases,
        SimProcess(script=script) as sim,
    ):
        for fits in (1, 8) if short else (1, 2, 8, 16):
            url, before = databases.fresh("sqlite"), seen(sim)
            open_books(url, Budget(scope_id=SCOPE, max_tokens_total=fits * WORST))
            admitted = asyncio.run(_flood(url, sim.openai_base))
            books = close_books(url, requests_since(sim, before), clock=ShiftedClock(LATER_S))
            report.check(books, "I1", "I2", "I4", where=f"{fits} in flight")
            excess = sum(event.excess_tokens for event in books.events)
            report.expect("as many were admitted as fit at once, and nobody after them", admitted == fits, admitted)
            report.expect(
                "the overshoot is one excess for each call in flight", excess == fits * (GIVEN - WORST), excess
            )
            report.say(
                f"a budget of {fits * WORST} tokens, {CALLERS} callers, an answer three times as long as asked: "
                f"{admitted} admitted, {excess} tokens too many, all of them recorded"
            )
    return report.end()


async def _flood(url: str, base: str) -> int:
    """How many of the callers got an answer; some come at once, the rest when those have theirs."""
    async with desk(url, base) as place:

        async def want(_: int) -> bool:
            try:
                await place.engine.complete(REQUEST, context=RequestContext(tenant_id=SCOPE))
            except BudgetExceededError:
                return False
            return True

        first = await asyncio.gather(*map(want, range(CALLERS // 2)))
        return sum(first) + sum([await want(number) for number in range(CALLERS // 2)])
