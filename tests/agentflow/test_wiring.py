"""What edges join: which ports `node.port`, `node` alone and the two pseudo-nodes stand for (IR.md Q7, Q8, Q9)."""

from __future__ import annotations

import pytest

from agentflow import Flow
from agentflow.types import PortType
from agentflow.wiring import Wire, request_fields, resolve_wires
from support.flows import small_flow

ONE_PORT = """
{name}:
  inputs: [{{name: arg, type: {takes}}}]
  outputs: [{{name: out, type: {gives}}}]
  {more}
  transform: {{mode: declarative, spec: {{op: io.format_response, args: {{template: "${{arg}}"}}}}}}
"""


def node(name: str, *, takes: str = "string", gives: str = "string", more: str = "description: plain") -> str:
    return ONE_PORT.format(name=name, takes=takes, gives=gives, more=more)


def wires_of(flow: Flow) -> tuple[Wire, ...]:
    wires, findings = resolve_wires(flow)
    assert findings == ()
    return wires


def test_a_node_alone_stands_for_its_only_port_on_either_side():
    flow = small_flow(node("a") + node("b"), ["_input.x -> a", "a -> b", "b -> _output"])
    assert [(wire.source, wire.source_port, wire.target, wire.target_port) for wire in wires_of(flow)] == [
        (None, "x", "a", "arg"),
        ("a", "out", "b", "arg"),
        ("b", "out", None, None),
    ]


def test_input_alone_is_the_whole_request_and_is_an_object():
    flow = small_flow(node("a", takes="object"), ["_input -> a", "a -> _output"])
    [whole, _] = wires_of(flow)
    assert (whole.source, whole.source_port, whole.source_type) == (None, None, PortType.OBJECT)


def test_a_wire_knows_the_types_at_both_ends_and_an_undeclared_request_field_has_none():
    flow = small_flow(
        node("a", takes="number", gives="number"),
        ["_input.x -> a", "_input.y -> _output.y", "a -> _output.sum"],
        requires=["x", "y"],
        inputs={"x": {"type": "number"}},
        outputs={"sum": {"type": "string"}, "y": {"type": "object"}},
    )
    assert [(wire.source_type, wire.target_type) for wire in wires_of(flow)] == [
        (PortType.NUMBER, PortType.NUMBER),
        (None, PortType.OBJECT),
        (PortType.NUMBER, PortType.STRING),
    ]


def test_an_error_port_is_a_source_of_its_own_and_carries_an_object():
    flow = small_flow(
        node("a", more="error: {name: broke}") + node("b", takes="object"),
        ["_input.x -> a", "a.broke -> b", "a -> _output", "b -> _output"],
    )
    by_error = [(wire.source_port, wire.target, wire.source_type) for wire in wires_of(flow) if wire.from_error]
    assert by_error == [("broke", "b", PortType.OBJECT)]


def test_a_condition_names_the_value_by_the_source_port():
    flow = small_flow(
        node("a") + node("b"),
        [
            "_input.x -> a",
            "a -> b if out == 'yes' or value == context.x",
            "_input -> _output if value['x']",
            "b -> _output",
        ],
    )
    _, conditional, whole, _ = wires_of(flow)
    assert conditional.value_name == "out"
    assert conditional.condition is not None
    assert conditional.condition.source == "out == 'yes' or value == context.x"
    assert whole.value_name == "value"


def test_wires_keep_their_place_in_the_edge_list():
    edges = ["_input.x -> a", "_input.x -> b", "b -> _output", "a -> _output if out"]
    assert [wire.index for wire in wires_of(small_flow(node("a") + node("b"), edges))] == [0, 1, 2, 3]


def test_the_request_always_has_a_trace_id_and_an_event_time():
    flow = small_flow(
        node("a"),
        ["_input.trace_id -> a", "a -> _output"],
        requires=["x"],
        context={"optional": ["y"]},
        inputs={"z": {"default": 1}},
    )
    assert request_fields(flow) == {"x", "y", "z", "trace_id", "event_time"}
    assert wires_of(flow)[0].source_port == "trace_id"


@pytest.mark.parametrize(
    ("edge", "code", "mentions"),
    [
        ({"from": "a.nope", "to": "_output"}, "unknown-port", "its output ports: one, two"),
        ({"from": "a", "to": "_output"}, "ambiguous-port", "a.one, a.two"),
        ({"from": "_input.x", "to": "a.nope"}, "unknown-port", "its input ports: arg"),
        ({"from": "a.one", "to": "b"}, "unknown-node", "the flow has: a"),
        ({"from": "_input.y", "to": "a"}, "unknown-request-field", "context.requires"),
        ({"from": "a.one", "to": "_output.missing"}, "unknown-output", "its outputs are: result"),
    ],
)
def test_an_end_that_does_not_exist_is_a_finding_that_says_what_does(edge: dict[str, str], code: str, mentions: str):
    two_ports = {
        "inputs": [{"name": "arg", "type": "string"}],
        "outputs": [{"name": "one", "type": "string"}, {"name": "two", "type": "string"}],
    }
    flow = Flow.model_validate(
        {
            "version": "1.0",
            "metadata": {"name": "small"},
            "context": {"requires": ["x"]},
            "nodes": {"a": two_ports},
            "edges": [{"from": "_input.x", "to": "a.arg"}, edge],
            "outputs": {"result": {"type": "string"}},
        }
    )
    wires, [finding] = resolve_wires(flow)
    assert finding.code == code
    assert mentions in finding.hint
    assert finding.path[:2] == ("edges", 1)
    assert len(wires) == 1, "an edge with an end in the air makes no wire"
