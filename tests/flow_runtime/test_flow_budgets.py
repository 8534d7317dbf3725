"""Budgets of flows: what one run may use, what happens when that is not enough, and that the ledger saw everything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import (
    ActionFilter,
    ActionManager,
    ActionStatus,
    Budget,
    BudgetExceededError,
    EventFilter,
    InMemoryActionStore,
    Ledger,
    PolicyDenied,
)
from agent_runtime.actions.records import ActionRecord, ActionSpec
from agent_runtime.ledger.writers import SqlLedgerWriter
from agentflow import Flow
from agentflow.errors import FlowInvalid
from flow_runtime import LocalFlow, LocalSettings, run
from flow_runtime.exceeding import _answered  # pyright: ignore[reportPrivateUsage]
from flow_runtime.hub_models import HubModels
from flow_runtime.runner import FlowRunner
from llm_client.guard import Guard
from llmhub_runtime import LLMHub, parse_runtime_config
from llmhub_runtime.sim import SimServer, parse_script
from runtime_core.context import Identity
from runtime_core.errors import StoreUnavailableError
from runtime_core.report import RunReport
from runtime_core.stores.memory import MemoryDatabase
from runtime_core.stores.sql import Op, Sql
from runtime_core.stores.url import open_database
from support.flows import small_flow

ANN = Identity(scope_id="acme", principal_id="ann")
ROLES = {
    "main": {"provider": "sim", "model": "big", "mode": "chat", "price": {"input": "10", "output": "1000"}},
    "small": {"provider": "sim", "model": "small", "mode": "chat", "price": {"input": "0.01", "output": "0.01"}},
    "judge": {"provider": "sim", "model": "strict", "mode": "chat"},
    "unpriced": {"provider": "openai", "model": "nobody-knows-it", "mode": "chat"},
    "near": {"provider": "sim", "model": "e", "mode": "embedding"},
}
ASK = """
ask:
  inputs: [{name: x, type: string}]
  outputs: [{name: text, type: string}]
  error: {name: failed}
  prompt: {role: main, template: "{{ x }}", max_tokens: 20%s}
  runtime: {retries: 3, retry_backoff_ms: 0%s}
"""
EDGES = ["_input.x -> ask.x", "ask.text -> _output"]
EACH = """
each:
  inputs: [{name: x, type: array}]
  outputs: [{name: text, type: array}]
  for_each: {input: x, max_parallel: 8, on_item_error: collect}
  prompt: {role: main, template: "{{ x }}", max_tokens: 20}
  runtime: {retries: 2}
