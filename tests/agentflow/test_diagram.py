"""Flowcharts that Mermaid can read, whatever a flow's texts hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import Flow, inspect_flow, loads
from agentflow.diagram import mermaid
from support.broken_flows import GOOD
from support.flows import small_flow

FLOWS = sorted((Path(__file__).parent / "flows").glob("*.yaml"))
NODE = re.compile(r'  (n\d+\["[^"\n]*"\]|request\(\["_input"\]\)|answer\(\["_output"\]\))')
EDGE = re.compile(r'  (n\d+|request) (-->|-\.->)(\|"[^"\n]*"\|)? (n\d+|answer)')
ENTITY = re.compile(r"#(\d+|quot|amp|lt|gt);|<b>|</b>|<br/>")


def test_a_small_flow_as_text():
    text = GOOD.replace("    prompt:", "    error: {name: failed}\n    prompt:").replace(
        "  - {from: answer.result, to: _output}",
        "  - {from: answer.result, to: _output, condition: \"result['a'] > 1\"}\n  - {from: draft.failed, to: _output}",
    )
    assert mermaid(loads(text).flow) == (
        "flowchart TD\n"
        '  request(["_input"])\n'
        '  n0["<b>draft</b><br/>prompt fast"]\n'
        '  n1["<b>answer</b><br/>io.format_response"]\n'
        '  answer(["_output"])\n'
        '  request -->|"question"| n0\n'
        '  n0 -->|"reply"| n1\n'
        "  n1 -->|\"result<br/>if result['a'] #gt; 1\"| answer\n"
        '  n0 -.->|"failed"| answer\n'
    )


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.stem)
def test_every_node_and_edge_of_a_flow_is_drawn(path: Path):
    flow, _ = inspect_flow(path)
    assert flow is not None
    lines = mermaid(flow).splitlines()
    assert sum(NODE.fullmatch(line) is not None for line in lines) == len(flow.nodes) + 2
    assert sum(EDGE.fullmatch(line) is not None for line in lines) == len(flow.edges)
    assert len(lines) == 1 + len(flow.nodes) + 2 + len(flow.edges)
    assert mermaid(flow) == mermaid(Flow.model_validate_json(flow.model_dump_json(by_alias=True)))


HOSTILE = st.text(alphabet=st.sampled_from('"[](){}|<>&#;`\\\n\r\t%-=~/*ab \u2028\u202e'), min_size=1, max_size=30)


@given(condition=HOSTILE, op=HOSTILE, role=HOSTILE, source=HOSTILE)
def test_no_text_of_a_flow_can_break_out_of_its_label(condition: str, op: str, role: str, source: str):
    node = {
        "prompt": {"template": "x", "role": role},
        "transform": {"mode": "declarative", "spec": {"op": op}},
    }
    edges = [{"from": f"a.{source}", "to": "a.in", "condition": condition}, {"from": source, "to": condition}]
    data = {"version": "1.0", "metadata": {"name": "x"}, "context": {}, "nodes": {"a": node}, "edges": edges}
    lines = mermaid(Flow.model_validate(data)).removesuffix("\n").split("\n")
    assert lines[0] == "flowchart TD"
    for line in lines[1:]:
        assert NODE.fullmatch(line) or EDGE.fullmatch(line), line
        label = line.partition('"')[2].rpartition('"')[0]
        assert not set("<>&#`\\") & set(ENTITY.sub("", label)), line
        assert line.isprintable()


def test_a_line_with_a_circle_leads_to_a_tool():
    nodes = """
    ask:
      inputs: [{name: x, type: string}]
      outputs: [{name: out, type: string}]
      prompt: {role: main, template: "{{ x }}", tools: [{name: look-up, maps_to: look}]}
    look:
      outputs: [{name: out, type: string}]
      transform: {mode: declarative, spec: {op: io.format_response, args: {template: hi}}}
    """
    drawn = mermaid(small_flow(nodes, ["_input.x -> ask.x", "ask.out -> _output"]))
    assert '  n0 --o|"look-up"| n1' in drawn.splitlines()
