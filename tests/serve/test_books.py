"""The short form of `make faults` on a cluster: processes die while clients ask, and many want what fits a few."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.cluster import ask_while_killing, provider_script
from faults.http_overshoot import race
from faults.report import Report
from faults.rig import ShiftedClock, close_books, open_books, requests_since
from faults.served import Door, flow_of, hub_document, new_key

from agent_runtime import Budget
from llmhub_runtime.sim import SimProcess

from .conftest import Deploy

pytestmark = pytest.mark.serve


def test_the_books_are_true_when_a_replica_is_killed_and_when_a_budget_is_stormed(
    cluster: int, deploy: Deploy, tmp_path: Path
):
    report, url = Report("books"), f"sqlite:///{tmp_path}/books.db"
    open_books(url, Budget(scope_id="soaked", max_tokens_daily=10**12))
    with SimProcess(script=provider_script()) as sim:
        flow = flow_of("books", predictors=1, replicas=1)
        served = deploy("books", flow=flow, llmhub=hub_document(sim.openai_base), store=url, auth="keys")
        door = Door(cluster, served.app, served.model, key=new_key(url, "soaked"))
        ask_while_killing(door, sim, report, attempts=80, every_s=1.0, kinds=frozenset({"node replica"}), most=1)
        books = close_books(url, requests_since(sim, 0), clock=ShiftedClock(3600), scope_id="soaked")
        report.check(books, "I1", "I2", "I4")
        limits = {"max_requests_daily": 10}
        race("stormed", limits, url=url, door=door, sim=sim, report=report, where="served", requests=60, fits=10)
    assert report.violations == []
    assert len(books.requests) >= 60