"""
EACH_EDGES = ["_input.x -> each.x", "each.text -> _output"]


def asking(prompt: str = "", runtime: str = "", **top: Any) -> Flow:
    return small_flow(ASK % (prompt, runtime), EDGES, **top)


@dataclass
class Place:
    """Where flows run against a simulated model, on one ledger."""

    sim: SimServer
    hub: LLMHub
    database: MemoryDatabase
    ledger: Ledger
    actions: ActionManager

    @asynccontextmanager
    async def opened(self, flow: Flow, guard: Guard | None = None) -> AsyncIterator[FlowRunner]:
        settings = LocalSettings(store="memory:", actions=self.actions)
        async with (
            HubModels(self.hub, database=self.database, guard=guard) as models,
            LocalFlow(flow, models=models, settings=settings) as runner,
        ):
            yield runner

    async def run(self, flow: Flow, x: Any = "hi", **options: Any) -> RunReport:
        async with self.opened(flow) as runner:
            return await runner.run({"x": x}, identity=ANN, **options)

    def script(self, *rules: Mapping[str, Any]) -> None:
        self.sim.set_script(parse_script({"rules": list(rules)}))

    @property
    def asked(self) -> list[str]:
        return [entry.role or "" for entry in self.sim.log()]

    async def nothing_is_left(self) -> None:
        """Of the runs: their budgets and counters are gone, and nothing is held back."""

        def rows() -> Op[list[tuple[Any, ...]]]:
            runs = yield Sql("SELECT run_id FROM ledger_runs")
            budgets = yield Sql("SELECT run_id FROM ledger_budgets WHERE run_id <> ''")
            counters = yield Sql("SELECT run_id FROM ledger_counters WHERE run_id <> ''")
            return [*runs, *budgets, *counters]

        assert await self.database.read(rows) == []
        assert (await self.ledger.usage("acme")).open == 0


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with SimServer() as sim, MemoryDatabase() as database:
        providers = {"sim": {"api_base": sim.openai_base}, "openai": {"api_base": sim.openai_base}}
        document = {"project": "t", "env": "t", "providers": providers, "roles": ROLES, "judge": "judge"}
        async with LLMHub(config_obj=parse_runtime_config(document)) as hub:
            writer = SqlLedgerWriter(database)
            await writer.prepare()
            actions = ActionManager(InMemoryActionStore(), poll_s=0.02)
            yield Place(sim, hub, database, Ledger(writer), actions)


async def test_of_n_branches_exactly_as_many_reach_the_model_as_the_budget_fits(place: Place) -> None:
    flow = small_flow(EACH, EACH_EDGES, budgets={"max_turns": 5})
    report = await place.run(flow, list("abcdefgh"))
    assert report.error is None
    answers = [each for each in report.output if isinstance(each, str)]
    refused = [each for each in report.output if not isinstance(each, str)]
    assert (len(answers), len(refused), len(place.asked)) == (5, 3, 5)
    for failure in refused:
        assert (failure["type"], failure["attempts"]) == ("budget_exceeded", 1)
        expected = {"reason": "budget_exceeded", "limit": "max_turns_total", "window": "total", "retry_after": None}
        assert failure["refused"] == expected
    await place.nothing_is_left()


async def test_the_budget_is_that_of_one_run(place: Place) -> None:
    flow = asking(budgets={"max_turns": 1})
    async with place.opened(flow) as runner:
        reports = await asyncio.gather(*(runner.run({"x": "hi"}, identity=ANN) for _ in range(4)))
    assert [report.error for report in reports] == [None] * 4


async def test_a_run_that_has_to_stop_says_which_limit_it_was(place: Place) -> None:
    for budgets, reason, limit in (
        ({"max_tokens": 10}, "too_large", "max_tokens_total"),
        ({"max_cost": 0.000001}, "too_large", "max_cost_total"),
    ):
        report = await place.run(asking(budgets=budgets))
        assert report.error is not None and report.error.refused is not None
        assert (report.error.code, report.error.node, report.error.retry_after) == ("budget_exceeded", "ask", None)
        assert (report.error.refused.reason, report.error.refused.limit) == (reason, limit)
    unpriced = small_flow(ASK.replace("role: main", "role: unpriced") % ("", ""), EDGES, budgets={"max_cost": 5})
    report = await place.run(unpriced)
    assert report.error is not None and report.error.refused is not None
    assert report.error.refused.reason == "no_price"
    assert place.asked == []


async def test_a_window_of_the_scope_says_when_to_come_back(place: Place) -> None:
    await place.ledger.set_budget(Budget(scope_id="acme", max_requests_daily=1))
    flow = asking()
    assert (await place.run(flow)).error is None
    report = await place.run(flow)
    assert report.error is not None and report.error.refused is not None
    assert report.error.code == "budget_exceeded" and report.error.refused.window == "daily"
    assert 0 < (report.error.retry_after or 0) <= 86_400
    assert report.nodes["ask"].attempts == 1, "nothing is tried again, and nobody waits for tomorrow"


async def test_a_judge_a_repair_and_an_agent_are_refused_like_the_prompt_itself(place: Place) -> None:
    patient = ", timeout_ms: 120000"  # the first one imports mellea
    judged = asking(", requirements: [{text: be kind}]", patient, budgets={"max_turns": 1})
    short = ", requirements: [{text: be short, check: len(value) < 3}]"
    repaired = asking(short, patient, budgets={"max_turns": 1})
    agent = """
ask:
  inputs: [{name: x, type: string}]
  outputs: [{name: text, type: string}]
  transform: {mode: declarative, spec: {op: agent.chain, args: {input: "${x}", agents: [main, small]%s}}}
