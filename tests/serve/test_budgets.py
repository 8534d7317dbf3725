"""Budgets on the real proxy and replicas: who has spent too much is told so, and by which limit."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent_runtime import Budget, EventFilter, Ledger
from agent_runtime.ledger.writers import SqlLedgerWriter
from runtime_core.stores import open_database

from .conftest import Deploy

pytestmark = pytest.mark.serve

FLOW = """
version: "1.0"
metadata: {name: thrifty}
context: {requires: [text]}
budgets: {max_tokens: 200}
nodes:
  say:
    inputs: [{name: text, type: string}]
    outputs: [{name: said, type: string}]
    prompt: {role: thrifty, template: "{{ text }}", max_tokens: 20}
    runtime: {retries: 3}
edges:
  - {from: _input.text, to: say.text}
  - {from: say.said, to: _output}
"""
LLMHUB = """
project: t
env: t
providers: {sim: {}}
roles: {thrifty: {provider: sim, model: small, mode: chat}}
"""
ROLE = Budget(role="thrifty", max_requests_daily=2)


def test_a_budget_that_is_spent_is_402_or_429_and_says_which_limit_it_was(deploy: Deploy, store: str, tmp_path: Path):
    flow, llmhub = tmp_path / "thrifty.yaml", tmp_path / "llmhub.yaml"
    flow.write_text(FLOW)
    llmhub.write_text(LLMHUB)
    served = deploy("thrifty", flow=str(flow), llmhub=str(llmhub))
    asyncio.run(_limit(store))

    refused = served.predict({"text": "x" * 300})
    body = refused.json()
    assert (refused.status_code, body["code"], body["node"]) == (402, "budget_exceeded", "say")
    assert (body["reason"], body["limit"], body["window"]) == ("too_large", "max_tokens_total", "total")
    assert body["retry_after"] is None and "retry-after" not in refused.headers

    replies = [served.predict({"text": "hi"}) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    body = replies[-1].json()
    assert (body["reason"], body["limit"], body["window"]) == ("budget_exceeded", "max_requests_daily", "daily")
    assert 0 < int(replies[-1].headers["retry-after"]) <= 86_400

    calls, left = asyncio.run(_accounts(store))
    assert calls == [entry["attempt_id"] for entry in served.sim_log()]
    assert left == [ROLE], "no run has left its budget behind"


async def _limit(store: str) -> None:
    async with open_database(store) as database:
        await Ledger(SqlLedgerWriter(database)).set_budget(ROLE)


async def _accounts(store: str) -> tuple[list[str], list[Budget]]:
    """The calls of the role in the ledger, and the budgets that are there."""
    async with open_database(store) as database:
        ledger = Ledger(SqlLedgerWriter(database))
        page = await ledger.list_events("default", EventFilter(type="model", role="thrifty"))
        return [event.event_id for event in page.events], await ledger.budgets("default")
