"""Answers by JSON Schema: always an instance of it, or a refusal."""

from __future__ import annotations

import time
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

from llmhub_runtime.sim import SimBadRequest
from llmhub_runtime.sim.schema_answers import schema_answer

WORDS = ["I", "want", "to", "return", "my", "shoes"]


def _check(schema: Any, *, seed: str = "s", words: list[str] | None = None) -> Any:
    value = schema_answer(schema, seed=seed, words=WORDS if words is None else words)
    Draft202012Validator(schema).validate(value)
    assert schema_answer(schema, seed=seed, words=WORDS if words is None else words) == value
    return value


# --- schemas that can be satisfied, by construction -----------------------------------------------------


@st.composite
def _integers(draw: st.DrawFn) -> dict[str, Any]:
    low = draw(st.integers(-1000, 1000))
    schema: dict[str, Any] = {"type": "integer", "minimum": low}
    if draw(st.booleans()):
        schema["maximum"] = low + draw(st.integers(0, 50))
    if draw(st.booleans()):
        step = draw(st.integers(1, 7))
        schema |= {"multipleOf": step, "maximum": low + step}
    return schema


@st.composite
def _numbers(draw: st.DrawFn) -> dict[str, Any]:
    low = draw(st.floats(-1e6, 1e6))
    high = low + draw(st.floats(1e-3, 1e3))
    key = draw(st.sampled_from(["minimum", "exclusiveMinimum"]))
    schema: dict[str, Any] = {"type": "number", key: low, draw(st.sampled_from(["maximum", "exclusiveMaximum"])): high}
    return schema if draw(st.booleans()) else {"type": "number", key: low}


@st.composite
def _strings(draw: st.DrawFn) -> dict[str, Any]:
    low = draw(st.integers(0, 30))
    schema: dict[str, Any] = {"type": "string", "minLength": low}
    if draw(st.booleans()):
        schema["maxLength"] = low + draw(st.integers(0, 10))
    return schema


_SCALARS = st.one_of(
    _integers(),
    _numbers(),
    _strings(),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.just({}),
    st.sampled_from(["date-time", "date", "email", "uuid", "uri", "ipv4"]).map(
        lambda f: {"type": "string", "format": f}
    ),
    st.lists(st.none() | st.booleans() | st.integers() | st.text(max_size=5), min_size=1).map(lambda v: {"enum": v}),
    st.integers().map(lambda value: {"const": value}),
    _strings().map(lambda schema: schema | {"type": ["string", "null"]}),
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["text", "confidence", "items", "next_step", "größe", "a"])

    @st.composite
    def objects(draw: st.DrawFn) -> dict[str, Any]:
        properties = draw(st.dictionaries(names, inner, max_size=4))
        required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
        schema = {"type": "object", "properties": properties, "required": required}
        return schema | draw(st.sampled_from([{}, {"additionalProperties": False}, {"maxProperties": len(properties)}]))

    @st.composite
    def arrays(draw: st.DrawFn) -> dict[str, Any]:
        low = draw(st.integers(0, 3))
        schema: dict[str, Any] = {"type": "array", "items": draw(inner), "minItems": low}
        if draw(st.booleans()):
            schema["maxItems"] = low + draw(st.integers(0, 2))
        if draw(st.booleans()):
            schema["prefixItems"] = draw(st.lists(inner, max_size=2))
        return schema

    return st.one_of(
        objects(),
        arrays(),
        st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches}),
        inner.map(lambda schema: {"allOf": [schema, {"title": "x"}]}),
        inner.map(lambda schema: {"$defs": {"it": schema}, "anyOf": [schema, {"type": "null"}]}),
        st.tuples(inner, inner).map(
            lambda two: {"allOf": [{"properties": {"a": two[0]}}, {"properties": {"b": two[1]}}]}
        ),
    )


@given(st.recursive(_SCALARS, _containers, max_leaves=12), st.text(max_size=4))
def test_what_can_be_satisfied_is_satisfied(schema: Any, seed: str) -> None:
    _check(schema, seed=seed)


# --- anything at all: right, or refused -----------------------------------------------------------------

_TYPES = ["object", "array", "string", "number", "integer", "boolean", "null"]


