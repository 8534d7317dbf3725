"""A flow is checked before anything runs. Everything that is wrong with it is reported at once, as findings: each has a
stable code, a sentence, a hint and its place in the file. `load` raises FlowInvalid with all of them; `inspect_flow`
returns them. Warnings do not stop a flow.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import agentflow

FLOW = """\
version: "1.0"
metadata: {name: hello}
context: {requires: [name]}
nodes:
  greet:
    inputs: [{name: name, type: string}]
    outputs: [{name: text, type: string}]
    prompt: {role: writer, template: "Greet {{ name }}."}
edges:
  - {from: _input.name, to: greet.name}
  - {from: greet.text, to: _output}
"""


def codes(text: str) -> set[str]:
    return {finding.code for finding in agentflow.inspect_flow(text)[1]}


def test_a_good_flow_has_no_findings():
    assert agentflow.inspect_flow(FLOW)[1] == ()


def test_everything_that_is_wrong_is_found_at_once():
    broken = FLOW.replace("template:", "tempalte:").replace("to: greet.name", "to: greet.nam")
    assert {"unknown-key", "missing-key"} <= codes(broken)
    broken = FLOW.replace("{{ name }}", "{{ nome }}").replace("to: greet.name", "to: greet.nam")
    assert {"bad-template", "unknown-port"} <= codes(broken)


def test_a_finding_knows_its_place_and_what_might_have_been_meant(tmp_path: Path):
    file = tmp_path / "hello.yaml"
    file.write_text(FLOW.replace("role: writer", "rolle: writer"))
    _, findings = agentflow.inspect_flow(file)
    [finding] = [each for each in findings if each.code == "unknown-key"]
    assert finding.place is not None
    assert (finding.place.file, finding.place.line, finding.place.column) == (str(file), 8, 14)
    assert finding.dotted_path == "nodes.greet.prompt.rolle"
    assert "did you mean 'role'?" in finding.hint


def test_load_raises_with_all_findings_and_its_message_names_the_first_ones():
    with pytest.raises(agentflow.FlowInvalid) as raised:
        agentflow.loads(FLOW.replace("greet.text", "greet.txt"), file="hello.yaml")
    assert raised.value.findings
    assert "hello.yaml:11:" in str(raised.value)


def test_types_that_do_not_fit_are_found():
    typed = FLOW.replace("nodes:", "inputs: {name: {type: number}}\nnodes:")
    assert codes(typed) == set(), "a number may become a string"
    assert codes(typed.replace("{name: name, type: string}", "{name: name, type: array}")) == {"type-mismatch"}


def test_a_circle_is_found():
    circle = FLOW.replace("{from: _input.name, to: greet.name}", "{from: greet.text, to: greet.name}")
    assert "cycle" in codes(circle)


def test_a_warning_does_not_stop_a_flow():
    idle = "  idle: {outputs: [{name: text, type: string}], prompt: {role: writer, template: hi}}\nedges:"
    loaded = agentflow.loads(FLOW.replace("edges:", idle))
    assert [(finding.code, finding.severity) for finding in loaded.findings] == [("unneeded-node", "warning")]


def test_with_the_roles_of_an_llmhub_a_role_that_is_not_there_is_found():
    assert agentflow.loads(FLOW, roles=["writer"]).findings == ()
    _, [finding] = agentflow.inspect_flow(FLOW, roles=["reader"])
    assert finding.code == "unknown-role"
