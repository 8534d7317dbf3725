"""Prompts with tools, against the simulated model: what the model is told, what runs, and what it takes."""

from __future__ import annotations

import asyncio
import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agentflow import Flow
from flow_runtime import LocalFlow, LocalSettings
from flow_runtime.errors import CodeRefused, ToolUnknown
from flow_runtime.hub_models import local_models
from flow_runtime.tool_policy import ToolRequest
from llm_client import CallRefused
from llmhub_runtime import LLMHub, parse_runtime_config
from llmhub_runtime.sim import SimServer, parse_script
from runtime_core.report import RunReport
from support.flows import small_flow

ID = {"type": "object", "properties": {"id": {"type": "string", "maxLength": 5}}, "required": ["id"]}
LOOK = {"name": "look", "description": "Looks an order up.", "maps_to": "order", "parameters": ID}
NODES = """
ask:
  inputs: [{name: x, type: string}]
  outputs: [{name: text, type: %(type)s}]
  prompt: {role: main, template: "{{ x }}", tools: %(tools)s%(prompt)s}
  runtime: {timeout_ms: 5000%(runtime)s}
order:
  inputs: [{name: id, type: string}, {name: day, type: number, optional: true}]
  outputs: [{name: state, type: object}]
  transform:
    mode: code
    spec: |
      async def transform(inputs, context, state):
          if inputs["id"] == "gone":
              raise KeyError("no such order")
          return {"state": {"id": inputs["id"], "day": inputs["day"], "user": context.x}}
  runtime: {retries: 1}
%(more)s
"""
EDGES = ["_input.x -> ask.x", "ask.text -> _output"]


def flow_with(*tools: Mapping[str, Any], **options: str) -> Flow:
    given = {"type": "string", "prompt": "", "runtime": "", "more": ""} | options
    return small_flow(NODES % {**given, "tools": json.dumps(tools or (LOOK,))}, EDGES)


def installed_only(*tools: Mapping[str, Any]) -> Flow:
    ask = NODES.partition("order:")[0]
    return small_flow(ask % {"type": "string", "prompt": "", "runtime": "", "tools": json.dumps(tools)}, EDGES)


def call(name: str, arguments: Any = None) -> dict[str, Any]:
    return {"name": name, "arguments": {} if arguments is None else arguments}


def asks(*calls: dict[str, Any], **match: Any) -> dict[str, Any]:
    return {"match": {"last_role": "user", "role": "main"} | match, "reply": {"tool_calls": list(calls)}}


@dataclass
class Ended:
    report: RunReport
    sim: SimServer

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [dict(entry.request) for entry in self.sim.log() if isinstance(entry.request, dict)]

    @property
    def told(self) -> list[Any]:
        """What the last model call heard from tools."""
        texts = [message["content"] for message in self.bodies[-1]["messages"] if message["role"] == "tool"]
        return [json.loads(text) if text[:1] in "{[" else text for text in texts]


async def run(flow: Flow, *rules: Mapping[str, Any], **settings: Any) -> Ended:
    """One run; unless a rule says otherwise the model answers `done`."""
    roles = {name: {"provider": "sim", "model": name, "mode": "chat"} for name in ("main", "inner")}
    async with SimServer() as sim:
        sim.set_script(parse_script({"rules": [*rules, {"reply": {"answer": "done"}}]}))
        providers = {"sim": {"api_base": sim.openai_base}}
        config = parse_runtime_config({"project": "t", "env": "t", "providers": providers, "roles": roles})
        async with (
            LLMHub(config_obj=config) as hub,
            local_models(flow, hub) as models,
            LocalFlow(flow, models=models, settings=LocalSettings(**settings)) as runner,
        ):
            return Ended(await runner.run({"x": "hi"}), sim)


async def test_a_tool_is_a_node_that_runs_on_the_models_arguments_and_answers_the_model():
    ended = await run(flow_with(), asks(call("look", {"id": "a1"})))
    assert ended.report.output == "done"
    assert set(ended.report.nodes) == {"ask"}
    first, last = ended.bodies
    assert first["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "look",
                "description": "Looks an order up.",
                "parameters": {**ID, "additionalProperties": False},
            },
        }
    ]
    assert [message["role"] for message in last["messages"]] == ["user", "assistant", "tool"]
    assert ended.told == [{"id": "a1", "day": None, "user": "hi"}]


class Together:
    """Admits calls three at a time."""

    def __init__(self) -> None:
        self._barrier = asyncio.Barrier(3)

    async def admit(self, request: ToolRequest) -> None:
        await self._barrier.wait()


