"""What an app is built from: files or documents, read once, and held against each other before anything is deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from agentflow import FlowInvalid
from agentflow_serve.args import parse_args
from agentflow_serve.errors import AppInvalid
from agentflow_serve.inputs import AppInputs, read_inputs
from llmhub_runtime import ConfigError, UnknownRoleError
from llmhub_runtime.sim import SimScriptError

FLOW = """\
version: "1.0"
metadata: {name: echo}
context: {requires: [x]}
nodes:
  say:
    inputs: [{name: x, type: string}]
    outputs: [{name: out, type: string}]
    prompt: {template: "{{ x }}", role: main}
edges:
  - {from: _input.x, to: say.x}
  - {from: say.out, to: _output}
"""
LLMHUB = """\
project: p
env: e
providers: {sim: {}}
roles:
  main: {provider: sim, model: m, mode: chat}
"""
FORMAT = "transform: {mode: declarative, spec: {op: io.format_response, args: {template: hi}}}"
WITHOUT_PROMPT = FLOW.replace('prompt: {template: "{{ x }}", role: main}', FORMAT)
SCRIPT = "rules:\n  - reply: {answer: scripted}\n"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that a command was started in."""
    for name, text in {
        "flow.yaml": FLOW,
        "plain.yaml": WITHOUT_PROMPT,
        "hub.yaml": LLMHUB,
        "script.yaml": SCRIPT,
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(**args: Any) -> AppInputs:
    return read_inputs(parse_args(args))


def test_paths_are_relative_to_where_the_command_was_started(files: Path):
    inputs = read(flow="flow.yaml", llmhub="hub.yaml")
    assert inputs.plan.name == "echo"
    assert inputs.llmhub is not None and list(inputs.llmhub.roles) == ["main"]
    assert read(flow=str(files / "flow.yaml"), llmhub=str(files / "hub.yaml")) == inputs


def test_the_documents_themselves_are_as_good_as_their_paths(files: Path):
    from_files = read(flow="flow.yaml", llmhub="hub.yaml", sim_script="script.yaml")
    (files / "flow.yaml").unlink()
    documents = {"flow": FLOW, "llmhub": LLMHUB, "sim_script": SCRIPT}
    given = read(**{name: yaml.safe_load(text) for name, text in documents.items()})
    assert given.plan.fingerprint == from_files.plan.fingerprint
    assert given == from_files


@pytest.mark.parametrize("missing", ["flow", "llmhub", "sim_script"])
def test_a_file_that_is_not_there_is_named_with_the_directory_that_was_searched(files: Path, missing: str):
    args = {"flow": "flow.yaml", "llmhub": "hub.yaml", "sim_script": "script.yaml", missing: "nowhere.yaml"}
    with pytest.raises(AppInvalid, match=r"there is no file nowhere\.yaml") as raised:
        read(**args)
    assert str(files) in str(raised.value)


def test_a_flow_that_is_wrong_comes_back_with_its_findings(files: Path):
    (files / "flow.yaml").write_text(FLOW.replace("role: main", "rolle: main"))
    with pytest.raises(FlowInvalid) as raised:
        read(flow="flow.yaml", llmhub="hub.yaml")
    assert [finding.code for finding in raised.value.findings if finding.severity == "error"]
    assert "flow.yaml:8:" in str(raised.value)


def test_an_llmhub_that_is_wrong_is_named_with_its_line(files: Path):
    (files / "hub.yaml").write_text(LLMHUB.replace("mode: chat", "mode: shout"))
    with pytest.raises(ConfigError, match=r"hub\.yaml.*line 5"):
        read(flow="flow.yaml", llmhub="hub.yaml")


@pytest.mark.parametrize("script", ["rules: [", "rules: [{match: {times: 0}}]", "- 1", "ruels: []"])
def test_a_script_that_is_wrong_is_refused_before_a_replica_reads_it(files: Path, script: str):
    (files / "script.yaml").write_text(script)
    with pytest.raises(SimScriptError, match=r"script\.yaml"):
        read(flow="flow.yaml", llmhub="hub.yaml", sim_script="script.yaml")


def test_a_role_that_nobody_serves_is_named_with_those_that_there_are(files: Path):
    (files / "hub.yaml").write_text(LLMHUB.replace("main:", "other:"))
    with pytest.raises(UnknownRoleError, match=r"no role 'main'.*: other") as raised:
        read(flow="flow.yaml", llmhub="hub.yaml")
    assert raised.value.known == ("other",)


def test_a_prompt_needs_an_llmhub_and_a_flow_without_prompts_does_not(files: Path):
    with pytest.raises(AppInvalid, match="node 'say' has a prompt"):
        read(flow="flow.yaml")
    inputs = read(flow="plain.yaml")
    assert (inputs.llmhub, inputs.needs_sim, inputs.sim_script) == (None, False, None)


def test_the_roles_of_agents_are_asked_of_the_llmhub_like_those_of_prompts(files: Path):
    agents = "transform: {mode: declarative, spec: {op: agent.run, args: {agent: main, input: hi}}}"
    (files / "agents.yaml").write_text(WITHOUT_PROMPT.replace(FORMAT, agents))
    with pytest.raises(AppInvalid, match="node 'say' has agents"):
        read(flow="agents.yaml")
    assert read(flow="agents.yaml", llmhub="hub.yaml").needs_sim
    (files / "agents.yaml").write_text(WITHOUT_PROMPT.replace(FORMAT, agents.replace("main", "nobody")))
    with pytest.raises(UnknownRoleError, match="no role 'nobody'"):
        read(flow="agents.yaml", llmhub="hub.yaml")


@pytest.mark.parametrize(("provider", "needed"), [("{}", True), ("{api_base: 'http://model:9/v1'}", False)])
def test_the_app_brings_a_simulated_model_only_if_nobody_says_where_one_is(files: Path, provider: str, needed: bool):
    (files / "hub.yaml").write_text(LLMHUB.replace("sim: {}", f"sim: {provider}"))
    assert read(flow="flow.yaml", llmhub="hub.yaml").needs_sim is needed
    assert read(flow="plain.yaml", llmhub="hub.yaml").needs_sim is False


ASKS = "transform: {mode: declarative, spec: {op: action.require, args: {type: review, payload: {a: hi}}}}"
APPROVAL = {"rules": [{"kind": "model", "model_patterns": ["sim/*"], "require_approval": True}]}
TWO_PREDICTORS = "deployment: {kserve: {max_replicas: 2}}\nedges:"


@pytest.mark.parametrize(
    ("flow", "policy", "why"),
    [
        (FLOW.replace("edges:", "budgets: {max_tokens: 9}\nedges:"), None, "the flow has budgets"),
        (WITHOUT_PROMPT.replace(FORMAT, ASKS), None, "the flow asks people"),
        (FLOW, APPROVAL, "the policy asks people"),
    ],
    ids=["budgets", "asks", "approval"],
)
def test_replicas_that_must_share_a_store_are_not_given_memory(
    files: Path, flow: str, policy: dict[str, Any] | None, why: str
):
    given = {"llmhub": "hub.yaml", "policy": policy, "flow": yaml.safe_load(flow)}
    with pytest.raises(AppInvalid, match=f"{why}.*do not share `memory:`; name a store under `store`"):
        read(**given, store="memory:")
    read(**given, store="sqlite:///here.sqlite")
    read(**given, store="memory:", placement="inline")  # asked, answered and counted in one process


def test_two_predictors_do_not_see_what_people_are_asked_through_the_other(files: Path):
    asking = WITHOUT_PROMPT.replace(FORMAT, ASKS).replace("edges:", TWO_PREDICTORS)
    counting = FLOW.replace("edges:", "budgets: {max_tokens: 9}\n" + TWO_PREDICTORS)
    inline = {"store": "memory:", "placement": "inline", "llmhub": "hub.yaml"}
    with pytest.raises(AppInvalid, match="do not share `memory:`"):
        read(flow=yaml.safe_load(asking), **inline)
    read(flow=yaml.safe_load(counting), **inline)  # a run stays in the predictor that began it
