"""The samples of ir-compilation.md, one test each, named after their headings; IR.md, section 3, has their defects.

Its templates are for a compiler, so what is tested is that compiled code does what the sample is there to show.
Containers and manifests have tests of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from agentflow_serve.commands.compile import command
from agentflow_serve.compiler import IRCompiler
from flow_runtime.compiled import NodeFailure
from flow_runtime.scripted_models import ScriptedModels
from support.compiled import imported

FLOW = """
version: "1.0"
metadata: {name: support_agent}
context: {requires: [user_id, session_id, query]}
nodes:
  fetch_customer:
    inputs: [{name: user_id, type: string}]
    outputs: [{name: customer_data, type: object}]
    transform:
      mode: declarative
      spec: {op: io.format_response, args: {template: {id: "${user_id}", at: "${context.event_time}"}}}
  get_conversation:
    inputs: [{name: session_id, type: string}]
    outputs: [{name: history, type: array}]
    transform:
      mode: code
      spec: |
        async def transform(inputs, context, state):
            return {"history": [inputs["session_id"], context.user_id]}
  generate_response:
    inputs:
      - {name: query, type: string}
      - {name: customer_data, type: object}
      - {name: history, type: array}
    outputs: [{name: response, type: object}]
    error: {name: generation_error}
    prompt:
      role: llm.writer
      system: "You help '''customers'''."
      template: "{{ customer_data.id }} asks {{ query }} after {{ history | length }}"
      output_schema: {type: object, required: [answer], properties: {answer: {type: string}}}
    runtime: {retries: 2, retry_backoff_ms: 0, timeout_ms: 500}
  fallback_handler:
    inputs: [{name: error, type: object}]
    outputs: [{name: response, type: object}]
    transform:
      mode: declarative
      spec: {op: io.format_response, args: {template: {answer: "sorry: ${error.type}"}}}
  unused:
    inputs: [{name: query, type: string}]
    outputs: [{name: out, type: object}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: {}}}}
edges:
  - {from: _input.user_id, to: fetch_customer.user_id}
  - {from: _input.session_id, to: get_conversation.session_id}
  - {from: _input.query, to: generate_response.query}
  - {from: _input.query, to: unused.query}
  - {from: fetch_customer.customer_data, to: generate_response.customer_data}
  - {from: get_conversation.history, to: generate_response.history}
  - {from: generate_response.generation_error, to: fallback_handler.error}
  - {from: generate_response.response, to: _output}
  - {from: fallback_handler.response, to: _output}
tests:
  - name: an answer
    input: {user_id: u1, session_id: s1, query: why}
    models: {llm.writer: {answer: because}}