"""
    own = small_flow(agent % ", budgets: {max_turns: 1}", EDGES, budgets={"max_turns": 9})
    for flow in (judged, repaired, small_flow(agent % "", EDGES, budgets={"max_turns": 1}), own):
        before = len(place.asked)
        report = await place.run(flow)
        assert report.error is not None and report.error.refused is not None
        assert (report.error.code, report.error.refused.reason) == ("budget_exceeded", "budget_exceeded")
        assert len(place.asked) - before == 1


async def test_a_local_run_keeps_its_ledger_where_the_settings_say(place: Place, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    report = await run(asking(budgets={"max_turns": 1}), {"x": "hi"}, hub=place.hub, settings=LocalSettings(ledger=url))
    assert report.error is None
    async with open_database(url) as database:
        usage = await Ledger(SqlLedgerWriter(database)).usage("default")
    assert (usage.requests, usage.total_tokens) == (1, report.use.input_tokens + report.use.output_tokens)


async def test_an_error_port_takes_a_refusal(place: Place) -> None:
    flow = small_flow(ASK % ("", ""), ["_input.x -> ask.x", "ask.failed -> _output"], budgets={"max_tokens": 5})
    report = await place.run(flow)
    assert report.error is None
    assert (report.output["type"], report.output["refused"]["limit"]) == ("budget_exceeded", "max_tokens_total")


async def test_a_policys_no_has_its_own_code(place: Place) -> None:
    class Strict:
        async def begin(self, attempt: Any, request: Any) -> Any:
            raise PolicyDenied("no such model here", scope_id=attempt.scope_id, reason="deny", rule="r1")

    async with place.opened(asking(), guard=Strict()) as runner:
        report = await runner.run({"x": "hi"}, identity=ANN)
    assert report.error is not None and report.error.refused is not None
    assert (report.error.code, report.error.refused.reason) == ("policy_denied", "deny")
    assert (place.asked, report.nodes["ask"].attempts) == ([], 1)


async def test_what_no_longer_fits_is_asked_of_the_lesser_role(place: Place) -> None:
    top = {"on_exceed": "degrade", "budgets": {"max_cost": 0.021, "degrade_role": "small"}}
    report = await place.run(small_flow(EACH.replace("8", "1"), EACH_EDGES, **top), ["a", "b", "c"])
    assert report.error is None and all(isinstance(each, str) for each in report.output)
    assert place.asked == ["main", "small", "small"]
    tiny = {"on_exceed": "degrade", "budgets": {"max_tokens": 5, "degrade_role": "small"}}
    report = await place.run(asking(**tiny))
    assert report.error is not None and report.error.code == "budget_exceeded"
    assert len(place.asked) == 3, "what does not fit the lesser role either stops"


async def the_open_ones(actions: ActionManager, number: int) -> list[ActionRecord]:
    found: list[ActionRecord] = []
    async with asyncio.timeout(10):
        while len(found) < number:
            await asyncio.sleep(0.005)
            found = await actions.for_scope("acme").list(ActionFilter(status=ActionStatus.PENDING))
    return found


@pytest.mark.parametrize(
    ("resolution", "answered"),
    [
        ({"approved": True}, 8),
        ({"approved": True, "max_turns": 6}, 6),
        ({"approved": True, "max_turns": 2}, 4),
        ({"approved": True, "max_turns": "lots"}, 4),
        ({"approved": False, "max_turns": 9}, 4),
    ],
)
async def test_a_person_may_raise_the_budget(place: Place, resolution: dict[str, Any], answered: int) -> None:
    flow = small_flow(EACH, EACH_EDGES, budgets={"max_turns": 4}, on_exceed="ask")
    run = asyncio.create_task(place.run(flow, list("abcdefgh")))
    actions = place.actions.for_scope("acme")
    [question] = await the_open_ones(place.actions, 1)
    assert question.type == "raise_budget"
    assert {"limit": "max_turns", "allowed": 4.0, "missing": 1.0, "node": "each"}.items() <= question.payload.items()
    await actions.resolve(action_id=question.action_id, resolution=resolution)
    if answered == 6:
        [again] = await the_open_ones(place.actions, 1)
        assert again.payload["allowed"] == 6.0
        await actions.resolve(action_id=again.action_id, resolution={"approved": False})
    report = await run
    assert report.error is None
    assert sum(isinstance(each, str) for each in report.output) == len(place.asked) == answered
    await place.nothing_is_left()


async def test_an_answer_that_no_ledger_can_count_raises_nothing(place: Place) -> None:
    flow = asking(budgets={"max_tokens": 5}, on_exceed="ask")
    run = asyncio.create_task(place.run(flow))
    [question] = await the_open_ones(place.actions, 1)
    resolution = {"approved": True, "max_tokens": 2**60}
    await place.actions.for_scope("acme").resolve(action_id=question.action_id, resolution=resolution)
    report = await run
    assert report.error is not None and report.error.code == "budget_exceeded"
    with pytest.raises(FlowInvalid, match="max_tokens"):
        asking(budgets={"max_tokens": 2**60})


@pytest.mark.parametrize("nested", [False, True])
async def test_a_store_that_is_gone_while_a_person_decides_is_unavailable(place: Place, nested: bool) -> None:
    class Away:
        async def begin(self, attempt: Any, request: Any) -> Any:
            raise StoreUnavailableError("the store of approvals is away")

    flow = asking()
    if nested:
        inner = flow.model_dump(mode="json", by_alias=True, exclude_unset=True)
        sub = {
            "type": "subflow",
            "inputs": [{"name": "x", "type": "string"}],
            "outputs": [{"name": "text", "type": "string"}],
            "flow": inner,
        }
        flow = Flow.model_validate({**inner, "nodes": {"ask": sub}})
    async with place.opened(flow, guard=Away()) as runner:
        report = await runner.run({"x": "hi"}, identity=ANN)
    assert report.error is not None
    failed = report.nodes["ask"].error
    assert failed is not None and failed["type"] == "unavailable"


async def test_a_call_that_is_given_up_leaves_the_question_to_the_others(place: Place) -> None:
    refused = BudgetExceededError("no room", run_id="r", limit="max_turns_total", allowed=1.0, missing=1.0)
    spec = ActionSpec(type="raise_budget", action_id="budget-1", payload={"limit": "max_turns"})
    actions = place.actions.for_scope("acme")
    first, second = (asyncio.create_task(_answered(spec, actions, refused)) for _ in range(2))
    await the_open_ones(place.actions, 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await actions.resolve(action_id="budget-1", resolution={"approved": True})
    assert (await second).is_granted


async def test_a_run_that_is_given_up_leaves_no_question_behind(place: Place) -> None:
    run = asyncio.create_task(place.run(asking(budgets={"max_tokens": 5}, on_exceed="ask")))
    [question] = await the_open_ones(place.actions, 1)
    assert question.expires_at is not None, "nobody withdraws it when the process dies"
    run.cancel()
    await asyncio.wait([run])
    assert (await place.actions.for_scope("acme").get(question.action_id)).status is ActionStatus.CANCELLED


async def test_a_question_does_not_use_up_the_time_of_the_attempt_and_expires_with_the_run(place: Place) -> None:
    flow = asking(runtime=", timeout_ms: 500", budgets={"max_tokens": 30}, on_exceed="ask")
    run = asyncio.create_task(place.run(flow))
    [question] = await the_open_ones(place.actions, 1)
    await asyncio.sleep(0.7)  # longer than the attempt may take
    assert not run.done()
    actions = place.actions.for_scope("acme")
    await actions.resolve(action_id=question.action_id, resolution={"confirmed": True, "max_tokens": 500})
    assert (await run).error is None
    report = await place.run(flow, deadline_s=0.3)
    assert report.error is not None and report.error.code in ("deadline_exceeded", "budget_exceeded")
    assert place.asked


async def test_a_run_is_held_as_a_whole_or_refused_before_anything_is_called(place: Place) -> None:
    await place.ledger.set_budget(Budget(scope_id="acme", max_tokens_daily=1000))
    place.script({"reply": {"answer": "ok", "latency_ms": 150}})
    flow = small_flow(EACH, EACH_EDGES, budgets={"max_tokens": 400, "reserve": "run"})
    async with place.opened(flow) as runner:
        reports = await asyncio.gather(*(runner.run({"x": ["a"]}, identity=ANN) for _ in range(5)))
        refused = [report.error for report in reports if report.error is not None]
        assert (len(reports) - len(refused), len(place.asked)) == (2, 2)
        for error in refused:
            assert error.refused is not None and error.code == "budget_exceeded"
            assert (error.refused.limit, error.refused.window, error.node) == ("max_tokens_daily", "daily", None)
        assert (await runner.run({"x": ["a"]}, identity=ANN)).error is None, "the rest was given back"
    usage = await place.ledger.usage("acme", EventFilter(type="model"))
    everything = await place.ledger.usage("acme")
    assert usage.total_tokens == everything.total_tokens > 0 and everything.open == 0
    await place.nothing_is_left()


async def test_a_subflow_counts_for_its_run(place: Place) -> None:
    inner = asking(budgets={"max_turns": 5}).model_dump(mode="json", by_alias=True, exclude_unset=True)
    plain = {key: value for key, value in inner.items() if key != "budgets"}
    for each in (inner, plain):
        outer = {
            "version": "1.0",
            "metadata": {"name": "outer"},
            "context": {"requires": ["x"]},
            "nodes": {
                "sub": {
                    "type": "subflow",
                    "inputs": [{"name": "x", "type": "array"}],
                    "outputs": [{"name": "text", "type": "array"}],
                    "for_each": {"input": "x", "on_item_error": "collect"},
                    "flow": each,
                }
            },
            "edges": [{"from": "_input.x", "to": "sub.x"}, {"from": "sub.text", "to": "_output"}],
            "budgets": {"max_turns": 2},
        }
        before = len(place.asked)
        report = await place.run(Flow.model_validate(outer), ["a", "b", "c", "d"])
        assert report.error is None
        assert len(place.asked) - before == 2
        refused = [each for each in report.output if not isinstance(each, str)]
        assert [failure["type"] for failure in refused] == ["budget_exceeded"] * 2
        assert refused[0]["refused"]["limit"] == "max_turns_total"
        await place.nothing_is_left()


async def test_tool_calls_are_counted_and_one_too_many_is_told_to_the_model(place: Place) -> None:
    takes = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
    tools = f", tools: {json.dumps([{'name': 'look', 'maps_to': 'order', 'parameters': takes}])}"
    order = """
