"""RELIABILITY S9: no header makes a client somebody else, moves its deadline or steers the server."""

from __future__ import annotations

import pytest

from support.cost import cheaply
from support.doors import Predictor, predictor
from support.flows import small_flow

WHO = small_flow(
    """
    who:
      inputs: [{name: x, type: string}]
      outputs: [{name: answer, type: object}]
      transform:
        mode: code
        spec: |
          async def transform(inputs, context, state):
              return {"answer": {"context": {name: str(context[name]) for name in sorted(context)}}}
    """,
    ["_input.x -> who.x", "who.answer -> _output"],
)
STEERING = [
    "X-Scope-Id",
    "x-scope-id",
    "X_SCOPE_ID",
    "X-Tenant-Id",
    "X-User",
    "X-User-Id",
    "x-principal-id",
    "X-Real-IP",
    "Remote-User",
    "Forwarded",
    "X-Forwarded-User",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "x-forwarded-anything",
    "X-Auth-Request-User",
    "x-request-timeout-seconds",
    "x-request-disconnect-disabled",
    "serve_multiplexed_model_id",
    "Serve-Multiplexed-Model-Id",
    "X-Session-Id",
    "x_session_id",
    "x-serve-router-prefix",
]
VALUES = ["admin", "0", "?1", "for=127.0.0.1;host=admin"]


async def seen(desk: Predictor, *headers: tuple[str, str]) -> object:
    reply = await desk.post(
        "/v1/models/m:predict", {"instances": [{"x": "a", "trace_id": "t", "event_time": "2026-01-01"}]}, *headers
    )
    assert reply.status == 200, reply
    return reply.json()


async def test_a_header_that_claims_an_identity_or_steers_the_server_has_no_effect():
    async with predictor(WHO) as desk:
        plain = await seen(desk)
        for name in STEERING:
            assert await seen(desk, (name, "0")) == plain, name
        for value in VALUES:
            everything = [(name, value) for name in STEERING]
            assert await cheaply(lambda everything=everything: seen(desk, *everything)) == plain, value
        assert {(call.identity.scope_id, call.identity.principal_id) for call in desk.calls} == {
            ("default", "anonymous")
        }
        assert all(55 < (call.deadline_s or 0) <= 60 for call in desk.calls)
        travelled = {name for call in desk.calls for name in call.headers}
        assert travelled == set()


@pytest.mark.parametrize("field", ["scope_id", "principal_id", "user_id", "x-scope-id"])
async def test_a_field_of_the_body_is_data_and_never_an_identity(field: str):
    async with predictor(WHO) as desk:
        reply = await desk.predict({"x": "a", field: "admin"})
        assert reply.status == 200
        [call] = desk.calls
        assert (call.identity.scope_id, call.identity.principal_id) == ("default", "anonymous")
