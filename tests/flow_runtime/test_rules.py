"""Policy, budgets and tool limits over flows in one process, against the simulated model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_runtime import Budget, BudgetDocument, EventFilter, Ledger, PolicyDocument, load_budgets, load_policy
from agent_runtime.actions.manager import ActionManager
from agent_runtime.actions.sql_store import InMemoryActionStore, SqlActionStore
from agent_runtime.actions.store import ActionFilter
from agent_runtime.ledger.writers import SqlLedgerWriter
from agent_runtime.policy.policy_file import OF_FLOWS
from agentflow import Flow
from flow_runtime import LocalFlow, LocalSettings
from flow_runtime.governed import governed_models, under_policy
from flow_runtime.runner import FlowRunner
from llmhub_runtime import LLMHub, parse_runtime_config
from llmhub_runtime.sim import SimServer, parse_script
from runtime_core.context import Identity
from runtime_core.errors import DocumentInvalid
from runtime_core.stores import open_database
from support.flows import small_flow

FLOW = """
ask:
  inputs: [{name: x, type: string}]
  outputs: [{name: text, type: string}]
  prompt: {role: main, template: "{{ x }}", tools: [{name: look, maps_to: order, parameters: {type: object}}]}
  runtime: {timeout_ms: 8000}
order:
  inputs: [{name: id, type: string, optional: true}]
  outputs: [{name: state, type: string}]
  transform: {mode: declarative, spec: {op: io.format_response, args: {template: seen}}}
