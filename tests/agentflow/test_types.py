import math
from typing import Any

import pytest

from agentflow.errors import CastError
from agentflow.types import PortType, cast, compatible, kind_of, mismatch

LEGAL = {
    ("string", "document"),
    ("document", "string"),
    ("number", "string"),
    ("boolean", "string"),
    ("table", "object"),
    ("table", "array"),
    ("embedding", "array"),
}


@pytest.mark.parametrize("source", PortType)
@pytest.mark.parametrize("target", PortType)
def test_only_listed_wirings_and_identities_are_compatible(source: PortType, target: PortType) -> None:
    assert compatible(source, target) is (source == target or (source.value, target.value) in LEGAL)


@pytest.mark.parametrize("other", [*PortType, None])
def test_an_untyped_side_fits_everything(other: PortType | None) -> None:
    assert compatible(None, other)
    assert compatible(other, None)


ROW = {"id": 1}
CASTS: list[tuple[Any, str | None, str | None, Any]] = [
    (True, "boolean", "string", "True"),
    (2.5, "number", "string", "2.5"),
    (7, "number", "string", "7"),
    ("text", "string", "document", "text"),
    ("text", "document", "string", "text"),
    ([ROW], "table", "object", ROW),
    ([ROW, ROW], "table", "array", [ROW, ROW]),
    ([0.5, 1], "embedding", "array", [0.5, 1]),
    (5, None, "string", 5),
    ("x", "string", None, "x"),
    ("not a number", "number", "number", "not a number"),
    (None, "number", "string", None),
    (None, "table", "object", None),
]


@pytest.mark.parametrize(("value", "source", "target", "expected"), CASTS)
def test_a_cast_gives_what_arrives_at_the_port(
    value: Any, source: str | None, target: str | None, expected: Any
) -> None:
    result = cast(value, PortType(source) if source else None, PortType(target) if target else None)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("value", "source", "target", "reason"),
    [
        ([ROW, ROW], "table", "object", "exactly one row, and this one has 2"),
        ([], "table", "object", "exactly one row, and this one has 0"),
        ([1], "table", "object", "row 0 of the table is a number"),
        ("7", "number", "string", "it is a string, not a number"),
        (True, "number", "string", "it is a boolean, not a number"),
        pytest.param(10**5000, "number", "string", "too many digits", id="huge number"),
        ({}, "object", "string", "an object cannot be wired to a string"),
        ([], "array", "embedding", "an array cannot be wired to an embedding"),
    ],
)
def test_an_impossible_cast_says_why(value: Any, source: str, target: str, reason: str) -> None:
    with pytest.raises(CastError, match=reason) as caught:
        cast(value, PortType(source), PortType(target))
    assert (caught.value.source, caught.value.target) == (source, target)


FITS: dict[str, list[Any]] = {
    "string": ["", "a"],
    "document": ["# Title"],
    "number": [0, -1, 2.5, 10**40],
    "boolean": [True, False],
    "object": [{}, {"a": [1]}],
    "array": [[], [1, "a"]],
    "table": [[], [{}], [{"a": 1}, {"b": None}]],
    "embedding": [[], [0.5, 1]],
}
MISFITS: list[tuple[str, Any, str]] = [
    ("string", 1, "it is a number, not a string"),
    ("string", None, "it is null, not a string"),
    ("document", ["a"], "it is an array, not a string"),
    ("number", True, "it is a boolean, not a number"),
    ("number", "1", "it is a string, not a number"),
    ("number", math.nan, "it is nan, which JSON does not have"),
    ("number", math.inf, "it is inf, which JSON does not have"),
    ("boolean", 1, "it is a number, not a boolean"),
    ("object", [], "it is an array, not an object"),
    ("array", {"a": 1}, "it is an object, not an array"),
    ("array", (1, 2), "it is a tuple, not an array"),
    ("table", {"a": 1}, "it is an object, not a table (an array of row objects)"),
    ("table", [{"a": 1}, [2]], "row 1 of the table is an array, not an object"),
    ("embedding", "abc", "it is a string, not an embedding (an array of numbers)"),
    ("embedding", [1, True], "position 1 of the embedding is a boolean, not a finite number"),
    ("embedding", [math.inf], "position 0 of the embedding is a number, not a finite number"),
]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in FITS.items() for value in values])
def test_values_of_a_type_have_no_mismatch(name: str, value: Any) -> None:
    assert mismatch(value, PortType(name)) is None


@pytest.mark.parametrize(("name", "value", "reason"), MISFITS)
def test_a_mismatch_is_one_sentence(name: str, value: Any, reason: str) -> None:
    assert mismatch(value, PortType(name)) == reason


def test_every_type_refuses_null_and_names_it() -> None:
    assert all("null" in (mismatch(None, port_type) or "") for port_type in PortType)


def test_values_outside_json_are_named_by_their_python_type() -> None:
    assert kind_of(object()) == "a Python object"
    assert mismatch(object(), PortType.STRING) == "it is a Python object, not a string"
