"""The schema that editors use says the same as the loader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from agentflow import ir
from agentflow.field_help import help_for
from agentflow.json_schema import flow_json_schema
from agentflow.shapes import parse_flow
from agentflow.yaml_tree import read_yaml
from support.broken_flows import BROKEN, GOOD, SHAPES, Broken

SCHEMA = flow_json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
FLOWS = [
    *sorted((Path(__file__).parent / "flows").glob("*.yaml")),
    *sorted((Path(__file__).parents[2] / "configs" / "flows").glob("*.yaml")),
]
MODELS = [each for each in vars(ir).values() if isinstance(each, type) and issubclass(each, BaseModel)]


def data_of(text: str) -> Any:
    tree = read_yaml(text, file="f")
    assert tree.findings == ()
    return tree.data


def properties() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, definition in {**SCHEMA["$defs"], "Flow": SCHEMA}.items():
        for key, value in definition.get("properties", {}).items():
            yield name, key, value


def test_it_is_a_schema_of_the_dialect_that_it_names():
    assert SCHEMA["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.stem)
def test_every_flow_in_the_tree_fits_it(path: Path):
    assert list(VALIDATOR.iter_errors(data_of(path.read_text()))) == []


@pytest.mark.parametrize("case", SHAPES, ids=lambda case: f"{case.code}:{case.path}")
def test_what_the_loader_refuses_for_its_shape_does_not_fit_it(case: Broken):
    assert not VALIDATOR.is_valid(data_of(case.text))


def test_flows_that_are_wrong_in_meaning_only_still_fit_it():
    refused = {case.code for case in BROKEN if case not in SHAPES and parses(case) and not fits(case)}
    assert refused == {"lambda-target"}, "an editor should not offer it, and the loader explains why"


def parses(case: Broken) -> bool:
    tree = read_yaml(case.text.encode("utf-8", "replace").decode(), file="f")
    return not tree.findings and parse_flow(tree.data)[0] is not None


def fits(case: Broken) -> bool:
    return VALIDATOR.is_valid(data_of(case.text))


def test_every_key_has_a_description():
    missing = [f"{model}.{key}" for model, key, value in properties() if not value.get("description")]
    assert missing == []
    for model in MODELS:
        for name, field in model.model_fields.items():
            assert help_for(model, field.alias or name) != "", f"{model.__name__}.{name}"


def test_keys_are_spelled_as_in_the_file():
    assert set(SCHEMA["$defs"]["Edge"]["properties"]) == {"from", "to", "condition", "transform"}
    assert "schema" in SCHEMA["$defs"]["Port"]["properties"]
    assert SCHEMA["$defs"]["Deployment"]["properties"]["target"]["enum"] == ["kserve", "ray", "local"]


@pytest.mark.parametrize(
    "line",
    [
        "fallback: {on: error, role: x}",
        "fallback: {on: [error, timeout], role: x}",
        "requirements: [be kind]",
        "requirements: [{text: be kind, check: value}]",
        "fallback: {on: never, role: x}",
        "fallback: {on: [never], role: x}",
        "requirements: be kind",
        "requirements: [3]",
    ],
)
def test_short_forms_are_judged_alike(line: str):
    data = data_of(GOOD.replace("      role: fast\n", f"      role: fast\n      {line}\n"))
    assert VALIDATOR.is_valid(data) == (parse_flow(data)[0] is not None)


@given(st.data())
def test_a_flow_without_a_key_or_with_a_strange_one_is_judged_alike(data: st.DataObject):
    flow = data_of(data.draw(st.sampled_from([GOOD, *(path.read_text() for path in FLOWS)])))
    part = flow
    while True:
        values = part.values() if isinstance(part, dict) else part
        inner = [value for value in values if isinstance(value, dict | list)]
        if not inner or data.draw(st.booleans()):
            break
        part = data.draw(st.sampled_from(inner))
    if isinstance(part, dict):
        if part and data.draw(st.booleans()):
            part.pop(data.draw(st.sampled_from(sorted(part))))
        else:
            part[data.draw(st.sampled_from(["strange", "name", "type", "from", "schema"]))] = data.draw(
                st.sampled_from([None, "text", [], {}, True])
            )
    assert VALIDATOR.is_valid(flow) == (parse_flow(flow)[0] is not None)