"""
REQUEST = {"user_id": "u1", "session_id": "s1", "query": "why"}
ANSWER = {"llm.writer": {"answer": "because"}}


@pytest.fixture(scope="module")
def ir() -> dict[str, Any]:
    return yaml.safe_load(FLOW)


@pytest.fixture(scope="module")
def agent(ir: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    path = tmp_path_factory.mktemp("compiled") / "agent.py"
    path.write_text(IRCompiler(target="kserve").compile(ir))
    with imported(path) as module:
        yield module


async def predicted(agent: ModuleType, answers: dict[str, Any], request: dict[str, Any] = REQUEST) -> Any:
    model = agent.SupportAgent(models=ScriptedModels(answers))
    assert model.load()
    try:
        return (await model.predict({"instances": [request]}, {}))["predictions"][0]
    finally:
        await model.aclose()


def test_base_template_the_agent_is_a_kserve_model_that_loads(agent: ModuleType):
    from kserve import Model

    model = agent.SupportAgent()
    assert isinstance(model, Model)
    assert (model.name, model.ready) == ("support_agent", False)
    assert model.load() is True
    assert model.ready


def test_base_template_the_context_flows_through_the_graph(agent: ModuleType):
    ctx = agent.Context({"user_id": "u1", "auth": "t", "anything": 3})
    assert (ctx.user_id, ctx.session_id, ctx.auth) == ("u1", None, "t")
    assert (ctx.get("anything"), ctx.get("nothing", "else")) == (3, "else")
    assert ctx.trace_id and ctx.event_time
    assert agent.Context({"trace_id": "mine"}).trace_id == "mine"


async def test_node_method_generation_each_node_is_an_async_method(agent: ModuleType):
    async with agent.SupportAgent(models=ScriptedModels({})) as model:
        ctx = agent.Context(REQUEST)
        made = await model.node_fetch_customer({"user_id": "u1"}, ctx)
    assert made == {"customer_data": {"id": "u1", "at": ctx.event_time}}


async def test_node_method_generation_attempts_are_counted_and_the_last_failure_is_raised(agent: ModuleType):
    models = ScriptedModels({"llm.writer": ["no JSON", "none either"]})
    async with agent.SupportAgent(models=models) as model:
        with pytest.raises(NodeFailure) as caught:
            await model.node_generate_response(
                {"query": "", "customer_data": {"id": 1}, "history": []}, agent.Context()
            )
    assert (caught.value.kind, caught.value.attempts, models.calls["llm.writer"]) == (
        "validation_fail",
        2,
        2,
    )


async def test_llm_operations_prompt_layer(agent: ModuleType):
    async with agent.SupportAgent(models=ScriptedModels(ANSWER)) as model:
        inputs = {"query": "why", "customer_data": {"id": "u1"}, "history": []}
        made = await model.node_generate_response(inputs, agent.Context(REQUEST))
    assert made == {"response": {"answer": "because"}}  # under the port's name (D10)


async def test_code_transform_compilation(agent: ModuleType):
    async with agent.SupportAgent(models=ScriptedModels({})) as model:
        made = await model.node_get_conversation({"session_id": "s1"}, agent.Context(REQUEST))
    assert made == {"history": ["s1", "u1"]}


async def test_flow_execution_generation(agent: ModuleType):
    assert await predicted(agent, ANSWER) == {"answer": "because"}


async def test_error_port_routing(agent: ModuleType):
    assert await predicted(agent, {"llm.writer": {"error": "timeout"}}) == {"answer": "sorry: timeout"}


async def test_parallel_execution_independent_nodes_are_under_way_together(agent: ModuleType):
    import asyncio

    both = asyncio.Barrier(2)

    class Meeting(agent.SupportAgent):
        async def node_fetch_customer(self, inputs: Any, ctx: Any) -> Any:
            await both.wait()
            return await super().node_fetch_customer(inputs, ctx)

        async def node_get_conversation(self, inputs: Any, ctx: Any) -> Any:
            await both.wait()
            return await super().node_get_conversation(inputs, ctx)

    async with Meeting(models=ScriptedModels(ANSWER)) as model, asyncio.timeout(20):
        assert (await model.run(REQUEST)).output == {"answer": "because"}


def test_lazy_evaluation_what_no_output_needs_is_not_even_compiled(agent: ModuleType):
    assert not hasattr(agent.SupportAgent, "node_unused")
    assert "unused" in (agent.__doc__ or "")


async def test_caching_of_a_node_that_asks_for_it(ir: dict[str, Any], tmp_path: Path):
    cached = json.loads(json.dumps(ir))
    cached["nodes"]["generate_response"]["runtime"]["cache"] = {"ttl_seconds": 60}
    path = tmp_path / "agent.py"
    path.write_text(IRCompiler(target="local").compile(cached))
    models = ScriptedModels(ANSWER)
    request = {**REQUEST, "event_time": "2026-01-01T00:00:00+00:00"}
    with imported(path) as module:
        async with module.SupportAgent(models=models) as local:
            assert [(await local.run(request)).output for _ in range(3)] == [{"answer": "because"}] * 3
    assert models.calls["llm.writer"] == 1


def test_static_validation(ir: dict[str, Any]):
    compiler = IRCompiler()
    assert compiler.validate(ir) == []
    broken = json.loads(json.dumps(ir))
    broken["edges"][0]["to"] = "fetch_customer.nothing"
    assert compiler.validate(broken)[0].code == "unknown-port"
    line = 1 + FLOW.splitlines().index("      mode: code") - 1
    assert [error.place.line for error in IRCompiler(forbid_code=True).validate(FLOW) if error.place] == [line]
    assert [error.dotted_path for error in IRCompiler(forbid_code=True).validate(ir)] == [
        "nodes.get_conversation.transform"
    ]


async def test_runtime_validation(agent: ModuleType):
    answer = await predicted(agent, {"llm.writer": {"answer": 3}})
    assert answer == {"answer": "sorry: validation_fail"}


async def test_unit_test_template(ir: dict[str, Any], agent: ModuleType):
    """A fixture's mocks stay: what is put in place before `load` is not overwritten by it (D24)."""
    made = agent.SupportAgent(models=ScriptedModels(ANSWER))
    made.load()
    inputs = {"query": "why", "customer_data": {"id": "u1"}, "history": []}
    try:
        result = await made.node_generate_response(inputs, agent.Context({"user_id": "u1"}))
    finally:
        await made.aclose()
    assert "response" in result
    assert result["response"]["answer"] == "because"


def test_compilation_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("flow.yaml").write_text(FLOW)
    run = CliRunner().invoke
    assert run(command, ["flow.yaml", "--validate-only"]).exit_code == 0
    assert not Path("agent.py").exists()
    done = run(command, ["flow.yaml", "--generate-tests"], standalone_mode=False)
    assert done.exception is None
    assert Path("agent.py").read_text().count("class SupportAgent(KServeAgent):") == 1
    assert "from agent import SupportAgent" in Path("test_agent.py").read_text()
    done = run(command, ["flow.yaml", "--output", "mine.py", "--generate-tests"], standalone_mode=False)
    assert done.exception is None
    assert "from mine import SupportAgent" in Path("test_mine.py").read_text()


def test_compilation_cli_the_compiler_class(ir: dict[str, Any]):
    compiler = IRCompiler()
    code, tests = compiler.compile(ir), compiler.generate_tests(ir)
    compile(code, "agent.py", "exec")
    compile(tests, "test_agent.py", "exec")
    assert "test_node_generate_response_1" in tests