order:
  inputs: [{name: id, type: string}]
  outputs: [{name: state, type: string}]
  transform: {mode: declarative, spec: {op: io.format_response, args: {template: "${id}"}}}
"""
    place.script(
        {
            "match": {"role": "main", "times": 4},
            "reply": {"tool_calls": [{"name": "look", "arguments": {"id": "a"}}]},
        },
        {"reply": {"answer": "done"}},
    )
    flow = small_flow(ASK % (tools, "") + order, EDGES, budgets={"max_tool_calls": 3})
    report = await place.run(flow)
    assert report.output == "done"
    [*_, last] = [entry.request for entry in place.sim.log() if isinstance(entry.request, dict)]
    told = [message["content"] for message in last["messages"] if message["role"] == "tool"]
    assert told[:3] == ["a"] * 3 and "max_tool_calls_total of run" in told[3]
    assert (await place.ledger.usage("acme")).tool_calls == 3
    await place.nothing_is_left()


async def test_the_time_of_a_run_is_its_deadline(place: Place) -> None:
    place.script({"reply": {"fault": {"kind": "hang"}}})
    report = await place.run(asking(budgets={"max_runtime_seconds": 0.2}))
    assert report.error is not None and report.error.code == "deadline_exceeded"
    await place.nothing_is_left()


async def test_the_ledger_has_what_the_model_saw_answer_by_answer(place: Place) -> None:
    nodes = """
