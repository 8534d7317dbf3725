import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, SchemaError

from agentflow.errors import SchemaInvalid, SchemaMismatch
from agentflow.schemas import compile_schema

REPLY = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "minLength": 1},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "tags": {"type": "array", "items": {"type": "string", "enum": ["budget", "premium"]}, "uniqueItems": True},
    },
    "required": ["text", "confidence"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"text": "a", "confidence": 0.5}, None),
        ({"text": "a", "confidence": 1, "tags": ["budget", "premium"]}, None),
        ([], "$ is an array, not an object"),
        ({"text": "a"}, "$ lacks the required key 'confidence'"),
        ({"text": 5, "confidence": 1}, "$.text is a number, not a string"),
        ({"text": "", "confidence": 1}, "$.text has 0 characters, fewer than 1"),
        ({"text": "a", "confidence": 1.7}, "$.confidence is 1.7, more than the maximum 1"),
        ({"text": "a", "confidence": True}, "$.confidence is a boolean, not a number"),
        ({"text": "a", "confidence": 1, "tags": ["x"]}, "$.tags[0] is not one of 'budget', 'premium'"),
        (
            {"text": "a", "confidence": 1, "tags": ["budget", "budget"]},
            "$.tags has the same element at positions 0 and 1",
        ),
        ({"text": "a", "confidence": 1, "odd key": 1}, "$ has the unknown key 'odd key'"),
    ],
)
def test_the_first_problem_of_a_model_answer_is_one_sentence_with_its_path(value: Any, problem: str | None) -> None:
    assert compile_schema(REPLY).check(value) == problem


