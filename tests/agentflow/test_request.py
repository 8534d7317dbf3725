"""A request held against the flow: everything that is wrong with it at once, and what the flow fills in."""

from __future__ import annotations

from typing import Any

import pytest

from agentflow.errors import RequestInvalid
from agentflow.request import RequestCheck
from agentflow.signature import FlowField, Signature
from agentflow.types import PortType

EMAIL = {"type": "string", "pattern": "@"}


def check(*fields: FlowField) -> RequestCheck:
    return RequestCheck(Signature(inputs=fields))


def prepared(of: RequestCheck, **request: Any) -> dict[str, Any]:
    return of.prepare(request, trace_id="t-1", event_time="2026-01-01T00:00:00+00:00")


def test_every_missing_field_is_named_in_the_order_of_the_flow():
    fields = check(FlowField("a"), FlowField("b"), FlowField("c", required=False), FlowField("d"))
    with pytest.raises(RequestInvalid, match="the request lacks the required fields 'a', 'd'") as raised:
        prepared(fields, b=1)
    assert raised.value.missing == ("a", "d")
    with pytest.raises(RequestInvalid, match=r"the required field 'd'$"):
        prepared(fields, a=1, b=1)


def test_missing_fields_and_those_that_do_not_fit_are_reported_together():
    fields = check(FlowField("a"), FlowField("n", PortType.NUMBER), FlowField("mail", schema=EMAIL))
    with pytest.raises(RequestInvalid) as raised:
        prepared(fields, n="1", mail="nobody")
    missing, number, mail = str(raised.value).split("; ")
    assert "'a'" in missing
    assert number == "field 'n': it is a string, not a number"
    assert mail.startswith("field 'mail': ")


@pytest.mark.parametrize(
    ("type_", "fits", "does_not"),
    [
        (PortType.STRING, "", 1),
        (PortType.NUMBER, 0, True),
        (PortType.NUMBER, 2.5, float("nan")),
        (PortType.BOOLEAN, False, 0),
        (PortType.OBJECT, {}, []),
        (PortType.ARRAY, [], {}),
        (PortType.TABLE, [{}], [1]),
        (PortType.EMBEDDING, [0.5, 1], ["x"]),
        (PortType.DOCUMENT, "# text", None),
    ],
)
def test_a_declared_type_is_held_to(type_: PortType, fits: Any, does_not: Any):
    fields = check(FlowField("x", type_))
    assert prepared(fields, x=fits)["x"] == fits
    with pytest.raises(RequestInvalid, match="field 'x'"):
        prepared(fields, x=does_not)


def test_optional_fields_are_checked_when_they_are_there():
    fields = check(FlowField("mail", schema=EMAIL, required=False))
    assert "mail" not in prepared(fields)
    with pytest.raises(RequestInvalid):
        prepared(fields, mail="nobody")


def test_defaults_fill_in_what_is_absent_and_not_what_is_null_or_zero():
    fields = check(FlowField("page", required=False, has_default=True, default=7))
    assert prepared(fields)["page"] == 7
    assert prepared(fields, page=0)["page"] == 0
    assert prepared(fields, page=None)["page"] is None


def test_a_default_of_null_is_a_default():
    fields = check(FlowField("cursor", required=False, has_default=True, default=None), FlowField("x", required=False))
    assert prepared(fields) == {"cursor": None, "trace_id": "t-1", "event_time": "2026-01-01T00:00:00+00:00"}


def test_one_request_cannot_change_another_ones_default():
    fields = check(FlowField("tags", required=False, has_default=True, default={"all": []}))
    prepared(fields)["tags"]["all"].append("mine")
    assert prepared(fields)["tags"] == {"all": []}


def test_a_clients_event_time_stands_and_without_one_it_is_now():
    assert prepared(check())["event_time"] == "2026-01-01T00:00:00+00:00"
    assert prepared(check(), event_time="2020-05-05T00:00:00Z")["event_time"] == "2020-05-05T00:00:00Z"


def test_fields_that_are_always_there_are_never_missing():
    fields = check(FlowField("trace_id"), FlowField("event_time"))
    assert prepared(fields)["trace_id"] == "t-1"


def test_fields_that_the_flow_does_not_name_pass_and_the_callers_request_is_left_alone():
    request = {"x": 1, "more": [1]}
    fields = check(FlowField("x"), FlowField("y", required=False, has_default=True, default=2))
    result = fields.prepare(request, trace_id="t", event_time="e")
    assert result == {"x": 1, "more": [1], "y": 2, "trace_id": "t", "event_time": "e"}
    assert request == {"x": 1, "more": [1]}
