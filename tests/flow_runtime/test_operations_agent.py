"""agent.*: nodes that run agents over roles, in the patterns of agent_runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import agentflow
from agentflow.settings import roles_of
from flow_runtime import LocalFlow, LocalSettings
from flow_runtime.errors import ModelFailed
from flow_runtime.scripted_models import ScriptedModels
from flow_runtime.tool_policy import ToolRequest
from llm_client.errors import CallRefused
from runtime_core.report import RunReport

Args = dict[str, Any]


def flow(op: str, args: Args, *, kind: str = "string", given: str = "string", **runtime: Any) -> Any:
    node = {
        "inputs": [{"name": "text", "type": given}],
        "outputs": [{"name": "answer", "type": kind}],
        "transform": {"mode": "declarative", "spec": {"op": op, "args": {"input": "${text}", **args}}},
        "runtime": runtime,
    }
    return {
        "version": "1.0",
        "metadata": {"name": "agents"},
        "context": {"requires": ["text"]},
        "nodes": {"work": node},
        "edges": [{"from": "_input.text", "to": "work.text"}, {"from": "work.answer", "to": "_output"}],
    }


class Echo:
    """Models that answer with their role around what they are told, unless a script says otherwise."""

    def __init__(self, **scripts: Any) -> None:
        self._scripted = ScriptedModels(scripts)
        self._scripts = scripts
        self.asked: list[tuple[str, list[Any], dict[str, Any]]] = []

    async def chat(self, model: Any, messages: Any, params: Any, *, tools: Any = ()) -> Any:
        self.asked.append((model, list(messages), dict(params)))
        if model in self._scripts:
            return await self._scripted.chat(model, messages, params, tools=tools)
        answers = ScriptedModels({model: f"{model}({messages[-1]['content']})"})
        return await answers.chat(model, messages, params)

    async def embed(self, role: str, texts: Any) -> Any:
        raise AssertionError("nothing is embedded here")


async def report(document: Mapping[str, Any], text: Any, models: Any = None, **settings: Any) -> RunReport:
    planned = agentflow.from_mapping(document).flow
    async with LocalFlow(planned, models=models or Echo(), settings=LocalSettings(**settings)) as runner:
        return await runner.run({"text": text})


async def output(document: Mapping[str, Any], text: Any = "x", models: Any = None, **settings: Any) -> Any:
    done = await report(document, text, models, **settings)
    assert done.error is None, done.error
    return done.output


async def test_an_agent_answers_as_its_role():
    models = Echo()
    agent = {"role": "writer", "system": "Be brief about ${text}.", "temperature": 0.5, "max_tokens": 9}
    assert await output(flow("agent.run", {"agent": agent}), "cats", models) == "writer(cats)"
    [(_, messages, params)] = models.asked
    assert messages[0] == {"role": "system", "content": "Be brief about cats."}
    assert params == {"temperature": 0.5, "max_tokens": 9}
    assert await output(flow("agent.run", {"agent": "writer"})) == "writer(x)"


async def test_a_chain_hands_on_what_each_agent_says():
    assert await output(flow("agent.chain", {"agents": ["draft", {"role": "edit"}]})) == "edit(draft(x))"


async def test_agents_side_by_side_answer_by_name():
    agents = ["cat", {"role": "dog", "name": "rex"}]
    found = await output(flow("agent.parallel", {"agents": agents}, kind="object"))
    assert found == {"agent-1": "cat(x)", "rex": "dog(x)"}


async def test_map_reduce_runs_over_an_array():
    document = flow("agent.map_reduce", {"map": "look", "reduce": "sum"}, given="array")
    assert await output(document, ["a", {"k": 1}]) == 'sum(look(a)\n\nlook({"k": 1}))'


async def test_a_plan_is_made_and_carried_out():
    roles = {"planner": "plan", "executor": "do", "synthesizer": "sum"}
    models = Echo(plan="1. look\n2. leap")
    document = flow("agent.plan_execute", roles)
    assert await output(document, "go", models) == "sum(look\ndo(look)\n\nleap\ndo(leap))"
    del roles["synthesizer"]
    document = flow("agent.plan_execute", {**roles, "parallel": True}, kind="array")
    assert await output(document, "go", Echo(plan="1. look\n2. leap")) == ["do(look)", "do(leap)"]


async def test_a_debate_ends_with_the_moderators_verdict():
    models = Echo(judge=["go on", "VERDICT: cats"])
    document = flow("agent.debate", {"debaters": ["a", "b"], "moderator": "judge", "max_rounds": 5})
    assert await output(document, "cats or dogs", models) == "cats"
    assert [role for role, *_ in models.asked] == ["a", "b", "judge", "a", "b", "judge"]


async def test_the_failure_of_a_model_is_the_nodes_failure():
    done = await report(flow("agent.chain", {"agents": ["a", "b"]}), "x", Echo(b={"error": "error"}))
    assert done.error is not None
    assert done.error.message == "node 'work' failed: the test lets 'b' fail"
    timeout = await report(flow("agent.run", {"agent": "a"}), "x", Echo(a={"error": "timeout"}))
    assert timeout.nodes["work"].error is not None
    assert timeout.nodes["work"].error["type"] == "timeout"


async def test_limits_and_budgets_hold():
    many = flow("agent.map_reduce", {"map": "m", "reduce": "r", "limits": {"max_child_jobs": 3}}, given="array")
    assert await output(many, ["a", "b"])
    done = await report(many, ["a", "b", "c"])
    assert done.error is not None and "max_child_jobs is 3" in done.error.message
    models = Echo()
    short = flow("agent.chain", {"agents": ["a", "b", "c"], "budgets": {"max_turns": 2}})
    done = await report(short, "x", models)
    assert done.error is not None and "2 times" in done.error.message
    assert len(models.asked) == 2


TOOLS = '''
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "af_agent_tools-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: af-agent-tools\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[agentflow.tools]\nadd = af_agent_tools:add\n")
    (tmp_path / "af_agent_tools.py").write_text(TOOLS)
    monkeypatch.syspath_prepend(str(tmp_path))


WITH_TOOL = flow("agent.run", {"agent": {"role": "clerk", "tools": ["add"]}})
ASKS = {"tool_calls": [{"name": "add", "arguments": {"a": 2, "b": 3}}]}


@pytest.mark.usefixtures("installed")
async def test_agents_may_use_installed_tools_under_the_policy():
    models = Echo(clerk=[ASKS, "it is 5"])
    assert await output(WITH_TOOL, "2+3", models) == "it is 5"
    assert models.asked[-1][1][-1]["content"] == "5"

    class Never:
        async def admit(self, request: ToolRequest) -> None:
            raise CallRefused(f"{request.tool} is not for {request.node}")

    models = Echo(clerk=[ASKS, "then not"])
    assert await output(WITH_TOOL, "2+3", models, tool_policy=Never()) == "then not"
    assert "add is not for work" in json.dumps(models.asked[-1][1])


@pytest.mark.usefixtures("installed")
async def test_a_server_without_code_has_no_tools_for_agents():
    with pytest.raises(Exception, match="installed tool 'add'"):
        await output(WITH_TOOL, code="off")


async def test_agents_need_models():
    planned = agentflow.from_mapping(flow("agent.run", {"agent": "writer"})).flow
    with pytest.raises(ModelFailed, match="name an llmhub"):
        async with LocalFlow(planned):
            pass


def test_the_roles_of_agents_are_roles_of_the_flow():
    document = flow("agent.debate", {"debaters": ["a", {"role": "b"}], "moderator": "judge"})
    assert roles_of(agentflow.from_mapping(document).flow) == {"a", "b", "judge"}


@pytest.mark.parametrize(
    ("op", "args", "path"),
    [
        ("agent.run", {}, "agent"),
        ("agent.run", {"agent": {"system": "x"}}, "agent"),
        ("agent.run", {"agent": "${text}"}, "agent"),
        ("agent.run", {"agent": {"role": "a", "rol": "b"}}, "agent"),
        ("agent.run", {"agent": {"role": "a", "max_turns": 0}}, "agent"),
        ("agent.run", {"agent": {"role": "a", "temperature": "hot"}}, "agent"),
        ("agent.run", {"agent": {"role": "a", "tools": ["${text}"]}}, "agent"),
        ("agent.chain", {"agents": []}, "agents"),
        ("agent.chain", {"agents": "a"}, "agents"),
        ("agent.chain", {"agents": ["a", 3]}, "agents[1]"),
        ("agent.parallel", {"agents": ["a"], "on_error": "ignore"}, "on_error"),
        ("agent.debate", {"debaters": ["a"], "max_rounds": 0}, "max_rounds"),
        ("agent.plan_execute", {"planner": "a", "executor": "b", "parallel": "yes"}, "parallel"),
        ("agent.run", {"agent": "a", "limits": {"max_depht": 1}}, "limits"),
        ("agent.run", {"agent": "a", "limits": {"max_parallel": 0}}, "limits.max_parallel"),
        ("agent.run", {"agent": "a", "budgets": 5}, "budgets"),
    ],
)
def test_what_is_wrong_with_agents_is_found_before_they_run(op: str, args: Args, path: str):
    with pytest.raises(agentflow.FlowInvalid) as invalid:
        agentflow.from_mapping(flow(op, args))
    where = f"nodes.work.transform.spec.args.{path}"
    assert where in [finding.dotted_path for finding in invalid.value.findings]


def test_a_role_that_nobody_plays_is_found():
    with pytest.raises(agentflow.FlowInvalid) as invalid:
        agentflow.from_mapping(flow("agent.chain", {"agents": ["a", "b"]}), roles={"a"})
    assert [finding.code for finding in invalid.value.findings] == ["unknown-role"]