async def test_the_calls_of_a_turn_run_at_the_same_time_and_are_told_in_their_order():
    ended = await run(flow_with(), asks(*(call("look", {"id": each}) for each in "abc")), tool_policy=Together())
    assert ended.report.error is None
    assert [told["id"] for told in ended.told] == ["a", "b", "c"]


async def test_the_use_of_a_run_holds_every_round_and_the_models_of_its_tools():
    inner = """
write:
  inputs: [{name: id, type: string}]
  outputs: [{name: text, type: string}]
  prompt: {role: inner, template: "{{ id }}"}
"""
    flow = flow_with(LOOK, {"name": "write", "maps_to": "write", "parameters": ID}, more=inner)
    ended = await run(
        flow,
        asks(call("look", {"id": "a"})),
        {
            "match": {"role": "main", "last_role": "tool", "times": 1},
            "reply": {"tool_calls": [call("write", {"id": "b"})]},
        },
    )
    assert ended.report.output == "done"
    assert [entry.role for entry in ended.sim.log()] == ["main", "main", "inner", "main"]
    assert ended.told[1] == "done"
    assert ended.report.use.calls == ended.report.nodes["ask"].use.calls == 4
    usages = [entry.usage for entry in ended.sim.log()]
    assert ended.report.use.input_tokens == sum(usage.prompt_tokens for usage in usages if usage)


HOSTILE = [
    (call("drop_tables"), "unknown_tool", "There is no tool 'drop_tables'"),
    (call("order", {"id": "a"}), "unknown_tool", "the tools are: look"),
    (call("look", {"id": 7}), "tool_arguments_invalid", "$.id"),
    (call("look", {"id": "much too long"}), "tool_arguments_invalid", "$.id"),
    (call("look", {"id": "a", "day": 1}), "tool_arguments_invalid", "day"),
    (call("look", {}), "tool_arguments_invalid", "id"),
    (call("look", "{'id': "), "tool_arguments_invalid", "this is not JSON"),
    (call("look", '{"id": "a", "__class__": 1}'), "tool_arguments_invalid", "__class__"),
    (call("look", "[" * 5000), "tool_arguments_invalid", ""),
]


async def test_what_the_model_may_not_ask_for_is_told_to_it_and_never_runs():
    broken = flow_with()
    admitted = Recording()
    ended = await run(broken, asks(*(each for each, _, _ in HOSTILE)), tool_policy=admitted)
    assert ended.report.output == "done"
    assert [told["error"]["code"] for told in ended.told] == [code for _, code, _ in HOSTILE]
    for told, (_, _, says) in zip(ended.told, HOSTILE, strict=True):
        assert says in told["error"]["message"]
    assert admitted.seen == []


async def test_an_argument_that_does_not_fit_the_port_never_reaches_the_node():
    untyped = {"type": "object", "properties": {"id": {}, "day": {}}, "required": ["id"]}
    flow = flow_with({**LOOK, "parameters": untyped})
    ended = await run(flow, asks(call("look", {"id": ["a"]}), call("look", {"id": "a", "day": 3})))
    wrong, right = ended.told
    assert wrong["error"]["code"] == "tool_arguments_invalid"
    assert "it is an array, not a string" in wrong["error"]["message"]
    assert right["day"] == 3


async def test_the_failure_of_a_tool_is_told_to_the_model_with_its_reason():
    ended = await run(flow_with(), asks(call("look", {"id": "gone"})))
    assert ended.report.output == "done"
    assert ended.told[0]["error"]["code"] == "tool_failed"
    assert "no such order" in ended.told[0]["error"]["message"]


@dataclass
class Recording:
    """Refuses calls for the ids that it is told."""

    refused: tuple[str, ...] = ()
    seen: list[ToolRequest] = field(default_factory=list)

    async def admit(self, request: ToolRequest) -> None:
        self.seen.append(request)
        if request.arguments["id"] in self.refused:
            raise CallRefused("Not this order.", reason="policy")


async def test_every_call_passes_the_policy_first():
    policy = Recording(refused=("b",))
    ended = await run(flow_with(), asks(call("look", {"id": "a"}), call("look", {"id": "b"})), tool_policy=policy)
    assert [(each.node, each.tool, each.target, dict(each.arguments)) for each in policy.seen] == [
        ("ask", "look", "order", {"id": "a"}),
        ("ask", "look", "order", {"id": "b"}),
    ]
    assert policy.seen[0].call.context.run_id == ended.report.run_id
    assert ended.told[0]["id"] == "a"
    assert ended.told[1] == {"error": {"code": "call_refused", "message": "Not this order."}}


