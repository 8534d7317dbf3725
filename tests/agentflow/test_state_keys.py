import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import PlaceholderError, PlaceholderFailed
from agentflow.placeholders import StateKey, compile_state_key

INPUTS = {"query", "session_id", "topic"}
CONTEXT = {"user_id", "session_id", "trace_id", "event_time", "customer_id"}


def key(text: str) -> StateKey:
    return compile_state_key(text, INPUTS, CONTEXT)


def test_two_nodes_share_a_bucket_when_their_templates_reach_the_same_value() -> None:
    by_context = key("chat_{context.session_id}").resolve({}, {"session_id": "s1"}, "recall")
    by_port = key("chat_{session_id}").resolve({"session_id": "s1"}, {}, "remember")
    assert by_context == by_port == "chat_2:s1"


def test_a_name_is_an_input_port_first_and_a_context_field_otherwise() -> None:
    context = {"session_id": "from context", "user_id": "u"}
    assert key("{session_id}").resolve({"session_id": "from port"}, context, "n") == "9:from port"
    assert key("{user_id}").resolve({}, context, "n") == "1:u"
    assert key("{context.session_id}").resolve({"session_id": "x"}, context, "n") == "12:from context"


def test_the_node_id_separates_nodes() -> None:
    assert key("{node.id}").resolve({}, {}, "recall") == "6:recall"
    assert key("{node.id}/{topic}").resolve({"topic": 3}, {}, "a") == "1:a/n1:3"


@pytest.mark.parametrize(
    ("text", "identifies"),
    [
        ("{session_id}", True),
        ("{user_id}", True),
        ("{context.session_id}", True),
        ("chat_{node.id}_{context.user_id}", True),
        ("{customer_id}", True),
        ("{node.id}", False),
        ("{topic}", False),
        ("{context.trace_id}", False),
        ("{event_time}", False),
        ("user_id", False),
    ],
)
def test_a_key_knows_whether_it_tells_sessions_apart(text: str, identifies: bool) -> None:
    assert key(text).has_scope_variable is identifies


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{sesion_id}", "it is not known here; known are: query, session_id, topic, context.customer_id"),
        ("{context.sesion_id}", "not known"),
        ("{context.query}", "not known"),
        ("{context}", "not known"),
        ("{node.name}", "not known"),
        ("{}", "not known"),
        ("{ topic }", "not known"),
        ("{topic!r}", "not known"),
        ("{topic.__class__}", "not known"),
        ("{topic", "a brace stands alone"),
        ("topic}", "a brace stands alone"),
        ("{{topic}}", "a brace stands alone"),
        ("${topic}{", "a brace stands alone"),
        ("", "1 to 256 characters"),
        ("x" * 257, "1 to 256 characters"),
    ],
)
def test_what_nothing_can_fill_is_an_error_and_never_literal(text: str, reason: str) -> None:
    with pytest.raises(PlaceholderError, match="state key") as caught:
        key(text)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [None, "", {}, [], {"id": 1}, ["s1"], math.nan, math.inf, "a\nb", "a\x00", "\ud800", 10**5000, object()],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_cannot_name_a_bucket_is_a_failure(value: Any) -> None:
    with pytest.raises(PlaceholderFailed, match=r"\{topic\} in the state key 'a_\{topic\}' cannot be filled"):
        key("a_{topic}").resolve({"topic": value}, {}, "n")


def test_a_missing_value_and_a_long_one_are_failures() -> None:
    with pytest.raises(PlaceholderFailed, match=r"\{context.session_id\} in the state key .*: it has no value"):
        key("{context.session_id}").resolve({"session_id": "s"}, {}, "n")
    with pytest.raises(PlaceholderFailed, match="longer than 512 characters"):
        key("{topic}").resolve({"topic": "x" * 600}, {}, "n")


def test_a_key_crosses_a_process_boundary() -> None:
    compiled = key("chat_{context.session_id}")
    copy = pickle.loads(pickle.dumps(compiled))
    assert copy == compiled
    assert copy.resolve({}, {"session_id": "s"}, "n") == "chat_1:s"


SCALARS = (
    st.text(st.sampled_from("0123456789:nb{}_|.~ "), min_size=1, max_size=6)
    | st.integers(-99, 99)
    | st.floats(-9, 9)
    | st.booleans()
)
TEMPLATES = ["{query}{topic}", "{query}:{topic}", "{query}n{topic}", "a_{query}_{topic}_{query}", "{topic}1:{query}"]


def _identity(value: Any) -> tuple[Any, ...]:
    return (isinstance(value, bool), isinstance(value, str), value)


@given(st.sampled_from(TEMPLATES), SCALARS, SCALARS, SCALARS, SCALARS)
def test_different_values_never_share_a_bucket(text: str, a: Any, b: Any, c: Any, d: Any) -> None:
    compiled = key(text)
    one = compiled.resolve({"query": a, "topic": b}, {}, "n")
    two = compiled.resolve({"query": c, "topic": d}, {}, "n")
    same = (_identity(a), _identity(b)) == (_identity(c), _identity(d))
    assert (one == two) is same
