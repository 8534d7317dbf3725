import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import PlaceholderError, PlaceholderFailed
from agentflow.placeholders import compile_args

VALUES: dict[str, Any] = {
    "user_id": "u-1",
    "risk": 0.75,
    "flag": True,
    "nothing": None,
    "shopper": {"tier": "gold", "purchases": [{"sku": "a"}, {"sku": "b"}], "2": "two"},
    "rows": [[1, 2], [3, 4]],
    "context": {"user_id": "u-1", "event_time": "2025-01-01T00:00:00+00:00", "auth": {"token": "t"}},
}


def resolve(value: Any, values: dict[str, Any] = VALUES) -> Any:
    return compile_args(value, VALUES.keys()).resolve(values)


@pytest.mark.parametrize(
    ("written", "resolved"),
    [
        ("${user_id}", "u-1"),
        ("${risk}", 0.75),
        ("${flag}", True),
        ("${nothing}", None),
        ("${ shopper.tier }", "gold"),
        ("${shopper}", VALUES["shopper"]),
        ("${shopper.purchases.1.sku}", "b"),
        ("${shopper.2}", "two"),
        ("${rows.1.0}", 3),
        ("${context.auth.token}", "t"),
        ("Bearer ${context.auth.token}", "Bearer t"),
        ("https://hooks.example.test/profiles/${context.user_id}", "https://hooks.example.test/profiles/u-1"),
        ("${risk}/${flag}/${nothing}", "0.75/True/None"),
        ("purchases: ${rows}", "purchases: [[1, 2], [3, 4]]"),
        ("$${user_id}", "${user_id}"),
        ("$${user_id} is ${user_id}", "${user_id} is u-1"),
        ("$$${user_id}", "$${user_id}"),
        ("$ {user_id} $user_id {user_id} $", "$ {user_id} $user_id {user_id} $"),
        ("", ""),
        (5, 5),
        (None, None),
        (
            {"a": ["${risk}", {"b": "x${risk}"}], "${user_id}": 1, 7: "${flag}"},
            {"a": [0.75, {"b": "x0.75"}], "${user_id}": 1, 7: True},
        ),
        (("${risk}",), [0.75]),
    ],
)
def test_placeholders_are_filled_and_whole_ones_keep_their_type(written: Any, resolved: Any) -> None:
    result = resolve(written)
    assert result == resolved
    assert type(result) is type(resolved)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"a": ["${shopper.tier.name}"]}, "${shopper.tier.name} in a[0] cannot be filled: 'shopper.tier' is a string"),
        ({"key": "id-${shopper.age}"}, "${shopper.age} in key cannot be filled: 'shopper' is an object without 'age'"),
        ({"a": {"b": "${rows.9}"}}, "${rows.9} in a.b cannot be filled: 'rows' is an array without '9'"),
        ("${rows.-1}", "${rows.-1} in args cannot be filled: 'rows' is an array without '-1'"),
        ("${rows.sort}", "'rows' is an array without 'sort'"),
        ("${shopper.items}", "'shopper' is an object without 'items'"),
        ("${user_id.upper}", "'user_id' is a string without 'upper'"),
        ("${context.session_id}", "'context' is an object without 'session_id'"),
        ("${nothing.a}", "'nothing' is null without 'a'"),
    ],
)
def test_a_missing_value_is_a_failure_that_names_the_placeholder_and_its_place(written: Any, message: str) -> None:
    with pytest.raises(PlaceholderFailed) as caught:
        resolve(written)
    assert message in str(caught.value)
    assert caught.value.placeholder in message or caught.value.placeholder == written


def test_a_name_without_a_value_is_a_failure() -> None:
    with pytest.raises(PlaceholderFailed, match="'risk' has no value") as caught:
        resolve({"score": "${risk}"}, {})
    assert (caught.value.placeholder, caught.value.where) == ("${risk}", "score")