ask:
  inputs: [{name: x, type: string}]
  outputs: [{name: text, type: string}]
  prompt: {role: main, template: "{{ x }}", requirements: [{text: be kind}, {text: be short, check: len(value) < 3}]}
  runtime: {retries: 2, retry_backoff_ms: 0}
"""
    place.script(
        {"match": {"role": "main", "nth": 1}, "reply": {"fault": {"kind": "error", "status": 503}}},
        {"match": {"role": "main", "nth": 2}, "reply": {"answer": "much too long"}},
        {"match": {"role": "main"}, "reply": {"answer": "ok"}},
        {"match": {"role": "judge"}, "reply": {"answer": "yes"}},
    )
    async with place.opened(small_flow(nodes, EDGES, budgets={"max_tokens": 100_000})) as runner:
        report = await runner.run({"x": "hi"}, identity=ANN)
    assert report.output == "ok"
    async with HubModels(place.hub, database=place.database) as models:
        await models.embed("near", ["some text"])
    logged = {entry.attempt_id: entry for entry in place.sim.log()}
    assert {entry.role for entry in logged.values()} == {"main", "judge", "near"}
    page = await place.ledger.list_events("acme", EventFilter(type="model"))
    other = await place.ledger.list_events("default", EventFilter(type="model"))
    events = {event.event_id: event for event in (*page.events, *other.events)}
    assert events.keys() == logged.keys()
    for attempt_id, entry in logged.items():
        if entry.usage is not None:
            told = (entry.usage.prompt_tokens, entry.usage.completion_tokens)
            assert (events[attempt_id].input_tokens, events[attempt_id].output_tokens) == told