@pytest.mark.parametrize(
    ("schema", "value", "problem"),
    [
        (True, 1, None),
        (False, 1, "$ is not allowed here"),
        ({"type": ["string", "null"]}, 1, "$ is a number, not a string or null"),
        ({"type": "integer"}, 1.0, None),
        ({"type": "integer"}, 1.5, "$ is a number, not an integer"),
        ({"const": {"a": 1}}, {"a": 1.0}, None),
        ({"const": 1}, True, "$ is not 1"),
        ({"enum": [1, "a"]}, True, "$ is not one of 1, 'a'"),
        ({"enum": []}, 1, "$ is not one of no values"),
        ({"exclusiveMinimum": 0}, 0, "$ is 0, not more than 0"),
        ({"multipleOf": 0.01}, 19.99, None),
        ({"multipleOf": 0.01}, 19.999, "$ is 19.999, not a multiple of 0.01"),
        ({"multipleOf": 2}, 3, "$ is 3, not a multiple of 2"),
        ({"maxItems": 1}, [1, 2], "$ has 2 elements, more than 1"),
        ({"minProperties": 1}, {}, "$ has 0 keys, fewer than 1"),
        ({"items": [{"type": "string"}], "additionalItems": False}, ["a", 1], "$[1] is not allowed here"),
        ({"contains": {"const": 1}}, [2], "$ contains no element of the kind it must contain"),
        ({"propertyNames": {"maxLength": 2}}, {"abc": 1}, "$ has the key 'abc', which has 3 characters, more than 2"),
        ({"patternProperties": {"^n_": {"type": "number"}}}, {"n_a": "x"}, "$.n_a is a string, not a number"),
        ({"dependencies": {"a": ["b"]}}, {"a": 1}, "$ lacks the required key 'b'"),
        ({"dependencies": {"a": {"minProperties": 2}}}, {"a": 1}, "$ has 1 keys, fewer than 2"),
        ({"not": {"type": "string"}}, "a", "$ is what `not` excludes"),
        (
            {"oneOf": [{"type": "string"}, {"maxLength": 3}]},
            "abc",
            "$ fits 2 of the alternatives in oneOf instead of one",
        ),
        (
            {"anyOf": [{"type": "string"}, {"type": "null"}]},
            {"a": 1},
            "$ fits none of the alternatives; for the first one: $ is an object, not a string",
        ),
        (
            {"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"minimum": 5}},
            3,
            "$ is 3, less than the minimum 5",
        ),
        ({"properties": {"a b": {"items": {"type": "null"}}}}, {"a b": [None, 1]}, "$['a b'][1] is a number, not null"),
        ({"format": "email"}, "not an address", None),
        ({"pattern": r"^\d{3}-\w+$"}, "123-ab_c", None),
        ({"pattern": r"^\d+$"}, "\u0663", "$ does not match the pattern '^\\\\d+$'"),
        ({"pattern": r"^[\w.+-]+@[^\s@]+\.\w{2,}$"}, "a.b@example.org", None),
        ({"pattern": "b"}, "abc", None),
        ({"pattern": r"[[{&]\/\D[\W]"}, "[/x-", None),
        ({"pattern": "a{"}, "a{", None),
        ({"pattern": "a$"}, "a\n", "$ does not match the pattern 'a$'"),
        ({"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"type": "null"}}}, 1, "$ is a number, not null"),
        ({"$ref": "#/$defs/x", "$defs": {"x": True}, "type": "null"}, 1, None),
    ],
)
def test_keywords_of_draft_07(schema: Any, value: Any, problem: str | None) -> None:
    assert compile_schema(schema).check(value) == problem


def test_a_problem_repeats_no_text_of_the_value() -> None:
    secret = "sk-123456"
    for schema in (
        {"type": "number"},
        {"enum": ["a"]},
        {"const": "a"},
        {"pattern": "^a$"},
        {"maxLength": 2},
        {"not": {}},
    ):
        assert secret not in (compile_schema(schema).check(secret) or "")


def test_a_recursive_schema_follows_the_value() -> None:
    tree = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "kids": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["name"],
    }
    schema = compile_schema(tree)
    assert schema.check({"name": "a", "kids": [{"name": "b", "kids": []}]}) is None
    assert schema.check({"name": "a", "kids": [{"name": "b", "kids": [{}]}]}) == (
        "$.kids[0].kids[0] lacks the required key 'name'"
    )


@pytest.mark.parametrize(
    ("schema", "path", "reason"),
    [
        (3, "", "a schema is an object, true or false, not a number"),
        ({"type": "strin"}, "type", "type is one of array, boolean"),
        ({"type": []}, "type", "type is one of"),
        ({"properties": {"a": {"maximum": "3"}}}, "properties.a.maximum", "the limit is a number"),
        ({"properties": {"a": 1}}, "properties.a", "a schema is an object"),
        ({"properties": []}, "properties", "an object of schemas"),
        ({"minLength": -1}, "minLength", "whole number of at least 0"),
        ({"multipleOf": 0}, "multipleOf", "above 0"),
        ({"required": "a"}, "required", "an array of names"),
        ({"required": ["a", "a"]}, "required", "the same name twice"),
        ({"anyOf": []}, "anyOf", "at least one"),
        ({"items": {"allOf": [{"not": 1}]}}, "items.allOf.0.not", "a schema is an object"),
        ({"definitions": {"unused": {"type": 1}}}, "definitions.unused.type", "type is one of"),
        (
            {"$ref": "#/definitions/x", "definitions": {"x": {"pattern": "("}}},
            "definitions.x.pattern",
            "unclosed group",
        ),
        ({"$ref": "https://example.test/schema"}, "$ref", "a reference stays inside its schema"),
        ({"$ref": "other.json#/a"}, "$ref", "a reference stays inside its schema"),
        ({"$ref": "#/definitions/x"}, "$ref", "the schema has no '#/definitions/x'"),
        ({"prefixItems": [True]}, "prefixItems", "not part of draft-07; use items with an array"),
        ({"items": {"unevaluatedProperties": False}}, "items.unevaluatedProperties", "use additionalProperties"),
        ({"pattern": "(?=a)"}, "pattern", "look-around"),
        ({"pattern": "(?i)a"}, "pattern", "inline flags"),
        ({"pattern": "(?x)a{ 1000 }"}, "pattern", "inline flags"),
        ({"pattern": r"(a)\1"}, "pattern", "backreferences are not supported"),
        ({"pattern": "a)"}, "pattern", "no opening one"),
        ({"pattern": "a" * 501}, "pattern", "at most 500"),
        ({"pattern": "(.{0,200}){0,50}x"}, "pattern", "more than 2000 parts"),
        ({"patternProperties": {"[": True}}, "patternProperties", "unclosed brackets"),
        ({"default": {1: 2}}, "default", "the key 1 is not a string"),
        ({"default": float("nan")}, "default", "not JSON"),
        ({"default": {1, 2}}, "default", "a Python set is not JSON"),
    ],
)
def test_a_schema_that_cannot_be_checked_safely_is_refused_with_its_path(schema: Any, path: str, reason: str) -> None:
    with pytest.raises(SchemaInvalid) as caught:
        compile_schema(schema)
    assert reason in str(caught.value)
    assert caught.value.path == path


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"properties": {"a": {"$ref": "#/properties/a"}}},
        {"definitions": {"a": {"$ref": "#/definitions/b"}, "b": {"not": {"$ref": "#/definitions/a"}}}},
        {"if": {"$ref": "#/then"}, "then": {"anyOf": [{"$ref": "#/if"}]}},
        {"dependencies": {"x": {"$ref": "#"}}},
    ],
)
def test_references_that_loop_without_going_into_the_value_are_refused(schema: Any) -> None:
    with pytest.raises(SchemaInvalid, match="loop that never goes into the value"):
        compile_schema(schema)


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


TWICE_PER_LEVEL = {"items": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}


def test_what_is_too_large_to_check_is_a_problem_and_not_a_pass() -> None:
    assert "nested too deeply" in (compile_schema({"items": {"$ref": "#"}}).check(_deep(5_000)) or "")
    assert "too large to be checked" in (compile_schema(TWICE_PER_LEVEL).check(_deep(40)) or "")
    assert "too long for its pattern" in (compile_schema({"pattern": "(.{0,100}){0,10}x"}).check("a" * 9_999) or "")