"""
EDGES = ["_input.x -> ask.x", "ask.text -> _output"]
ACME = Identity(scope_id="acme", principal_id="ann")
OTHER = Identity(scope_id="other", principal_id="ann")


def desk(**top: Any) -> Flow:
    return small_flow(FLOW, EDGES, **top)


def looks(times: int) -> dict[str, Any]:
    calls = [{"name": "look", "arguments": {}} for _ in range(times)]
    return {"match": {"last_role": "user"}, "reply": {"tool_calls": calls}}


@dataclass
class Opened:
    runner: FlowRunner
    sim: SimServer
    store: str

    async def run(self, who: Identity = ACME) -> Any:
        return await self.runner.run({"x": "hi"}, identity=who)

    def told(self) -> list[str]:
        """What the last model call heard from tools."""
        last = [entry.request for entry in self.sim.log() if isinstance(entry.request, dict)][-1]
        return [message["content"] for message in last["messages"] if message["role"] == "tool"]

    def model_calls(self) -> int:
        return len(self.sim.log())


@asynccontextmanager
async def opened(
    folder: Path, *script: Mapping[str, Any], flow: Flow | None = None, **options: Any
) -> AsyncIterator[Opened]:
    """A flow under rules; unless the script says otherwise the model answers `done`."""
    flow = flow or desk()
    store = f"sqlite:///{folder / 'af-rules.sqlite'}"
    async with SimServer() as sim:
        sim.set_script(parse_script({"rules": [*script, {"reply": {"answer": "done"}}]}))
        config = parse_runtime_config(
            {
                "project": "t",
                "env": "t",
                "providers": {"sim": {"api_base": sim.openai_base}},
                "roles": {"main": {"provider": "sim", "model": "m-1", "mode": "chat"}},
            }
        )
        async with AsyncExitStack() as stack:
            settings = await under_policy(stack, LocalSettings(store=store, **options))
            hub = await stack.enter_async_context(LLMHub(config_obj=config))
            models = await stack.enter_async_context(governed_models(flow, hub, settings))
            runner = await stack.enter_async_context(LocalFlow(flow, models=models, settings=settings))
            yield Opened(runner, sim, store)


def policy(*rules: Mapping[str, Any], **top: Any) -> PolicyDocument:
    return load_policy({"rules": list(rules), **top})


async def test_a_model_that_the_policy_denies_is_not_asked_and_the_run_says_so(tmp_path: Path):
    rule = {"kind": "model", "model_patterns": ["sim/m-*"], "denied_scopes": ["acme"], "name": "no-m"}
    async with opened(tmp_path, policy=policy(rule)) as it:
        denied, allowed = await it.run(ACME), await it.run(OTHER)
        assert denied.error is not None and denied.error.code == "policy_denied"
        assert "'no-m'" in denied.error.message
        assert allowed.output == "done" and it.model_calls() == 1


async def test_a_tool_that_the_policy_denies_is_not_called_and_the_model_is_told(tmp_path: Path):
    rule = {"kind": "tool", "tool_patterns": ["l*"], "allowed_scopes": ["other"], "reason": "ask your admin"}
    async with opened(tmp_path, looks(2), policy=policy(rule)) as it:
        assert (await it.run(ACME)).output == "done"
        assert all(json.loads(text)["error"]["code"] == "policy_denied" for text in it.told())
        assert "ask your admin" in it.told()[0]
        await it.run(OTHER)
        assert it.told() == ["seen", "seen"]


async def test_an_answer_is_bounded_by_the_policy(tmp_path: Path):
    rule = {"kind": "constraint", "model_patterns": ["*"], "max_output_tokens": 17}
    async with opened(tmp_path, policy=policy(rule)) as it:
        await it.run()
        [call] = it.sim.log()
        assert isinstance(call.request, dict) and call.request["max_completion_tokens"] == 17


async def test_a_person_is_asked_in_the_scope_of_the_run_and_the_run_goes_on(tmp_path: Path):
    rule = {"kind": "tool", "tool_patterns": ["look"], "require_approval": True}
    async with opened(tmp_path, looks(3), policy=policy(rule)) as it, open_database(it.store) as database:
        people = ActionManager(SqlActionStore(database), poll_s=0.05)
        running = asyncio.create_task(it.run())

        async with asyncio.timeout(10):
            while not (asked := await people.for_scope("acme").list()):
                await asyncio.sleep(0.01)
        [action] = asked
        assert (action.type, action.payload["name"], action.payload["principal_id"]) == ("approve", "look", "ann")
        assert await people.for_scope("other").list() == []
        await people.for_scope("acme").resolve(action_id=action.action_id, resolution={"approved": True})
        assert (await running).output == "done"
        assert it.told() == ["seen"] * 3
        assert len(await people.for_scope("acme").list(ActionFilter())) == 1


async def test_nobody_answers_in_time_and_the_call_is_refused(tmp_path: Path):
    rule = {"kind": "model", "model_patterns": ["*"], "require_approval": True}
    async with opened(tmp_path, policy=policy(rule, approval_timeout_seconds=0.05)) as it:
        report = await it.run()
        assert report.error is not None and report.error.code == "policy_denied"
        assert "nobody answered in time" in report.error.message and it.model_calls() == 0


async def test_a_tool_is_not_called_while_the_store_of_approvals_is_gone_and_the_run_may_be_tried_again(tmp_path: Path):
    store = InMemoryActionStore()
    await store.close()
    rule = {"kind": "tool", "tool_patterns": ["look"], "require_approval": True}
    async with opened(tmp_path, looks(1), policy=policy(rule), actions=ActionManager(store)) as it:
        report = await it.run()
        assert report.error is not None and report.error.code == "unavailable"
        assert "order" not in report.nodes or report.nodes["order"].attempts == 0


async def test_the_tool_calls_of_a_scope_are_counted_exactly_over_parallel_calls_and_runs(tmp_path: Path):
    budgets = BudgetDocument(budgets=(Budget(scope_id="acme", max_tool_calls_daily=10),))
    async with opened(tmp_path, looks(6), budgets=budgets) as it, open_database(it.store) as database:
        reports = await asyncio.gather(*(it.run(who) for who in (ACME, ACME, ACME, OTHER)))
        assert [report.output for report in reports] == ["done"] * 4
        ledger = Ledger(SqlLedgerWriter(database))
        calls = {scope: await ledger.usage(scope, EventFilter(type="tool")) for scope in ("acme", "other")}
        assert {scope: used.tool_calls for scope, used in calls.items()} == {"acme": 10, "other": 6}
        assert sum(used.open for used in calls.values()) == 0
        told = [message for entry in it.sim.log() for message in entry.request["messages"] if message["role"] == "tool"]
        assert sum("budget_exceeded" in message["content"] for message in told) == 8
        assert [budget.scope_id for budget in await ledger.budgets("acme")] == ["acme"]


async def test_a_person_may_allow_one_more_tool_call_of_the_run(tmp_path: Path):
    people = ActionManager(InMemoryActionStore(), poll_s=0.05)
    limited = desk(budgets={"max_tool_calls": 1}, on_exceed="ask")
    async with opened(tmp_path, looks(2), flow=limited, actions=people) as it:
        running = asyncio.create_task(it.run())
        async with asyncio.timeout(10):
            while not (asked := await people.for_scope("acme").list()):
                await asyncio.sleep(0.01)
        assert (asked[0].type, asked[0].payload["limit"]) == ("raise_budget", "max_tool_calls")
        await people.for_scope("acme").resolve(action_id=asked[0].action_id, resolution={"approved": True})
        assert (await running).output == "done" and it.told() == ["seen", "seen"]


async def test_a_budget_of_the_file_binds_model_calls(tmp_path: Path):
    budgets = BudgetDocument(budgets=(Budget(scope_id="acme", role="main", max_requests_total=1),))
    async with opened(tmp_path, budgets=budgets) as it:
        first, second, other = await it.run(), await it.run(), await it.run(OTHER)
        assert (first.output, other.output) == ("done", "done")
        assert second.error is not None and second.error.code == "budget_exceeded"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules:\n  - kind: tool\n    tool_pattern: [x]\n", "af.yaml:3: rules[0].tool_pattern is not a known key"),
        ("rules:\n  - {kind: tol, tool_patterns: [x]}\n", "af.yaml:2: rules[0].kind must be one of 'tool', 'model'"),
        ("rules:\n  - {tool_patterns: [x]}\n", "af.yaml:2: rules[0].kind is missing"),
        ("rules:\n  - kind: model\n    model_patterns: []\n", "af.yaml:3: rules[0].model_patterns"),
        ("rules:\n  - {kind: data, resource_patterns: [x]}\n", "af.yaml:2: rules[0] is a rule of kind data, which"),
        ("default: maybe\n", "af.yaml:1: default input should be 'allow' or 'deny'"),
    ],
)
def test_a_policy_that_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, said: str):
    file = tmp_path / "af.yaml"
    file.write_text(text)
    with pytest.raises(DocumentInvalid) as caught:
        load_policy(file, kinds=OF_FLOWS)
    assert said in str(caught.value)


def example(page: str, after: str) -> Any:
    """The first YAML of a page of docs/ behind these words."""
    text = (Path(__file__).parents[2] / "docs" / page).read_text()
    return yaml.safe_load(text.partition(after)[2].partition("```yaml\n")[2].partition("```")[0])


def test_the_examples_of_the_pages_are_what_they_say():
    made = load_policy(example("policy.md", "# Policy"), kinds=OF_FLOWS)
    assert [rule.kind for rule in made.rules] == ["model", "tool", "constraint", "constraint"]
    budgets = load_budgets(example("budgets.md", "## budgets.yaml"), roles={"llm.strong"})
    assert [str(budget.account) for budget in budgets.budgets][1:3] == ["principal 'ann'", "role 'llm.strong'"]
