"""A served flow whose shared actor, which commits what its model calls take, is killed under load.

AGENTFLOW_ACTOR_KILLS is the number of kills at each failpoint.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from agent_runtime import Budget, EventFilter, Ledger
from agent_runtime.ledger.records import EventState
from agent_runtime.ledger.transactions import StoredTransactions, prepare_ledger
from agent_runtime.ledger.writers import SqlLedgerWriter
from llmhub_runtime.sim.log import LogEntry
from runtime_core.call_log.log import CallLog
from runtime_core.call_log.records import AttemptStatus
from runtime_core.clock import SystemClock
from runtime_core.stores import open_database
from support.commits import booked
from support.engine import check_books
from support.ledger import armed_ledger
from support.ledgers import held

from .conftest import CONFIGS, Deploy, Served
from .test_sessions import pid_of

pytestmark = pytest.mark.serve

KILLS = int(os.environ.get("AGENTFLOW_ACTOR_KILLS", "1"))
FAILPOINTS = ("ledger.before_commit", "ledger.after_commit_before_ack")
CLIENTS = 4
SCOPE = "default"
FLOW = """
version: "1.0"
metadata: {name: counted}
context: {requires: [x]}
nodes:
  ask:
    inputs: [{name: x, type: string}]
    outputs: [{name: text, type: string}]
    prompt: {template: "{{ x }}", role: llm.writer}
edges:
  - {from: _input.x, to: ask.x}
  - {from: ask.text, to: _output}
"""


async def test_kill_9_of_the_actor_under_load_leaves_a_ledger_that_equals_the_models_log(
    cluster: int, deploy: Deploy, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/run.db"
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(url))
        await prepare_ledger(database)
        log, ledger = CallLog(database, clock=SystemClock()), Ledger(SqlLedgerWriter(database))
        await ledger.set_budget(Budget(scope_id=SCOPE, max_tokens_total=10**9))
        dead, its_entry = booked(log, "dead", scope_id=SCOPE, lease_until=log.now())
        await StoredTransactions(database).reserve(dead, its_entry)
        actor = armed_ledger("counted")
        flow = tmp_path / "counted.yaml"
        flow.write_text(FLOW)
        served = await asyncio.to_thread(
            lambda: deploy(
                "counted", flow=str(flow), llmhub=str(CONFIGS / "llmhub.sim.yaml"), store=url, ledger="shared"
            )
        )
        over = asyncio.Event()
        load = [asyncio.create_task(_ask(served, number, over.is_set)) for number in range(CLIENTS)]
        for failpoint in FAILPOINTS * KILLS:
            before = await pid_of(actor)
            await actor.kill_at.remote(failpoint)
            while await pid_of(actor) == before:
                await asyncio.sleep(0.05)
        over.set()
        asked = sum(await asyncio.gather(*load))

        sent = [LogEntry.model_validate(entry) for entry in await asyncio.to_thread(served.sim_log)]
        found = (await log.attempts(SCOPE, limit=100_000)).attempts
        [lapsed], rows = [row for row in found if row.attempt == dead], [row for row in found if row.attempt != dead]
        assert lapsed.status is AttemptStatus.UNKNOWN, "the actor keeps the store in order, whoever has left it"
        check_books(rows, sent)
        assert len(sent) == len(rows) == asked > 10
        which = EventFilter(type="model", state=EventState.SETTLED)
        events = (await ledger.list_events(SCOPE, which, limit=100_000)).events
        told = {entry.attempt_id: entry.usage for entry in sent}
        assert {event.event_id for event in events} == told.keys()
        for event in events:
            usage = told[event.event_id]
            assert usage is not None
            assert (event.input_tokens, event.output_tokens) == (usage.prompt_tokens, usage.completion_tokens)
        assert await held(database, SCOPE) == (0, 0, 0)


async def _ask(served: Served, client: int, is_over: Callable[[], bool]) -> int:
    """One request after the other; how many. None of them notices that the actor dies."""
    asked = 0
    async with httpx.AsyncClient(timeout=60) as http:
        while not is_over():
            body = {"instances": [{"x": f"{client}-{asked}"}]}
            response = await http.post(f"{served.base}/v1/models/{served.model}:predict", json=body)
            assert response.status_code == 200, response.text
            asked += 1
    return asked
