"""The predictor answers byte for byte what kserve's own ModelServer answers for the same model.

Both are asked over real sockets. The deliberate differences are the ones in DIFFERENT, and no others.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

import support
from agentflow_serve.kserve_app import build_predictor_app
from agentflow_serve.limits import EdgeLimits
from support.ports import free_port
from support.predictor_server import SHOUT, Runner, serving_in_thread

REFERENCE = Path(next(iter(support.__path__))) / "kserve_reference.py"


@dataclass(frozen=True)
class Ask:
    id: str
    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def content(self) -> bytes:
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def get(path: str, *, id: str | None = None) -> Ask:
    return Ask(id or f"GET {path}", "GET", path)


def post(id: str, path: str, body: Any = None, **headers: str) -> Ask:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Ask(id, "POST", path, body, {"content-type": "application/json", **named})


def untyped(id: str, path: str, body: Any, **headers: str) -> Ask:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Ask(id, "POST", path, body, named)


PREDICT, EXPLAIN, INFER = "/v1/models/shout:predict", "/v1/models/shout:explain", "/v2/models/shout/infer"
ONE = {"instances": [{"text": "hi", "n": 2}]}
TEXT = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["hi"]}
N = {"name": "n", "shape": [1], "datatype": "FP64", "data": [2.5]}
CE = {
    "ce-id": "1",
    "ce-source": "here",
    "ce-type": "request",
    "ce-specversion": "1.0",
}


def v2(*inputs: Any, **rest: Any) -> dict[str, Any]:
    return {"inputs": list(inputs or (TEXT, N)), **rest}


def framed(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def binary(id: str, header: Any, *buffers: bytes, length: str | None = None) -> Ask:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return Ask(
        id,
        "POST",
        INFER,
        text + b"".join(buffers),
        {
            "content-type": "application/octet-stream",
            "inference-header-content-length": str(len(text)) if length is None else length,
        },
    )


def raw(name: str, datatype: str, shape: list[int], size: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


RAW_TEXT, RAW_N = raw("text", "BYTES", [2], 14), raw("n", "FP64", [2], 16)
TWO_TEXTS, TWO_NS = framed(b"abc", b"\xc3\xa9de"[:3]), struct.pack("<dd", 1.5, -2.0)

SAME = [
    get("/"),
    Ask("HEAD /", "HEAD", "/"),
    get("/nowhere"),
    get("/v1/models"),
    get("/v1/models/shout"),
    get("/v1/models/nobody"),
    get(PREDICT),
    post("predict", PREDICT, ONE),
    post("predict two", PREDICT, {"instances": [{"text": "a"}, {"text": "é ✓", "n": 1e16}]}),
    post("predict none", PREDICT, {"instances": []}),
    post("predict with extra fields", PREDICT, {**ONE, "signature_name": "x"}),
    post("predict unknown model", "/v1/models/nobody:predict", ONE),
    post("predict malformed JSON", PREDICT, b'{"instances": ['),
    post("predict empty body", PREDICT),
    post("predict without instances", PREDICT, {"inputs": []}),
    post("predict instances not a list", PREDICT, {"instances": {"text": "a"}}),
    post("predict a list", PREDICT, [1, 2]),
    post("predict a string", PREDICT, "hi"),
    post("predict NaN", PREDICT, b'{"instances": [{"text": "a", "n": NaN}]}'),
    post("predict not UTF-8", PREDICT, b'{"instances": [{"text": "\xff"}]}'),
    post("predict with a charset", PREDICT, ONE, content_type="application/json; charset=utf-8"),
    untyped("predict without content type", PREDICT, ONE),
    untyped("predict octet-stream", PREDICT, ONE, content_type="application/octet-stream"),
    post("explain", EXPLAIN, ONE),
    post("explain unknown model", "/v1/models/nobody:explain", ONE),
    post("explain instances not a list", EXPLAIN, {"instances": 1}),
    post("binary cloud event", PREDICT, ONE, **CE),
    post("cloud event of an unknown version", PREDICT, ONE, **{**CE, "ce-specversion": "9"}),
    post("cloud event without a type", PREDICT, ONE, ce_id="1"),
    post(
        "structured cloud event",
        PREDICT,
        {
            "specversion": "1.0",
            "id": "1",
            "source": "here",
            "type": "t",
            "time": "2026-01-01T00:00:00Z",
            "data": ONE,
        },
        content_type="application/cloudevents+json",
    ),
    get("/v2"),
    get("/v2/health/live"),
    get("/v2/health/ready"),
    get("/v2/models"),
    get("/v2/models/shout"),
    get("/v2/models/nobody"),
    get("/v2/models/shout/ready"),
    get("/v2/models/nobody/ready"),
    get("/v2/models/shout/versions/1"),
    get("/v2/models/shout/versions/1/ready"),
    post("infer a version", "/v2/models/shout/versions/1/infer", v2()),
    get(INFER),
    post("POST metadata", "/v2/models/shout", {}),
    post("trailing slash", "/v2/models/shout/infer/", v2()),
    post("infer", INFER, v2()),
    post("infer with id", INFER, v2(id="abc-1")),
    post("infer with an empty id", INFER, v2(id="")),
    post("infer with parameters", INFER, v2(parameters={"a": 1, "b": "x", "c": True, "d": 0.5})),
    post("infer with extra fields", INFER, v2(whatever=[1])),
    post("infer one input", INFER, v2(TEXT)),
    post("infer a batch", INFER, v2({**TEXT, "shape": [3], "data": ["a", "b", "c"]})),
    post("infer an empty batch", INFER, v2({**TEXT, "shape": [0], "data": []})),
    post("infer nested data", INFER, v2({**TEXT, "shape": [2, 1], "data": [["a"], ["b"]]})),
    post("infer lower-case datatype", INFER, v2({**TEXT, "datatype": "bytes"})),
    post("infer large numbers", INFER, v2({**TEXT}, {**N, "data": [1e300]})),
    post("infer FP32", INFER, v2(TEXT, {**N, "datatype": "FP32", "data": [0.1]})),
    post("infer chosen outputs", INFER, v2(outputs=[{"name": "double"}, {"name": "loud"}])),
    post("infer an unknown output", INFER, v2(outputs=[{"name": "quiet"}])),
    post("infer unknown model", "/v2/models/nobody/infer", v2()),
    post("infer malformed JSON", INFER, b'{"inputs": ['),
    post("infer empty body", INFER),
    post("infer without inputs", INFER, {"id": "1"}),
    post("infer inputs not a list", INFER, {"inputs": "x"}),
    post("infer a string", INFER, "hi"),
    post("infer a tensor without data", INFER, v2({"name": "text", "shape": [1], "datatype": "BYTES"})),
    post("infer a shape of texts", INFER, v2({**TEXT, "shape": ["x"]})),
    post("infer a parameter of a wrong type", INFER, v2(parameters={"a": [1]})),
    post("infer FP16 in JSON", INFER, v2({**N, "datatype": "FP16"})),
    untyped("infer without content type", INFER, v2()),
    post("infer text/plain", INFER, v2(), content_type="text/plain"),
    post("infer binary output", INFER, v2(parameters={"binary_data_output": True})),
    post(
        "infer mixed outputs",
        INFER,
        v2(outputs=[{"name": "loud", "parameters": {"binary_data": True}}, {"name": "double"}]),
    ),
    binary("infer binary input", v2(RAW_TEXT, RAW_N), TWO_TEXTS, TWO_NS),
    binary("infer mixed inputs", v2(RAW_TEXT, {**N, "shape": [2], "data": [1, 2]}), TWO_TEXTS),
    binary("infer binary in JSON only", v2()),
    binary(
        "infer binary input and output",
        v2(RAW_TEXT, RAW_N, id="b", parameters={"binary_data_output": True}),
        TWO_TEXTS,
        TWO_NS,
    ),
    binary("infer binary, malformed JSON", b'{"inputs": ['),
    binary("infer binary without data", v2({"name": "text", "shape": [1], "datatype": "BYTES"})),
    binary("infer binary FP16 in JSON", v2({**N, "datatype": "FP16"})),
]

NOT_READY = [
    get("/v1/models/shout", id="not ready: V1"),
    get("/v2/models/shout/ready", id="not ready: V2"),
    get("/v2/health/ready", id="not ready: the server is"),
    get("/v2/models/shout", id="not ready: metadata"),
    get("/v2/models/nobody/ready", id="not ready: unknown model"),
    post("not ready: predict", PREDICT, ONE),
    post("not ready: explain", EXPLAIN, ONE),
    post("not ready: infer", INFER, v2()),
]

# What kserve's server answers, what we answer, and why we do not do as kserve does.
DIFFERENT = [
    # A broken tensor is the client's mistake; kserve lets numpy or struct fail on it.
    (post("element count", INFER, v2({**TEXT, "shape": [2]})), 500, 400),
    (post("negative dimension", INFER, v2({**TEXT, "shape": [-2]})), 200, 400),
    (post("uneven nesting", INFER, v2(TEXT, {**N, "shape": [3], "data": [[1], [2, 3]]})), 500, 400),
    (post("a text as a number", INFER, v2(TEXT, {**N, "data": ["x"]})), 500, 400),
    (post("integer out of range", INFER, v2(TEXT, {**N, "datatype": "INT8", "data": [300]})), 500, 400),
    (post("different batches", INFER, v2(TEXT, {**N, "shape": [2], "data": [1, 2]})), 500, 400),
    (binary("length header not a number", v2(), length="many"), 500, 400),
    (binary("binary JSON without inputs", {"id": "1"}), 500, 400),
    (binary("truncated BYTES", v2(raw("text", "BYTES", [1], 6)), b"\x09\0\0\0ab"), 500, 400),
    (binary("misaligned FP64", v2(RAW_TEXT, raw("n", "FP64", [2], 15)), TWO_TEXTS, TWO_NS[:15]), 500, 400),
    (binary("BYTES not UTF-8", v2(raw("text", "BYTES", [1], 5)), framed(b"\xff")), 500, 400),
    (binary("size as text", v2(raw("text", "BYTES", [1], "5")), framed(b"a")), 500, 400),
    # So is an event that kserve has parsed before it decodes it.
    (post("cloud event with a content type of its own", PREDICT, ONE, **CE, ce_contenttype="x"), 500, 400),
    # JSON that is none: Python's parser takes it, and kserve's answer to it would be JSON no more.
    (post("lone surrogate", INFER, b'{"id": "\\ud800", "inputs": []}'), 500, 400),
    (post("UTF-16", INFER, json.dumps(v2()).encode("utf-16")), 200, 400),
    # Metrics of a predictor leave through Ray Serve.
    (get("/metrics"), 200, 404),
    # One replica must not load or drop its model; last, because kserve really does it.
    (post("load", "/v2/repository/models/shout/load"), 200, 501),
    (post("unload", "/v2/repository/models/shout/unload"), 200, 501),
]


@dataclass(frozen=True)
class Servers:
    ours: httpx.Client
    starting: httpx.Client
    kserve: httpx.Client
    not_ready: Path


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("parity")
    flag = folder / "not-ready"

    async def no_replica() -> None:
        raise RuntimeError("a node has no replica")

    def app(health: Callable[[], Awaitable[None]] | None = None) -> Any:
        return build_predictor_app(name="shout", signature=SHOUT, runner=Runner(), limits=EdgeLimits(), health=health)

    with (
        _kserve(flag, log=folder / "kserve.log") as kserve_port,
        serving_in_thread(app()) as port,
        serving_in_thread(app(no_replica)) as starting_port,
        _client(port) as ours,
        _client(starting_port) as starting,
        _client(kserve_port) as kserve,
    ):
        yield Servers(ours, starting, kserve, flag)


def _client(port: int) -> httpx.Client:
    """Takes a new connection for each request: kserve's server drops the one on which it answered 500."""
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=30)