def _soup(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    small = st.integers(0, 4)
    bound = st.integers(-5, 5) | st.floats(-5, 5)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(_TYPES) | st.lists(st.sampled_from(_TYPES), min_size=1, unique=True),
            "enum": st.lists(st.none() | st.booleans() | bound | st.text(max_size=3) | st.just({"a": 1}), min_size=1),
            "minimum": bound,
            "maximum": bound,
            "exclusiveMinimum": bound,
            "exclusiveMaximum": bound,
            "multipleOf": st.sampled_from([1, 2, 3, 0.5, 0.1, 2.5]),
            "minLength": small,
            "maxLength": small,
            "minItems": small,
            "maxItems": small,
            "uniqueItems": st.booleans(),
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "contains": inner,
            "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            "required": st.lists(st.sampled_from("abcd"), unique=True),
            "additionalProperties": inner,
            "patternProperties": st.fixed_dictionaries({"^x_": inner}),
            "propertyNames": st.just({"maxLength": 3}),
            "dependentRequired": st.just({"a": ["b"]}),
            "minProperties": small,
            "maxProperties": small,
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=3),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "if": inner,
            "then": inner,
            "$ref": st.just("#"),
        },
    )


@given(st.recursive(st.booleans() | _soup(st.booleans()), _soup, max_leaves=6))
def test_an_answer_is_never_wrong(schema: Any) -> None:
    try:
        value = schema_answer(schema, seed="s", words=WORDS)
    except SimBadRequest:
        return
    Draft202012Validator(schema).validate(value)


# --- the schemas people write ---------------------------------------------------------------------------


class Leaf(BaseModel):
    kind: Literal["leaf"] = "leaf"
    label: str


class Branch(BaseModel):
    kind: Literal["branch"] = "branch"
    children: list[Leaf | Branch] = Field(min_length=1)


class Reply(BaseModel):
    text: str
    confidence: float = Field(ge=0, le=1)
    score: float = Field(gt=0, multiple_of=0.05)
    tags: set[Literal["a", "b", "c"]] = Field(min_length=3)
    note: str | None
    sku: str = Field(pattern=r"^[A-Z]{3}-\d{4}$")
    tree: Branch
    either: Leaf | Branch = Field(discriminator="kind")
    extra: dict[str, int] = Field(min_length=2)


@pytest.mark.parametrize("seed", ["a", "b", "c", "d"])
def test_a_pydantic_models_schema_gives_an_instance_of_the_model(seed: str) -> None:
    value = _check(Reply.model_json_schema(), seed=seed)
    Reply.model_validate(value)
    assert value["note"] is not None


def test_texts_are_readable() -> None:
    schema = {
        "properties": {
            "next_step": {"type": "string"},
            "interests": {"type": "array", "items": {"type": "string"}},
            "id": {"type": "string", "maxLength": 6},
        }
    }
    assert _check(schema) == {
        "next_step": "next step: I want to return my shoes",
        "interests": ["I", "want"],
        "id": "id: I",
    }
    assert _check({"type": "string"}, words=[]) == "some value"