@pytest.mark.parametrize(
    ("written", "where", "reason"),
    [
        ({"filters": {"tier": "${shoper.tier}"}}, "filters.tier", "'shoper' is not known here; known are: context, "),
        ({"a": ["", "x ${usr}"]}, "a[1]", "'usr' is not known"),
        ("${context}", "args", "write ${context.field}"),
        ("${}", "args", "a placeholder is a name"),
        ("${user id}", "args", "a placeholder is a name"),
        ("${user_id.}", "args", "a placeholder is a name"),
        ("${.user_id}", "args", "a placeholder is a name"),
        ("${user_id()}", "args", "a placeholder is a name"),
        ("${rows[0]}", "args", "a placeholder is a name"),
        ("${user_id", "args", "it is not closed"),
        ("a ${ b ${user_id}", "args", "it is not closed"),
        ({"a": {1, 2}}, "a", "a Python set, which is not JSON"),
    ],
)
def test_a_placeholder_that_can_never_be_filled_is_an_error_with_its_place(
    written: Any, where: str, reason: str
) -> None:
    with pytest.raises(PlaceholderError) as caught:
        compile_args(written, VALUES.keys())
    assert reason in str(caught.value)
    assert caught.value.where == where


def test_what_a_value_contains_is_never_filled_again() -> None:
    args = compile_args(["${a}", "<${a}>"], {"a", "b"})
    assert args.resolve({"a": "${b}", "b": "secret"}) == ["${b}", "<${b}>"]


def test_containers_of_the_arguments_are_new_for_every_request() -> None:
    written: dict[str, Any] = {"fixed": {"list": [1, {"deep": []}]}, "filled": ["${risk}"]}
    args = compile_args(written, VALUES.keys())
    first = args.resolve(VALUES)
    first["fixed"]["list"][1]["deep"].append("changed")
    first["filled"].append("changed")
    written["fixed"]["list"].append("changed")
    assert args.resolve(VALUES) == {"fixed": {"list": [1, {"deep": []}]}, "filled": [0.75]}


def test_arguments_say_what_they_use() -> None:
    args = compile_args({"key": "${shopper.id}", "at": "${context.event_time}", "text": "a ${user_id}"}, VALUES.keys())
    assert args.names == {"shopper", "context", "user_id"}
    assert args.context_fields == {"event_time"}
    assert [(entry.text, entry.where) for entry in args.placeholders] == [
        ("${shopper.id}", "key"),
        ("${context.event_time}", "at"),
        ("${user_id}", "text"),
    ]


def test_the_last_name_of_a_whole_placeholder_is_a_column() -> None:
    args = compile_args(
        {"key": "${user_id}", "nested": {"id": "${shopper.id}"}, "text": "a ${user_id}", "plain": "x"}, VALUES.keys()
    )
    assert args.last_name("key") == "user_id"
    assert args.last_name("nested.id") == "id"
    assert args.last_name("text") is args.last_name("plain") is args.last_name("absent") is None


def test_arguments_cross_a_process_boundary() -> None:
    args = compile_args({"key": "${user_id}", "text": ["a ${risk}", 1]}, VALUES.keys())
    copy = pickle.loads(pickle.dumps(args))
    assert copy == args
    assert copy.resolve(VALUES) == {"key": "u-1", "text": ["a 0.75", 1]}


def _nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def test_nesting_is_limited() -> None:
    assert resolve(_nested(60)) == _nested(60)
    with pytest.raises(PlaceholderError, match="nested deeper than 64 levels"):
        compile_args(_nested(100_000), ())


DEEP = {"x": _nested(5_000), "text": "a" * 1_000_000, "rows": [{"id": i} for i in range(50_000)], "huge": 10**5000}


def test_a_value_that_cannot_become_text_is_a_failure() -> None:
    with pytest.raises(PlaceholderFailed, match=r"\$\{huge\} in key cannot become text"):
        compile_args({"key": "a${huge}"}, DEEP.keys()).resolve(DEEP)
    with pytest.raises(PlaceholderFailed, match="the text in key is longer than 1048576 characters"):
        compile_args({"key": "${text}${text}"}, DEEP.keys()).resolve(DEEP)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_any_value_passes_whole_and_any_escaped_text_stays_as_it_was(value: Any, other: Any) -> None:
    escaped = _escaped(other)
    assert compile_args({"v": "${v}", "o": escaped}, {"v"}).resolve({"v": value}) == {"v": value, "o": other}


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    return value