@pytest.mark.parametrize(("limit", "rounds"), [("", 8), (", max_tool_rounds: 2", 2)])
async def test_a_model_that_never_stops_fails_the_node_after_the_last_round(limit: str, rounds: int):
    ended = await run(flow_with(prompt=limit), {"match": {}, "reply": {"tool_calls": [call("look", {"id": "a"})]}})
    assert ended.report.error is not None
    assert ended.report.error.code == "node_failed"
    assert f"still asked for tools after {rounds} rounds" in ended.report.error.message
    assert ended.report.nodes["ask"].error is not None and ended.report.nodes["ask"].error["type"] == "error"
    assert len(ended.bodies) == rounds + 1
    assert len(ended.told) == rounds


async def test_an_answer_after_tools_must_fit_its_schema_and_is_tried_again_like_any_other():
    schema = ", output_schema: {type: object, properties: {n: {type: integer}}, required: [n]}"
    flow = flow_with(type="object", prompt=schema, runtime=", retries: 2, retry_backoff_ms: 0")
    ended = await run(
        flow,
        asks(call("look", {"id": "a"})),
        {"match": {"last_role": "tool"}, "reply": {"answers": ["no JSON", {"n": 3}]}},
    )
    assert ended.report.output == {"n": 3}
    assert ended.report.nodes["ask"].attempts == 2
    assert len(ended.bodies) == 4
    assert ended.bodies[-1]["response_format"]["json_schema"]["name"] == "ask"


async def test_the_whole_loop_stays_under_the_timeout_of_an_attempt():
    slow = {"match": {"last_role": "tool"}, "reply": {"fault": {"kind": "hang"}}}
    flow = flow_with(prompt=', fallback: {"on": timeout, static_response: later}')
    flow = flow.model_copy(
        update={
            "nodes": {
                name: node.model_copy(update={"runtime": node.runtime.model_copy(update={"timeout_ms": 400})})
                for name, node in flow.nodes.items()
            }
        }
    )
    ended = await run(flow, asks(call("look", {"id": "a"})), slow)
    assert ended.report.output == "later"


async def test_tools_of_a_subflow_are_its_own():
    inner = flow_with().model_dump(mode="json", by_alias=True, exclude_unset=True)
    nodes = f"""
order:
  type: subflow
  flow: {json.dumps(inner)}
  inputs: [{{name: x, type: string}}]
  outputs: [{{name: out, type: string}}]
"""
    ended = await run(
        small_flow(nodes, ["_input.x -> order.x", "order.out -> _output"]), asks(call("look", {"id": "a"}))
    )
    assert ended.report.output == "done"
    assert ended.told[0]["id"] == "a"
    assert ended.report.use.calls == 2


# -- installed tools ---------------------------------------------------------------------------------------------------

SOURCE = """
    from typing import Annotated

    from llm_client import Tool
    from llm_client.spec import RequestContext
    from llm_client.tools import Injected

    def add(a: int, b: int = 1) -> int:
        '''Adds two numbers.'''
        return a + b

    async def whose(context: RequestContext) -> str:
        return f"{context.node} in {context.run_id}"

    def wanting(db: Annotated[object, Injected]) -> str:
        return ""

    told = Tool(whose, name="another", description="Says who asks.")
    number = 7
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that provides tools, as an installer leaves it behind."""
    name = f"tools_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(SOURCE))
    info = tmp_path / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    entries = {"add": "add", "whose": "told", "wanting": "wanting", "number": "number", "absent": "absent"}
    lines = "".join(f"{key} = {name}:{value}\n" for key, value in entries.items())
    (info / "entry_points.txt").write_text(f"[agentflow.tools]\n{lines}")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("code", ["inline", "modules"])
async def test_a_tool_without_a_node_is_an_installed_function(code: str):
    flow = installed_only({"name": "add"}, {"name": "whose", "description": "Who"})
    ended = await run(flow, asks(call("add", {"a": 2}), call("add", {"a": "x"}), call("whose")), code=code)
    add, whose = (each["function"] for each in ended.bodies[0]["tools"])
    assert (add["name"], add["description"]) == ("add", "Adds two numbers.")
    assert set(add["parameters"]["properties"]) == {"a", "b"}
    assert (whose["name"], whose["description"]) == ("whose", "Who")
    assert ended.told[0] == "3"
    assert ended.told[1]["error"]["code"] == "tool_arguments_invalid"
    assert ended.told[2] == f"ask in {ended.report.run_id}"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["unheard", "absent", "number", "wanting"])
async def test_a_tool_that_cannot_be_had_is_named_before_anything_runs(name: str):
    with pytest.raises(ToolUnknown, match=f"node 'ask'.*{name}") as raised:
        await run(installed_only({"name": name}))
    assert raised.value.tool == name


@pytest.mark.usefixtures("installed")
async def test_a_server_without_code_has_no_installed_tools():
    with pytest.raises(CodeRefused, match="'add'"):
        await run(installed_only({"name": "add"}), code="off")