def test_another_seed_gives_another_number() -> None:
    schema = {"type": "integer", "minimum": 0, "maximum": 10_000}
    assert len({_check(schema, seed=str(n)) for n in range(20)}) > 10


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number", "multipleOf": 0.1, "minimum": 0.25, "maximum": 0.45},
        {"type": "integer", "multipleOf": 2.5, "minimum": 6, "maximum": 14},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e-9},
        {"type": "number", "minimum": 1e300},
        {"type": "integer", "minimum": 2**70},
        {"type": "array", "uniqueItems": True, "minItems": 4, "items": {"type": "integer", "minimum": 0, "maximum": 3}},
        {"type": "array", "uniqueItems": True, "minItems": 5, "items": {"type": "string", "maxLength": 1}},
        {"type": "array", "uniqueItems": True, "minItems": 3, "items": {"properties": {"name": {"type": "string"}}}},
        {"type": "array", "uniqueItems": True, "minItems": 3, "items": {"type": "array", "minItems": 1}},
        {"type": "array", "items": {"type": "string"}, "contains": {"const": "x"}, "minContains": 2},
        {"type": "object", "minProperties": 3, "additionalProperties": {"type": "integer"}},
        {"type": "object", "minProperties": 2, "patternProperties": {"^x_[a-z]+$": {}}, "additionalProperties": False},
        {"type": "object", "minProperties": 2, "propertyNames": {"enum": ["a", "b", "c"]}},
        {"properties": {"b": {}}, "required": ["a"], "dependentRequired": {"a": ["c"]}, "maxProperties": 2},
        {"allOf": [{"minimum": 3}, {"maximum": 3, "type": "number"}, {"type": "integer"}]},
        {"allOf": [{"properties": {"a": {}}, "additionalProperties": False}, {"properties": {"b": {}}}]},
        {"oneOf": [{"type": "number"}, {"type": "integer"}]},
        {"not": {"type": ["string", "object", "array"]}},
        {"if": {"properties": {"a": {"const": 1}}}, "then": {"required": ["b"]}, "properties": {"a": {"const": 1}}},
        {"enum": [1, 5, "x"], "minimum": 3, "type": "integer"},
        {"$ref": "#/$defs/a~1b/prefixItems/0", "$defs": {"a/b": {"prefixItems": [{"const": 7}]}}},
        {"$ref": "#here", "$defs": {"x": {"$anchor": "here", "const": 7}}},
        True,
    ],
)  # fmt: skip
def test_less_common_schemas_are_satisfied(schema: Any) -> None:
    for seed in ("a", "b", "c"):
        _check(schema, seed=seed)


RECURSIVE = {
    "a tree": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "left": {"$ref": "#/$defs/node"},
                    "right": {"$ref": "#/$defs/node"},
                    "all": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
            }
        },
    },
    "a list that ends with null": {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["value", "next"],
    },
    "an expression whose first alternative never ends": {
        "$ref": "#/$defs/term",
        "$defs": {
            "term": {"anyOf": [{"$ref": "#/$defs/sum"}, {"type": "integer"}]},
            "sum": {
                "type": "object",
                "properties": {"left": {"$ref": "#/$defs/term"}, "right": {"$ref": "#/$defs/term"}},
                "required": ["left", "right"],
            },
        },
    },
}


@pytest.mark.parametrize("name", RECURSIVE)
def test_recursive_schemas_end(name: str) -> None:
    for seed in "abcdef":
        _check(RECURSIVE[name], seed=seed)


def test_an_alternative_that_is_the_schema_itself_is_passed_over() -> None:
    # jsonschema itself does not survive this one.
    assert isinstance(schema_answer({"anyOf": [{"$ref": "#"}, {"type": "integer"}]}, seed="s"), int)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (False, "found no value"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "found no value"),
        ({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}, "found no value"),
        ({"allOf": [{"$ref": "#"}]}, "found no value"),
        ({"type": "array", "minItems": 1_000_000_000}, "more than 10000 values"),
        ({"type": "string", "minLength": 1_000_000_000}, "found no value"),
        ({"type": "strnig"}, "strnig"),
        ({"type": 5}, "not a valid JSON Schema"),
        ({"minimum": "x"}, "not a valid JSON Schema"),
        ({"properties": 5}, "not a valid JSON Schema"),
        ({"multipleOf": 0}, "not a valid JSON Schema"),
        ({"$ref": "https://example.com/schema"}, "only references inside it"),
        ({"$ref": "#/$defs/none"}, "which it does not define"),
        ({"not": {}}, "script an exact answer"),
    ],
)
def test_what_has_no_answer_is_refused_quickly_in_a_sentence(schema: Any, said: str) -> None:
    started = time.process_time()
    with pytest.raises(SimBadRequest, match=said):
        schema_answer(schema, seed="s")
    assert time.process_time() - started < 2


def test_a_pattern_that_cannot_be_built_falls_back_to_a_text() -> None:
    assert (
        schema_answer({"type": "string", "pattern": r"^(?=.*\d)(?!x)\w+$"}, seed="s", words=["shoes"]) == "value: shoes"
    )


def test_an_endlessly_nested_schema_is_refused() -> None:
    schema: Any = {"type": "integer"}
    for _ in range(5000):
        schema = {"allOf": [schema]}
    with pytest.raises(SimBadRequest, match="nested too deeply"):
        schema_answer(schema, seed="s")
