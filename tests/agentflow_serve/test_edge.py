"""The edge keeps its promises over real sockets, whatever client and application do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_serve import request_headers
from agentflow_serve.call import admitted_call
from agentflow_serve.edge import Edge
from agentflow_serve.errors import RequestRefused
from agentflow_serve.json_text import is_deeper
from agentflow_serve.limits import EdgeLimits
from support.predictor_server import serving
from support.waiting import until

KIB = 1024


class App:
    """An ASGI application that tells what it was given, or does as `behave` says."""

    def __init__(self, behave: Any = None) -> None:
        self.behave = behave
        self.asked = 0
        self.running = 0
        self.cancelled = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        self.asked += 1
        self.running += 1
        try:
            message = await receive()
            if self.behave is not None:
                await self.behave(receive)
            admitted = admitted_call.get()
            assert admitted is not None
            told = {
                "size": len(message["body"]),
                "headers": sorted({name.decode() for name, _ in scope["headers"]}),
                "left_s": admitted.ends_at - admitted.clock(),
                "key": admitted.idempotency_key,
                "travelling": admitted.headers,
            }
            body = json.dumps(told).encode()
            head = [(b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            await send({"type": "http.response.body", "body": body})
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


async def for_ever(receive: Any) -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def edge(app: App, **limits: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(Edge(app, limits=EdgeLimits(**limits))) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        yield client


def check_refusal(response: httpx.Response, *, status: int, code: str) -> None:
    body = response.json()
    assert (response.status_code, body["code"]) == (status, code), body
    assert list(body) == ["error", "code", "node", "trace_id", "retry_after"]
    assert body["trace_id"] == response.headers["x-trace-id"]


# ---- sizes --------------------------------------------------------------------------------------------


async def test_a_body_that_says_it_is_too_large_is_refused_and_one_at_the_limit_is_not() -> None:
    app = App()
    async with edge(app, max_body_bytes=100 * KIB) as client:
        check_refusal(await client.post("/", content=b"x" * (100 * KIB + 1)), status=413, code="body_too_large")
        assert app.asked == 0
        assert (await client.post("/", content=b"x" * 100 * KIB)).json()["size"] == 100 * KIB


async def test_a_body_that_says_it_is_too_large_is_not_waited_for() -> None:
    async with serving(Edge(App(), limits=EdgeLimits())) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999\r\nexpect: 100-continue\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(64 * KIB), 10)
        writer.close()
    assert b" 413 " in answer.splitlines()[0]


async def test_the_refusal_of_a_large_body_reaches_a_client_that_is_still_sending() -> None:
    async with edge(App(), max_body_bytes=KIB) as client:
        response = await client.post("/", content=_pieces(b"x" * KIB, times=300))
        check_refusal(response, status=413, code="body_too_large")
        assert response.headers["connection"] == "close"
        assert (await client.post("/", content=b"fine")).status_code == 200


async def _pieces(piece: bytes, *, times: int) -> AsyncIterator[bytes]:
    for _ in range(times):
        yield piece


async def test_too_many_headers_and_too_large_headers_are_refused() -> None:
    async with edge(App(), max_headers=50, max_header_bytes=2000) as client:
        many = {f"h{n}": "v" for n in range(50)}
        check_refusal(await client.get("/", headers=many), status=431, code="headers_too_large")
        check_refusal(await client.get("/", headers={"h": "v" * 2000}), status=431, code="headers_too_large")
        assert (await client.get("/")).is_success


async def test_more_requests_than_allowed_at_once_are_turned_away_and_counted_off_again() -> None:
    release = asyncio.Event()

    async def wait(receive: Any) -> None:
        await release.wait()

    app = App(wait)
    async with edge(app, max_concurrent_requests=2) as client:
        first = [asyncio.create_task(client.post("/")) for _ in range(2)]
        await until(lambda: app.running == 2)
        refused = await client.post("/")
        check_refusal(refused, status=503, code="overloaded")
        assert refused.headers["retry-after"] == "1"
        release.set()
        assert [(await response).status_code for response in first] == [200, 200]
        assert (await client.post("/")).status_code == 200


# ---- JSON ---------------------------------------------------------------------------------------------


async def test_brackets_in_strings_and_in_raw_tensors_are_not_depth() -> None:
    async with edge(App()) as client:
        text = json.dumps({"a": "[" * 1000 + '\\"' * 10}).encode()
        assert (await client.post("/v1/models/m:predict", content=text)).is_success
        response = await client.post(
            "/v2/models/m/infer",
            content=b'{"inputs":[]}' + b"[" * 1000,
            headers={"content-type": "application/octet-stream", "inference-header-content-length": "13"},
        )
        assert response.is_success


async def test_the_json_of_a_binary_request_may_not_be_deep_either() -> None:
    async with edge(App()) as client:
        response = await client.post(
            "/v2/models/m/infer",
            content=b"[" * 1000 + b"raw",
            headers={"content-type": "application/octet-stream", "inference-header-content-length": "1000"},
        )
        check_refusal(response, status=400, code="too_deep")


@pytest.mark.parametrize("length", ["13", "0", "-1", "x"])
async def test_a_claimed_json_length_hides_no_depth_where_the_whole_body_is_json(length: str) -> None:
    headers = {"inference-header-content-length": length}
    async with edge(App()) as client:
        for path, content_type in [
            ("/v1/models/m:predict", "application/octet-stream"),
            ("/v2/models/m/infer", "application/json"),
        ]:
            response = await client.post(path, content=b"[" * 1000, headers={**headers, "content-type": content_type})
            check_refusal(response, status=400, code="too_deep")


_JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a"\\[]{}'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='a"\\[{'), inner, max_size=3),
    max_leaves=30,
)


@given(value=_JSON)
def test_the_measured_depth_is_the_depth_of_the_value(value: Any) -> None:
    text, depth = json.dumps(value).encode(), _depth(value)
    assert not is_deeper(text, than=depth)
    assert depth == 0 or is_deeper(text, than=depth - 1)


@pytest.mark.parametrize("padding", [0, 1, 65_535, 65_536, 200_000])
def test_depth_is_measured_across_any_length_of_text(padding: int) -> None:
    for before in (b"[]" * padding, b'"",' * padding, b'"' + b"[" * padding + b'"'):
        assert is_deeper(before + b"[" * 65, than=64)
        assert not is_deeper(before + b"[" * 64, than=64)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


# ---- time ---------------------------------------------------------------------------------------------


async def test_the_deadline_answers_408_and_cancels_the_run() -> None:
    app = App(for_ever)
    async with edge(app, deadline_s=0.2) as client:
        check_refusal(await client.post("/"), status=408, code="deadline_exceeded")
        await until(lambda: app.cancelled == 1 and app.running == 0)


async def test_the_deadline_answers_408_although_the_run_does_not_stop() -> None:
    release = asyncio.Event()

    async def stubborn(receive: Any) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    app = App(stubborn)
    async with edge(app, deadline_s=0.1) as client:
        check_refusal(await client.post("/"), status=408, code="deadline_exceeded")
        assert app.running == 1
        release.set()
        await until(lambda: app.running == 0)


async def test_a_client_may_shorten_the_deadline_but_not_extend_it() -> None:
    async with edge(App(), deadline_s=30) as client:

        async def left_s(asked: str) -> float:
            return (await client.post("/", headers={"x-deadline-seconds": asked})).json()["left_s"]

        assert 1 < await left_s("2.5") <= 2.5
        assert 25 < await left_s("3000") <= 30
        assert 25 < await left_s("1e3") <= 30


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "", "1e999", "1_0", "0x1", "5, 5", "abc"])
async def test_a_deadline_that_is_no_positive_number_is_refused(value: str) -> None:
    async with edge(App()) as client:
        response = await client.post("/", headers={"x-deadline-seconds": value})
        check_refusal(response, status=400, code="bad_header")


async def test_a_body_that_does_not_arrive_is_given_up_at_the_deadline() -> None:
    async with serving(Edge(App(), limits=EdgeLimits(deadline_s=0.2))) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345")
        head = await reader.read(64 * KIB)
        writer.close()
    assert b" 408 " in head.splitlines()[0]


# ---- the connection -----------------------------------------------------------------------------------


@pytest.mark.parametrize("half_close", [False, True])
async def test_a_client_that_leaves_cancels_its_run_within_half_a_second(half_close: bool) -> None:
    """uvicorn does not cancel a request whose client has left: the edge's own watch does."""
    app = App(for_ever)
    async with serving(Edge(app, limits=EdgeLimits())) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        await until(lambda: app.running == 1)
        if half_close:
            writer.write_eof()
        else:
            writer.transport.abort()
        await until(lambda: app.cancelled == 1, within_s=0.5)
        writer.close()


