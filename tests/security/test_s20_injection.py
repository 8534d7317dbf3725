"""RELIABILITY S20: no line break and no control character of a client reaches a log line, a header or an answer."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_serve import request_headers
from agentflow_serve.errors import RequestRefused, public_sentence
from runtime_core.errors import IdentityError
from runtime_core.ids import check_id, check_trace_id, trace_id_or_new
from support.cost import cheaply
from support.doors import Reply, assert_tells_nothing, post, predictor
from support.flows import small_flow

FAILING = small_flow(
    """
    fail:
      inputs: [{name: x, type: string}]
      outputs: [{name: y, type: object}]
      transform:
        mode: code
        spec: |
          async def transform(inputs, context, state):
              raise ValueError(inputs["x"])
    """,
    ["_input.x -> fail.x", "fail.y -> _output"],
)
INJECTIONS = [
    "a\r\nX-Injected: yes",
    "a\nX-Injected: yes",
    "a\rX-Injected: yes",
    "a\x00b",
    "a\x1b[31mred\x1b[0m",
    "a\x7f",
    "a\u2028INFO forged",
    "a\u0085INFO forged",
    "\u202egnol",
    "a" * 10_000,
    "a%0d%0aX-Injected: yes",
    "${jndi:ldap://x}",
]
NAMES = ["x-trace-id", "traceparent", "tracestate", "x-request-id", "idempotency-key", "x-deadline-seconds", "accept"]
FORBIDDEN = {"\r", "\n", "\x00", "\x1b", "\x7f", "\x85", "\u2028", "\u2029"}


@pytest.mark.parametrize("text", INJECTIONS, ids=lambda text: ascii(text)[:30])
async def test_a_client_injects_nothing(text: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    async with predictor(FAILING) as desk:
        for name in NAMES:
            raw = post("/v1/models/m:predict", b'{"instances": [{"x": "a"}]}', (name, text))
            check_answer(await desk.send(raw))
        for instance in ({"x": text}, {"x": "a", "trace_id": text}, {"x": "a", "session_id": text}, {text: 1}):
            check_answer(await cheaply(lambda instance=instance: desk.predict(instance)))
        for name in ("request", text):
            tensor = {"name": name, "shape": [1], "datatype": text, "data": [text]}
            check_answer(await desk.post("/v2/models/m/infer", {"inputs": [tensor], "id": text}))
        for call in desk.calls:
            carried = [call.trace_id or "", call.idempotency_key or "", *call.headers.values()]
            assert all(each.isascii() and each.isprintable() and len(each) <= 512 for each in carried)
    for record in caplog.records:
        if record.name.startswith(("agentflow", "flow_runtime", "runtime_core", "llmhub")):
            assert not FORBIDDEN & set(record.getMessage()), record.getMessage()


def check_answer(reply: Reply) -> None:
    assert reply.status in (400, 422, 500), reply
    assert "x-injected" not in reply.headers
    assert_tells_nothing(reply)
    assert len(reply.body) < 30_000
    if reply.body.startswith(b"{") and "trace_id" in reply.json():
        trace = reply.json()["trace_id"]
        assert trace == reply.headers["x-trace-id"]
        assert trace.isascii() and trace.isprintable() and len(trace) <= 64
        assert not FORBIDDEN & set(reply.json()["error"]), reply.json()


async def test_bytes_that_are_no_http_and_lengths_that_contradict_each_other_are_refused():
    async with predictor(FAILING) as desk:
        for line in (b"GET /\x00 HTTP/1.1", b"GET / HTTP/1.1\r\nbad\x00name: 1", b"G\x01T / HTTP/1.1"):
            assert (await desk.send(line + b"\r\nhost: x\r\n\r\n")).status == 400
        for lengths in (b"content-length: 2\r\ncontent-length: 20", b"content-length: -2", b"content-length: 2, 3"):
            start = b"POST /v1/models/m:predict HTTP/1.1\r\nhost: x\r\n"
            assert (await desk.send(start + lengths + b"\r\n\r\n{}")).status == 400, lengths


@given(value=st.binary(max_size=80))
def test_no_trace_id_key_or_travelling_header_carries_a_control_character(value: bytes):
    """Some ASGI servers pass header values with line feeds in them."""
    headers = [(name, value) for name in (b"x-trace-id", b"x-request-id", b"idempotency-key", b"tracestate")]
    found = [request_headers.trace_id(headers), *request_headers.travelling(headers).values()]
    try:
        found.append(request_headers.idempotency_key(headers))
    except RequestRefused as refusal:
        assert refusal.status == 400
    assert all(text.isprintable() and text.isascii() for text in found if text is not None)


@given(text=st.text(max_size=200) | st.sampled_from(INJECTIONS))
def test_ids_and_sentences_are_one_visible_line(text: str):
    for check in (check_trace_id, check_id):
        try:
            assert check(text).isprintable()
        except IdentityError as exc:
            assert str(exc).isascii() and str(exc).isprintable()
    assert trace_id_or_new(text).isascii() and trace_id_or_new(text).isprintable()
    assert not FORBIDDEN & set(public_sentence(text))
