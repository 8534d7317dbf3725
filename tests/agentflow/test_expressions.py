import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.errors import ExpressionError, ExpressionFailed
from agentflow.expressions import compile_expression

CONTEXT = {"user_id": "u-1", "locale": None, "auth": {"token": "t"}}
VALUES: dict[str, Any] = {
    "score": 0.8,
    "risk": 0.7,
    "success": True,
    "name": "Ada",
    "nothing": None,
    "items": [{"price": 3}, {"price": 9}],
    "item": {"amount": 20, "tags": ["new", "sale"]},
    "context": CONTEXT,
}


def evaluate(source: str, values: dict[str, Any] = VALUES) -> Any:
    return compile_expression(source, values.keys()).evaluate(values)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("score > 0.7", True),
        ("risk >= 0.7", True),
        ("risk < 0.7", False),
        ("success", True),
        ("item['amount'] >= 20", True),
        ("0 < score < 1", True),
        ("0 < score < 0.5 < 1", False),
        ("'sale' in item['tags'] and 'old' not in item['tags']", True),
        ("'amount' in item", True),
        ("'da' in name", True),
        ("nothing is None and name is not None", True),
        ("not success or score == 0.8", True),
        ("nothing or 'fallback'", "fallback"),
        ("items[-1]['price']", 9),
        ("items[1:]", [{"price": 9}]),
        ("name[::-1]", "adA"),
        ("'big' if score > 0.5 else 'small'", "big"),
        ("len(items) + len(name)", 5),
        ("max(1, score, 0.5)", 1),
        ("min([3, 2, 4])", 2),
        ("abs(-3) * 2 - 7 // 2 + 7 % 4", 6),
        ("-score", -0.8),
        ("1 / 4", 0.25),
        ("str(True) + '-' + str(2.5)", "True-2.5"),
        ("int('42') + int(3.9)", 45),
        ("float('1.5')", 1.5),
        ("bool([])", False),
        ("'ab' * 2", "abab"),
        ("[1] + [2]", [1, 2]),
        ("{'id': name, 'n': [1, 2]}", {"id": "Ada", "n": [1, 2]}),
        ("name in ('Ada', 'Grace')", True),
        ("context.user_id == 'u-1'", True),
        ("context['user_id'] == 'u-1'", True),
        ("context.auth['token']", "t"),
        ("context.locale is None", True),
        ("'session_id' in context", False),
        ("  score > 0.7  # risky", True),
        ("(score > 0.7\n and risk > 0)", True),
        (r"'a\n\'b\\'", "a\n'b\\"),
    ],
)
def test_an_expression_means_what_it_means_in_python(source: str, expected: Any) -> None:
    result = evaluate(source)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("source", "column", "reason"),
    [
        ("scor > 1", 1, "the name 'scor' is not known here; known are: context, item, items, name"),
        ("score + unknown", 9, "'unknown' is not known"),
        ("é + unknown", 1, "'é' is not known"),
        ("'é' + unknown", 7, "'unknown' is not known"),
        ("  score > unknown", 11, "'unknown' is not known"),
        ("(score\n + unknown)", 11, "'unknown' is not known"),
        ("(score\r\n +\r unknown)", 13, "'unknown' is not known"),
        ("len > 1", 1, "write len"),
        ("score >", 8, "not an expression"),
        ("#\n+", 4, "not an expression"),
        ("score > > 1", 9, "not an expression"),
        ("score = 1", 7, "not an expression"),
        ("score; name", 6, "not an expression"),
        ("item.amount", 1, "write ['amount']"),
        ("context.auth.token", 1, r"write ['token']"),
        ("context.__class__", 1, "cannot be called '__class__'"),
        ("name.upper()", 1, "the only functions are abs, bool, float, int, len, max, min, str"),
        ("open('x')", 1, "the only functions"),
        ("max(1, key=len)", 1, "takes one value"),
        ("len()", 1, "takes one value"),
        ("int('a', 2)", 1, "takes one value"),
        ("min(*items)", 5, "`*` before a value"),
        ("2 ** 3", 1, "arithmetic is"),
        ("1 << 9", 1, "arithmetic is"),
        ("items @ items", 1, "arithmetic is"),
        ("~1", 1, "`~`"),
        ("score is 1", 10, "compares with None"),
        ("[x for x in items]", 1, "comprehensions"),
        ("{'a': 1, **item}", 1, "`**`"),
        ("{1, 2}", 1, "sets"),
        ("f'{name}'", 1, "f-strings"),
        ("lambda: 1", 1, "lambda"),
        ("(x := 1)", 2, "`:=`"),
        ("1j", 2, "number runs into a word"),
        ("1if success else 2", 2, "number runs into a word"),
        ("0xff", 2, "number runs into a word"),
        ("..1else", 4, "number runs into a word"),
        (r"'\d'", 2, "a backslash is followed by"),
        ("...", 1, "constants are"),
        ("b'a'", 1, "constants are"),
        ("9" * 1900, 1, "too many digits"),
        ("", 1, "cannot be empty"),
        (" \n", 1, "cannot be empty"),
        ("a\x00b", 2, "control character"),
        ("'\ud800'", 1, "cannot be read"),
    ],
)
def test_what_is_outside_the_language_is_refused_with_its_column(source: str, column: int, reason: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(source, VALUES.keys())
    assert reason in str(caught.value)
    assert (caught.value.source, caught.value.column) == (source, column)


def test_names_that_are_not_given_are_not_there() -> None:
    with pytest.raises(ExpressionError, match="'context' is not known"):
        compile_expression("context.user_id", {"score"})


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("context.session_id == 's'", "the context has no field 'session_id'"),
        ("context['session_id']", "the context has no field 'session_id'"),
        ("nothing > 0.7", "null and a number have no order"),
        ("item['price']", "the object has no key 'price'"),
        ("items[5]", "position 5 is outside an array of length 2"),
        ("items['a']", "an array takes a position, not a string"),
        ("score['a']", "a number has no parts to look up 'a' in"),
        ("name + 1", "a string and a number cannot be added"),
        ("item * 2", "an object and a number cannot be multiplied"),
        ("'%s' % name", "a string and a string cannot be divided"),
        ("'%2000000000d' % 1", "a string and a number cannot be divided"),
        ("-name", "a string is not a number"),
        ("1 % 0", "it divides by zero"),
        ("1.5 / 0", "it divides by zero"),
        ("len(score)", "a number has no length"),
        ("max([])", "an array without elements has no largest or smallest one"),
        ("min([1, 'a'])", "the elements have no common order"),
        ("int(items)", "an array cannot become a number"),
        ("int('x')", "a string that is no int cannot become one"),
        ("1 in score", "nothing can be in a number"),
        ("1 in name", "a number cannot be in a string"),
        ("items in item", "an array cannot be the key of an object"),
        ("{items: 1}", "an array cannot be the key of an object"),
        ("item[0:1]", "an object cannot be sliced"),
        ("name[::0]", "slice step cannot be zero"),
        ("int(float('inf'))", "a number is too large"),
    ],
)
def test_values_that_do_not_fit_fail_with_the_cause(source: str, cause: str) -> None:
    with pytest.raises(ExpressionFailed) as caught:
        evaluate(source)
    assert caught.value.cause == cause
    assert str(caught.value) == f"the expression `{source}` failed: {cause}"
    assert caught.value.source == source