async def test_a_client_that_leaves_before_its_body_is_complete_starts_nothing() -> None:
    app = App()
    server = Edge(app, limits=EdgeLimits())
    messages = iter([{"type": "http.request", "body": b"12", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    await server(_scope(), receive, send)
    assert (app.asked, sent) == (0, [])


async def test_an_application_that_waits_for_the_disconnect_is_told() -> None:
    heard: list[str] = []

    async def listen(receive: Any) -> None:
        try:
            heard.append((await receive())["type"])
        except asyncio.CancelledError:
            heard.append("cancelled")
            raise

    app = App(listen)
    async with serving(Edge(app, limits=EdgeLimits())) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        await until(lambda: app.running == 1)
        writer.transport.abort()
        await until(lambda: heard and app.running == 0)
    assert heard[0] in ("http.disconnect", "cancelled")


async def test_a_server_that_cancels_the_request_cancels_the_run() -> None:
    app = App(for_ever)
    request = asyncio.create_task(Edge(app, limits=EdgeLimits())(_scope(), _receive_forever(), _ignore))
    await until(lambda: app.running == 1)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert (app.cancelled, app.running) == (1, 0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_answered_request_leaves_no_task_behind() -> None:
    app = App()
    await Edge(app, limits=EdgeLimits())(_scope(), _receive_forever(), _ignore)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_two_requests_on_one_connection_are_answered_in_turn() -> None:
    async with serving(Edge(App(), limits=EdgeLimits())) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
        writer.write(request + request)
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 2:
            answers += await asyncio.wait_for(reader.read(64 * KIB), 10)
        writer.close()


@pytest.mark.parametrize("error", [ValueError("/srv/secret.py"), asyncio.CancelledError()])
async def test_an_application_that_breaks_is_answered_for(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(receive: Any) -> None:
        raise error

    async with edge(App(fail)) as client:
        response = await client.post("/")
    defect = isinstance(error, ValueError)
    code = "internal" if defect else "unavailable"
    check_refusal(response, status=500 if defect else 503, code=code)
    assert "secret" not in response.text
    assert ("secret" in caplog.text) == defect


# ---- headers ------------------------------------------------------------------------------------------


async def test_the_run_gets_the_idempotency_key_and_the_headers_that_travel() -> None:
    travels = {"x-request-id": "r1", "traceparent": TRACEPARENT}
    sent = {"idempotency-key": "order-7", "cookie": "secret", **travels}
    async with edge(App()) as client:
        told = (await client.post("/", headers=sent)).json()
        assert told["key"] == "order-7"
        assert told["travelling"] == travels
        for bad in ("a b", "k" * 256, ""):
            response = await client.post("/", headers={"idempotency-key": bad})
            check_refusal(response, status=400, code="bad_header")


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("given_headers", "answered"),
    [
        ({"x-trace-id": "run-1.a_b"}, "run-1.a_b"),
        ({"traceparent": TRACEPARENT}, TRACE),
        ({"traceparent": TRACEPARENT, "x-trace-id": "mine"}, "mine"),
        ({"traceparent": TRACEPARENT.replace(TRACE, "0" * 32)}, None),
        ({"traceparent": "ff" + TRACEPARENT[2:]}, None),
        ({"x-trace-id": "x" * 65}, None),
        ({"x-trace-id": "a b"}, None),
        ({"x-trace-id": "-"}, None),
        ({}, None),
    ],
)
async def test_every_answer_has_a_trace_id_the_clients_own_if_it_is_valid(
    given_headers: dict[str, str], answered: str | None
) -> None:
    async with edge(App()) as client:
        trace = (await client.get("/", headers=given_headers)).headers["x-trace-id"]
        assert trace == answered or (answered is None and len(trace) == 32)
        refused = await client.get("/", headers={**given_headers, "x-deadline-seconds": "no"})
        assert refused.json()["trace_id"] == refused.headers["x-trace-id"]


@given(value=st.text(max_size=20) | st.floats().map(str))
def test_a_deadline_header_gives_a_time_within_the_limit_or_a_refusal(value: str) -> None:
    try:
        seconds = request_headers.deadline_s([(b"x-deadline-seconds", value.encode())], limit_s=60)
    except RequestRefused as refusal:
        assert refusal.status == 400
    else:
        assert 0 < seconds <= 60


def _scope() -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": "/", "headers": []}


def _receive_forever() -> Any:
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        return await asyncio.Event().wait()

    return receive


async def _ignore(message: Any) -> None:
    pass