def test_a_large_table_is_fine() -> None:
    rows = [{"id": index, "name": f"row {index}", "mail": f"r{index}@example.org"} for index in range(5_000)]
    columns = {"id": {"type": "integer"}, "name": {"type": "string"}, "mail": {"pattern": "^[^@]+@[^@]+$"}}
    schema = compile_schema({"type": "array", "items": {"type": "object", "properties": columns, "required": ["id"]}})
    assert schema.check(rows) is None
    assert schema.check([*rows, {}]) == "$[5000] lacks the required key 'id'"


def test_require_raises_the_problem() -> None:
    schema = compile_schema({"type": "string"})
    schema.require("a")
    with pytest.raises(SchemaMismatch) as caught:
        schema.require(1)
    assert caught.value.problem == "$ is a number, not a string"


def test_a_schema_is_a_copy_and_crosses_a_process_boundary() -> None:
    source = {"type": "object", "required": ["a"]}
    schema = compile_schema(source)
    source["required"].append("b")  # type: ignore[union-attr]
    copy = pickle.loads(pickle.dumps(schema))
    assert copy == schema
    assert copy.check({"a": 1}) is schema.check({"a": 1}) is None
    assert copy.check({}) == "$ lacks the required key 'a'"


SCALARS = st.sampled_from([None, True, False, 0, 1, 1.0, 2, -1, 2.5, 7, "", "a", "ab", "abc", "b1", "é"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab") | st.just("b1"), inner, max_size=3)
    ),
    max_leaves=6,
)
COUNT = st.sampled_from([0, 1, 2, 2.0])
NAME = st.sampled_from(["a", "b", "b1"])
PATTERN = st.sampled_from(["^a", "b", "1$", "^[a-z]+$", "^.{2}$", "^(a|b)+$"])
TYPE = st.sampled_from(["array", "boolean", "integer", "null", "number", "object", "string"])


def _keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    several = st.lists(inner, min_size=1, max_size=3)
    limit = st.sampled_from([0, 1, 2.5, -1])
    values: dict[str, st.SearchStrategy[Any]] = {
        "type": TYPE | st.lists(TYPE, min_size=1, max_size=2, unique=True),
        "enum": st.lists(VALUES, max_size=3),
        "const": VALUES,
        "required": st.lists(NAME, unique=True, max_size=2),
        "pattern": PATTERN,
        "uniqueItems": st.booleans(),
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "properties": st.dictionaries(NAME, inner, max_size=2),
        "patternProperties": st.dictionaries(PATTERN, inner, max_size=2),
        "dependencies": st.dictionaries(NAME, inner | st.lists(NAME, unique=True, max_size=2), max_size=2),
        "items": inner | several,
        "definitions": st.dictionaries(NAME, inner, max_size=1),
        **dict.fromkeys(("maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum"), limit),
        **dict.fromkeys(("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties"), COUNT),
        **dict.fromkeys(("additionalItems", "additionalProperties", "contains", "propertyNames", "not"), inner),
        **dict.fromkeys(("if", "then", "else"), inner),
        **dict.fromkeys(("allOf", "anyOf", "oneOf"), several),
    }
    return st.lists(st.sampled_from(list(values)), max_size=4, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({keyword: values[keyword] for keyword in chosen})
    )


SCHEMAS = st.recursive(st.booleans() | _keywords(st.booleans()), _keywords, max_leaves=5)


@settings(max_examples=250, deadline=None)
@given(SCHEMAS, st.lists(VALUES, min_size=1, max_size=6))
def test_random_schemas_agree_with_the_reference_validator(schema: Any, values: list[Any]) -> None:
    compiled, reference = compile_schema(schema), Draft7Validator(schema)
    for value in values:
        try:
            expected = reference.is_valid(value)
        except TypeError:  # the reference stumbles over additionalItems beside `items: false`
            continue
        assert (compiled.check(value) is None) is expected


BROKEN = st.recursive(
    st.sampled_from([None, True, 0, -1, 1.5, "", "a", "string", "#", "["]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "enum",
                    "required",
                    "minimum",
                    "maxLength",
                    "pattern",
                    "uniqueItems",
                    "multipleOf",
                    "properties",
                    "items",
                    "additionalProperties",
                    "dependencies",
                    "allOf",
                    "not",
                    "if",
                    "definitions",
                    "title",
                    "format",
                    "examples",
                    "readOnly",
                    "$id",
                    "$comment",
                    "contains",
                    "patternProperties",
                    "propertyNames",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@settings(max_examples=250, deadline=None)
@given(BROKEN)
def test_whatever_the_meta_schema_refuses_is_refused(schema: Any) -> None:
    try:
        Draft7Validator.check_schema(schema)
    except SchemaError:
        with pytest.raises(SchemaInvalid):
            compile_schema(schema)
    else:
        try:
            compile_schema(schema)
        except SchemaInvalid as exc:
            assert "pattern" in str(exc)
