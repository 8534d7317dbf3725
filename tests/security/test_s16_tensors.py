"""RELIABILITY S16, row 30: what a tensor says about itself is true before anybody believes it."""

from __future__ import annotations

import http.client
import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow_serve.kserve_app import build_predictor_app
from agentflow_serve.limits import EdgeLimits
from agentflow_serve.tensors import DATATYPES
from support.cost import cheaply
from support.doors import Predictor, assert_refused
from support.predictor_server import SHOUT, Runner, serving, serving_in_thread

V2 = "/v2/models/m/infer"
BINARY = "application/octet-stream"
TEXT = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}


def app() -> Any:
    return build_predictor_app(name="m", signature=SHOUT, runner=Runner(), limits=EdgeLimits(max_batch=8))


def raw(name: str, datatype: str, shape: Any, size: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def listed(name: str, datatype: str, shape: Any, data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


LIES: dict[str, tuple[list[Any], bytes]] = {
    "shape above the data": ([listed("text", "BYTES", [2], ["a"])], b""),
    "shape below the data": ([listed("text", "BYTES", [1], ["a", "b"])], b""),
    "negative shape": ([listed("n", "FP64", [-1], [1.0]), TEXT], b""),
    "two negatives": ([listed("n", "FP64", [-1, -1], [1.0]), TEXT], b""),
    "a product that overflows": ([listed("n", "FP64", [2**62, 4], [1.0]), TEXT], b""),
    "a product that wraps around": ([listed("n", "FP64", [1, 2**32, 2**32], [1.0]), TEXT], b""),
    "many dimensions": ([listed("n", "FP64", [1] * 5_000, [1.0]), TEXT], b""),
    "no dimensions": ([listed("n", "FP64", [], [1.0]), TEXT], b""),
    "a shape of fractions": ([listed("n", "FP64", [1.5], [1.0]), TEXT], b""),
    "a shape of text": ([listed("n", "FP64", "1", [1.0]), TEXT], b""),
    "unknown datatype": ([listed("n", "FP128", [1], [1.0]), TEXT], b""),
    "numpy's object datatype": ([listed("n", "|O", [1], [1.0]), TEXT], b""),
    "texts for numbers": ([listed("n", "FP64", [1], ["1"]), TEXT], b""),
    "an object for a text": ([listed("text", "BYTES", [1], [{"a": 1}])], b""),
    "nested unevenly": ([listed("n", "FP64", [1, 2], [[1.0], 2.0]), TEXT], b""),
    "out of range": ([listed("n", "FP32", [1], [1e300]), TEXT], b""),
    "batches that differ": ([listed("n", "FP64", [2], [1, 2]), TEXT], b""),
    "one name twice": ([TEXT, TEXT], b""),
    "thousands of names": ([{**TEXT, "name": f"t{index}"} for index in range(2_000)], b""),
    "negative size": ([raw("text", "BYTES", [1], -1)], b""),
    "huge size": ([raw("text", "BYTES", [1], 2**63)], b"abc"),
    "size as text": ([raw("text", "BYTES", [1], "5")], b"\x01\0\0\0a"),
    "size as truth": ([raw("text", "BYTES", [1], True)], b"a"),
    "size beyond the body": ([raw("text", "BYTES", [1], 9)], b"abc"),
    "bytes left over": ([raw("text", "BYTES", [1], 5)], b"\x01\0\0\0a..."),
    "length beyond the element": ([raw("text", "BYTES", [1], 6)], b"\xff\xff\xff\xffab"),
    "half a length": ([raw("text", "BYTES", [1], 2)], b"\x01\0"),
    "two elements for one": ([raw("text", "BYTES", [1], 8)], b"\0" * 8),
    "one element for two": ([raw("text", "BYTES", [2], 4)], b"\0" * 4),
    "not UTF-8": ([raw("text", "BYTES", [1], 6)], b"\x02\0\0\0\xff\xfe"),
    "bytes for half a number": ([raw("n", "FP64", [1], 7), TEXT], b"\0" * 7),
    "raw NaN": ([raw("n", "FP64", [1], 8), TEXT], struct.pack("<d", float("nan"))),
    "raw infinity": ([raw("n", "FP32", [1], 4), TEXT], struct.pack("<f", float("inf"))),
    "neither true nor false": ([raw("n", "BOOL", [1], 1), TEXT], b"\x02"),
    "data and bytes": ([{**raw("text", "BYTES", [1], 5), "data": ["a"]}], b"\x01\0\0\0a"),
}


async def test_a_tensor_that_lies_is_the_clients_mistake():
    async with serving(app()) as port:
        desk = Predictor(port, [])
        for lie, (inputs, buffer) in LIES.items():
            text = json.dumps({"inputs": inputs}).encode()
            length = ("inference-header-content-length", str(len(text)))
            reply = await cheaply(lambda b=text + buffer, h=length: desk.post(V2, b, h, content_type=BINARY))
            assert reply.status == 400, (lie, reply)
            assert_refused(reply, 400)
            if not buffer:
                assert_refused(await cheaply(lambda b=text: desk.post(V2, b)), 400, 422)


async def test_numbers_and_lengths_that_are_none_are_refused():
    async with serving(app()) as port:
        desk = Predictor(port, [])
        for number in (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999"):
            tensor = b'{"inputs": [{"name": "n", "shape": [1], "datatype": "FP64", "data": [%s]}]}' % number
            assert_refused(await desk.post(V2, tensor), 400)
            assert_refused(await desk.post("/v1/models/m:predict", b'{"instances": [{"n": %s}]}' % number), 400)
        for length in ("-1", "x", "9" * 30, "1e3", "0x10", "1_0", "12, 12", "\u0661"):
            header = ("inference-header-content-length", length)
            assert_refused(await desk.post(V2, b'{"inputs": []}', header, content_type=BINARY), 400)


# ---- any request ----------------------------------------------------------------------------------------------------

_NAMES = st.sampled_from(["text", "n", "request", "x"])
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
_DATA = st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
_SIZES = st.integers(-3, 40) | st.sampled_from([2**31, 2**63, 2**70, True, "4", 4.0, None])
_TENSORS = st.fixed_dictionaries(
    {
        "name": _NAMES,
        "datatype": st.sampled_from([*sorted(DATATYPES), "bytes", "TEXT", ""]),
        "shape": st.lists(st.integers(-2, 4) | st.just(2**62), max_size=4),
    },
    optional={
        "data": st.lists(_DATA, max_size=4) | _SCALARS,
        "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "content_type"]), _SIZES, max_size=2),
    },
)
_BODIES = st.fixed_dictionaries(
    {},
    optional={
        "inputs": st.lists(_TENSORS, max_size=3) | _SCALARS,
        "id": st.text(max_size=3) | st.integers(),
        "outputs": st.lists(st.fixed_dictionaries({"name": _NAMES}), max_size=2) | _SCALARS,
        "parameters": st.dictionaries(st.text(max_size=3), _SCALARS, max_size=2) | _SCALARS,
    },
)
_VISIBLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
_HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "inference-header-content-length", "accept", "x-trace-id", "traceparent"])
    | st.sampled_from(["idempotency-key", "content-encoding", "x-deadline-seconds", "x-request-id"]),
    st.sampled_from(["application/json", BINARY, "0", "-1", "13", "nan"]) | _VISIBLE,
    max_size=3,
)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving_in_thread(app()) as port:
        yield port


@settings(max_examples=150)
@given(body=_BODIES, buffers=st.binary(max_size=40), length=st.none() | st.integers(-2, 400), headers=_HEADERS)
def test_no_request_ends_in_anything_but_an_answer_or_the_clients_mistake(
    port: int, body: Any, buffers: bytes, length: Any, headers: dict[str, str]
):
    text = json.dumps(body).encode()
    sent = {"inference-header-content-length": str(len(text) if length is None else length), **headers}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", V2, text + buffers, sent)
        response = connection.getresponse()
        answer = response.read().decode()
    finally:
        connection.close()
    assert response.status in (200, 400, 408, 415, 422), (response.status, answer)
    assert "Traceback" not in answer and 'File "' not in answer