def test_a_missing_value_and_a_missing_context_are_failures_too() -> None:
    expression = compile_expression("score > 0.7 and context.user_id", {"score", "context"})
    with pytest.raises(ExpressionFailed, match="'score' has no value"):
        expression.evaluate({})
    with pytest.raises(ExpressionFailed, match="the context has no field 'user_id'"):
        expression.evaluate({"score": 1})


def test_and_or_and_the_conditional_evaluate_only_what_they_need() -> None:
    values = {"item": {}, "known": False}
    assert evaluate("known and item['x'] > 1", values) is False
    assert evaluate("not known or item['x'] > 1", values) is True
    assert evaluate("item['x'] if known else 'none'", values) == "none"


def test_an_expression_says_which_names_and_context_fields_it_uses() -> None:
    expression = compile_expression("score > 1 or context.user_id == context['locale']", VALUES.keys())
    assert expression.names == {"score", "context"}
    assert expression.context_fields == {"user_id", "locale"}


def test_an_expression_crosses_a_process_boundary_as_its_source() -> None:
    expression = compile_expression("score > 0.7", {"score", "context"})
    copy = pickle.loads(pickle.dumps(expression))
    assert copy == expression
    assert copy.names == {"score"}
    assert copy.evaluate({"score": 0.8}) is True


def test_a_literal_is_new_in_every_evaluation() -> None:
    expression = compile_expression("[1, {'a': []}]", ())
    first = expression.evaluate({})
    first[1]["a"].append("changed")
    assert expression.evaluate({}) == [1, {"a": []}]


BIG: dict[str, Any] = {
    "xs": list(range(100_000)),
    "rows": [{"id": index, "text": "x" * 20} for index in range(20_000)],
    "text": "a" * 1_000_000,
    "huge": 10**4000,
    "deep": None,
}
for _ in range(5_000):
    BIG["deep"] = [BIG["deep"]]


@pytest.mark.parametrize(
    "source",
    ["'a' * 1000000000", "[0] * 1000000000", "huge * huge", "int('9' * 2000)", "[[[[0] * 999] * 999] * 999]"],
)
def test_a_result_that_is_too_large_is_a_failure(source: str) -> None:
    with pytest.raises(ExpressionFailed):
        evaluate(source, BIG)


def test_large_data_that_is_only_read_is_fine() -> None:
    assert evaluate("len(rows) > 10 and rows[5]['id'] == 5 and 99 in xs and max(xs) > 1", BIG) is True
    assert evaluate("rows if len(text) > 5 else []", BIG) is BIG["rows"]
    assert evaluate("{'rows': rows, 'first': xs[:3]}", BIG) == {"rows": BIG["rows"], "first": [0, 1, 2]}


