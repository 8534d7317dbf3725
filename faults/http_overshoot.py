"""A thousand requests at once on a served flow with three predictors, and a budget into which exactly a hundred fit."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent_runtime import Budget
from faults.report import Report
from faults.rig import ShiftedClock, Stores, close_books, open_books, requests_since, seen, set_budgets, stores
from faults.served import PATIENCE_S, Door, flow_of, hub_document, new_key
from llmhub_runtime.sim import SimProcess

REQUESTS, FITS, PREDICTORS = 1000, 100, 3
LATER_S = 3600.0
PAUSE_S = 0.1
LIMITS: tuple[Mapping[str, Any], ...] = (
    {"max_requests_total": FITS},
    {"max_requests_daily": FITS},
    {"max_turns_monthly": FITS},
)


def run(short: bool) -> Report:
    from benchmarks.cluster import cluster

    report = Report("http_overshoot")
    kinds = ("sqlite",) if short else ("sqlite", "postgres")
    with tempfile.TemporaryDirectory(prefix="af-") as name, stores(Path(name)) as databases, SimProcess() as sim:
        urls = {kind: _store(databases, kind) for kind in kinds}
        with cluster() as ray:
            ray.deploy(**{kind: _app(kind, url, sim) for kind, url in urls.items()})
            for kind, url in urls.items():
                door = Door(ray.port, kind, kind)
                for number, limits in enumerate(LIMITS[:1] if short else LIMITS):
                    race(f"round-{number}", limits, url=url, door=door, sim=sim, report=report, where=kind)
    return report.end()


def _store(databases: Stores, kind: str) -> str:
    url = databases.fresh(kind)
    open_books(url)
    return url


def _app(name: str, url: str, sim: SimProcess) -> Any:
    from agentflow_serve import AppArgs, app

    args = {"llmhub": hub_document(sim.openai_base), "store": url, "placement": "inline", "auth": "keys"}
    limits = {"deadline_s": PATIENCE_S}
    return app(AppArgs.model_validate({"flow": flow_of(name, predictors=PREDICTORS), "limits": limits, **args}))


def race(
    scope_id: str,
    limits: Mapping[str, Any],
    *,
    url: str,
    door: Door,
    sim: SimProcess,
    report: Report,
    where: str,
    requests: int = REQUESTS,
    fits: int = FITS,
) -> None:
    """One round: a scope of its own, whose budget has these limits."""
    where = f"{where}, {scope_id}"
    before, door = seen(sim), replace(door, key=new_key(url, scope_id))
    set_budgets(url, Budget.model_validate({"scope_id": scope_id, **limits}))
    answers = asyncio.run(_all_at_once(door, requests))
    books = close_books(url, requests_since(sim, before), clock=ShiftedClock(LATER_S), scope_id=scope_id)
    report.check(books, "I1", "I2", "I4", where=where)
    statuses = Counter(status for status, _, _ in answers)
    [limit] = limits
    window = limit.rsplit("_", 1)[1]
    status = 402 if window == "total" else 429
    wanted = {200: fits, status: requests - fits}
    odd = [(code, body) for code, body, _ in answers if code not in wanted][:3]
    what = "as many are answered as fit, and everybody else is refused"
    report.expect(what, statuses == wanted, f"{where}: {dict(statuses)}, {odd}")
    report.expect("as many reach the provider as fit", len(books.requests) == fits, f"{where}: {len(books.requests)}")
    reasons = {(body.get("code"), body.get("reason"), body.get("limit")) for code, body, _ in answers if code == status}
    said = {("budget_exceeded", "budget_exceeded", limit)}
    report.expect("every refusal is 402 or 429 and says which limit", reasons == said, f"{where}: {reasons}")
    again = sum(asked - 1 for _, _, asked in answers)
    report.say(
        f"{where}: {requests:,} requests at once on {limit} = {fits}: {statuses[200]} answered, {statuses[status]} "
        f"refused with {status}, {again} asked again after a 503"
    )


async def _all_at_once(door: Door, requests: int) -> list[tuple[int, dict[str, Any], int]]:
    async def want(number: int) -> tuple[int, dict[str, Any], int]:
        asked = 0
        while True:
            asked += 1
            status, body = await door.ask(f"Is there room for request {number}?")
            if status not in (0, 503) or asked > 100:
                return status, body, asked
            await asyncio.sleep(PAUSE_S)

    return await asyncio.gather(*map(want, range(requests)))