@contextmanager
def _kserve(not_ready: Path, *, log: Path) -> Iterator[int]:
    port = free_port()
    with log.open("wb") as out:
        command = [sys.executable, str(REFERENCE), str(port), str(not_ready)]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            _wait_until_live(port, process, log=log)
            yield port
        finally:
            process.kill()
            process.wait()


def _wait_until_live(port: int, process: subprocess.Popen[bytes], *, log: Path) -> None:
    give_up = time.monotonic() + 90
    while True:
        assert process.poll() is None and time.monotonic() < give_up, log.read_text()
        try:
            httpx.get(f"http://127.0.0.1:{port}/v2/health/live")
            return
        except httpx.TransportError:
            time.sleep(0.1)


_VOLATILE = [
    (re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"), b"<uuid>"),
    (re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(?:Z|\+00:00)"), b"<now>"),
]


def asked(client: httpx.Client, ask: Ask) -> dict[str, Any]:
    """What a client sees of the answer, less what is new in every answer."""
    request = client.build_request(ask.method, ask.path, content=ask.content(), headers=ask.headers)
    response = client.send(request)
    body = response.content
    for pattern, stand_in in _VOLATILE:
        body = pattern.sub(stand_in, body)
    told = ("content-type", "content-length", "inference-header-content-length", "allow")
    headers = {name: response.headers.get(name) for name in told}
    events = {name: value for name, value in response.headers.items() if name.startswith("ce-")}
    return {
        "status": response.status_code,
        "body": body,
        **headers,
        **{name: None if name in ("ce-id", "ce-time") else value for name, value in events.items()},
    }


@pytest.mark.parametrize("ask", SAME, ids=lambda ask: ask.id)
def test_the_answer_is_the_one_of_kserves_own_server(servers: Servers, ask: Ask) -> None:
    assert asked(servers.ours, ask) == asked(servers.kserve, ask)


@pytest.fixture
def not_ready(servers: Servers) -> Iterator[None]:
    servers.not_ready.touch()
    assert servers.starting.get("/v2/models/shout/ready").status_code == 503
    yield
    servers.not_ready.unlink()


@pytest.mark.usefixtures("not_ready")
@pytest.mark.parametrize("ask", NOT_READY, ids=lambda ask: ask.id)
def test_a_flow_that_is_not_ready_yet_answers_as_a_kserve_model_that_is_not(servers: Servers, ask: Ask) -> None:
    assert asked(servers.starting, ask) == asked(servers.kserve, ask)


@pytest.mark.parametrize(("ask", "kserve", "ours"), DIFFERENT, ids=lambda value: getattr(value, "id", ""))
def test_the_deliberate_differences_are_these(servers: Servers, ask: Ask, kserve: int, ours: int) -> None:
    answer = asked(servers.ours, ask)
    assert (asked(servers.kserve, ask)["status"], answer["status"]) == (kserve, ours)
    if ask.path != "/metrics":
        assert isinstance(json.loads(answer["body"])["error"], str)