NUMBERS, TEXTS, TRUTHS, ARRAYS = "numbers", "texts", "truths", "arrays"
SAFE: dict[str, Any] = {"n": 7, "f": -2.5, "z": 0, "s": "héllo", "xs": [3, 1, 2], "o": {"k": 4, "t": "x"}}


def _joined(*parts: Any) -> st.SearchStrategy[str]:
    return st.tuples(*(st.just(part) if isinstance(part, str) else part for part in parts)).map("".join)


def _trees() -> dict[str, st.SearchStrategy[str]]:
    """Well-typed expressions as Python source: what Python makes of them is the truth to compare with."""
    kinds: dict[str, st.SearchStrategy[str]] = {}
    number, text, truth, array = (
        st.deferred(lambda kind=kind: kinds[kind]) for kind in (NUMBERS, TEXTS, TRUTHS, ARRAYS)
    )
    small = st.sampled_from(["0", "1", "2", "-1", "z"])
    order = st.sampled_from([" < ", " <= ", " > ", " >= ", " == ", " != "])
    sign = st.sampled_from([" + ", " - ", " * ", " / ", " // ", " % "])
    kinds[NUMBERS] = st.one_of(
        st.sampled_from(["n", "f", "z", "o['k']", "len(s)", "len(o)", "True"]),
        st.integers(0, 99).map(str),
        st.floats(0, 99).map(lambda value: f"{value:.3f}"),
        _joined("(", number, sign, number, ")"),
        _joined("-", number),
        _joined("abs(", number, ")"),
        _joined("int(", number, ")"),
        _joined("float(", number, ")"),
        _joined("max(", number, ", ", number, ")"),
        _joined("min(", array, ")"),
        _joined(array, "[", small, "]"),
        _joined("(", number, " if ", truth, " else ", number, ")"),
        _joined("(", truth, " and ", number, ")"),
    )
    kinds[TEXTS] = st.one_of(
        st.sampled_from(["s", "o['t']", "''", "'b\\n'"]),
        _joined("(", text, " + ", text, ")"),
        _joined("str(", number, ")"),
        _joined(text, "[", small, ":", small, "]"),
        _joined("(", text, " * ", small, ")"),
        _joined("str(", array, ")"),
    )
    kinds[TRUTHS] = st.one_of(
        st.sampled_from(["True", "n is None", "'k' in o", "o == {'k': 4, 't': 'x'}"]),
        _joined("(", number, order, number, ")"),
        _joined("(", number, order, number, order, number, ")"),
        _joined("(", text, order, text, ")"),
        _joined("(", array, order, array, ")"),
        _joined("(", text, " in ", text, ")"),
        _joined("(", number, " not in ", array, ")"),
        _joined("not ", truth),
        _joined("(", truth, " or ", truth, ")"),
        _joined("bool(", array, ")"),
    )
    kinds[ARRAYS] = st.one_of(
        st.sampled_from(["xs", "[]", "[1, 2.5]"]),
        _joined("[", number, ", ", number, "]"),
        _joined("(", array, " + ", array, ")"),
        _joined(array, "[", small, ":]"),
        _joined(array, "[::", small, "]"),
        _joined("(", array, " * ", small, ")"),
    )
    return kinds


def _outcome(run: Callable[[], Any]) -> str:
    try:
        return repr(run())
    except (ExpressionFailed, ArithmeticError, LookupError, ValueError) as exc:
        cause = exc.__cause__ if isinstance(exc, ExpressionFailed) else exc
        return next(kind.__name__ for kind in (ArithmeticError, LookupError, ValueError) if isinstance(cause, kind))


@settings(max_examples=120, deadline=None)
@given(st.one_of(*_trees().values()).filter(lambda source: len(source) < 1_000))
def test_random_expressions_agree_with_python(source: str) -> None:
    try:
        expression = compile_expression(source, SAFE.keys())
    except ExpressionError as exc:
        assert "nested deeper" in str(exc)
    else:
        assert _outcome(lambda: expression.evaluate(SAFE)) == _outcome(lambda: eval(source, {}, SAFE))


# fmt: off
FRAGMENTS = [
    "xs", "o", "s", "n", "context", ".k", "['k']", "[0]", "[1:]", "(", ")", "[", "]", "{", "}", ":", ",", "'", "f'",
    "+", "-", "*", "**", "/", "%", "<", "==", " in ", " not ", " and ", " is ", " if ", " else ", " for ", "lambda ",
    "len", "str", "int", "max", "await ", "\\", "\n", "\r", "#", "1", "0.5", "1e9", "None", "__class__", "é", "\u2028",
    "=", "@", "~", ":=", "...", ";",
]
# fmt: on


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join))
def test_no_text_does_anything_but_compile_evaluate_or_fail(source: str) -> None:
    values = {**SAFE, "context": {"k": 1}}
    try:
        expression = compile_expression(source, values.keys())
    except ExpressionError as exc:
        assert 1 <= exc.column <= len(source) + 1
        return
    try:
        expression.evaluate(values)
    except ExpressionFailed as exc:
        assert exc.cause
