"""The request that commands and docs show: it fits the flow it is shown for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import load, plan
from agentflow.request import RequestCheck
from agentflow.samples import sample_request
from agentflow.signature import FlowField, Signature
from agentflow.types import PortType

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "flows").glob("*.yaml"))


def check(signature: Signature, request: dict[str, Any]) -> None:
    """Raises RequestInvalid when the request does not fit."""
    RequestCheck(signature).prepare(request, trace_id="t", event_time="e")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_sample_of_an_example_flow_fits_it_and_is_what_the_file_says(path: Path):
    flow = load(path).flow
    request = sample_request(plan(flow).signature)
    check(plan(flow).signature, request)
    for name, field in flow.inputs.items():
        assert request[name] == (field.json_schema or {})["examples"][0]


def test_what_every_request_has_anyway_is_not_in_the_sample():
    signature = Signature(inputs=(FlowField("trace_id"), FlowField("x"), FlowField("event_time")))
    assert sample_request(signature) == {"x": "some x"}
    check(signature, sample_request(signature))


SCHEMAS: st.SearchStrategy[tuple[PortType | None, dict[str, Any] | None]] = st.one_of(
    st.tuples(st.sampled_from([None, *PortType]), st.none()),
    st.tuples(st.none(), st.fixed_dictionaries({"type": st.sampled_from(["string", "integer", "number", "boolean"])})),
    st.tuples(st.none(), st.fixed_dictionaries({"type": st.sampled_from(["object", "array"])})),
    st.tuples(st.none(), st.fixed_dictionaries({"enum": st.lists(st.integers(), min_size=1, max_size=3)})),
    st.tuples(st.sampled_from([None, PortType.STRING]), st.fixed_dictionaries({"const": st.text(max_size=5)})),
    st.tuples(
        st.sampled_from([None, PortType.STRING]),
        st.just({"type": "string", "minLength": 20, "examples": ["a text of more than twenty letters"]}),
    ),
)


@given(st.lists(st.tuples(SCHEMAS, st.booleans()), max_size=6))
def test_a_sample_has_every_required_field_and_nothing_else_and_fits(
    declared: list[tuple[tuple[PortType | None, dict[str, Any] | None], bool]],
):
    fields = tuple(
        FlowField(f"f{number}", type_, schema=schema, required=required)
        for number, ((type_, schema), required) in enumerate(declared)
    )
    request = sample_request(Signature(inputs=fields))
    assert list(request) == [field.name for field in fields if field.required]
    check(Signature(inputs=fields), request)
