"""From what a node made to its ports (IR.md Q6, Q15)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.ir import Port
from agentflow.types import PortType, mismatch
from flow_runtime.bindings import OutputBinder
from flow_runtime.errors import OutputInvalid


def binder(*ports: dict[str, Any]) -> OutputBinder:
    return OutputBinder("node", tuple(Port.model_validate(port) for port in ports))


TEXT = {"name": "text", "type": "string"}
SCORE = {"name": "score", "type": "number"}
NOTE = {"name": "note", "type": "string", "optional": True}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["out", "in", "a"]), inner, max_size=2),
    max_leaves=6,
)


@given(JSON)
def test_a_single_port_takes_the_whole_value_unless_it_is_an_object_of_just_that_name(value: Any):
    expected = value["out"] if isinstance(value, dict) and set(value) == {"out"} else value
    for type_ in PortType:
        of_type = binder({"name": "out", "type": type_})
        if mismatch(expected, type_) is None:
            assert of_type.bind_value(value) == {"out": expected}
        else:
            with pytest.raises(OutputInvalid):
                of_type.bind_value(value)


def test_several_ports_take_the_values_of_their_names_and_leave_the_rest():
    bound = binder(TEXT, SCORE).bind_value({"score": 0, "text": "", "more": True})
    assert bound == {"text": "", "score": 0}


@pytest.mark.parametrize("value", ["text", ["text", 1], None, 5])
def test_several_ports_need_an_object(value: Any):
    with pytest.raises(OutputInvalid, match="must be an object with the ports text, score"):
        binder(TEXT, SCORE).bind_value(value)


def test_a_missing_port_is_named_and_an_optional_one_is_none():
    with pytest.raises(OutputInvalid, match="lacks the output port text, score"):
        binder(TEXT, SCORE, NOTE).bind_ports({"note": "n"})
    assert binder(TEXT, NOTE).bind_ports({"text": "t"}) == {"text": "t", "note": None}
    assert binder(TEXT, NOTE).bind_ports({"text": "t", "note": None})["note"] is None


def test_null_is_no_value_for_a_port_that_is_not_optional():
    with pytest.raises(OutputInvalid, match="output port 'text': it is null, not a string"):
        binder(TEXT).bind_ports({"text": None})


def test_code_returns_port_names_even_when_there_is_only_one():
    assert binder(TEXT).bind_ports({"text": "t"}) == {"text": "t"}
    with pytest.raises(OutputInvalid, match="lacks the output port text"):
        binder(TEXT).bind_ports({"other": "t"})


def test_a_port_type_is_held_to():
    with pytest.raises(OutputInvalid, match="output port 'score': it is a string, not a number"):
        binder(TEXT, SCORE).bind_value({"text": "t", "score": "1"})


def test_a_ports_schema_is_held_to_and_the_message_says_where_it_breaks():
    schema = {"type": "object", "properties": {"risk": {"type": "number", "maximum": 1}}, "required": ["risk"]}
    rated = binder({"name": "rating", "type": "object", "schema": schema})
    assert rated.bind_value({"risk": 0.5}) == {"rating": {"risk": 0.5}}
    with pytest.raises(OutputInvalid, match=r"output port 'rating': .*risk"):
        rated.bind_value({"risk": 2})


def test_a_node_without_ports_gives_nothing_whatever_it_returned():
    for value in (None, "text", {"a": 1}):
        assert binder().bind_value(value) == {}
        assert binder().bind_ports(value) == {}
