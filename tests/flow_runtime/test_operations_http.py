"""What http.get and http.post send, and what they make of an answer (where they go: test_http_egress)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from agentflow.errors import PlaceholderFailed
from agentflow.ir import OperationSpec
from flow_runtime.errors import OperationFailed
from flow_runtime.operations import OperationCall, OperationResources, OperationSettings, bind_operation
from support.http_stub import Stub, answer, http_stub, saying
from support.waiting import until


async def ask(stub: Stub, args: dict[str, Any], *, op: str = "http.get", **settings: Any) -> Any:
    resources = OperationResources()
    bound = bind_operation(
        OperationSpec(op=op, args={"url": f"http://127.0.0.1:{stub.port}/", **args}),
        names={"profile", "context"},
        settings=OperationSettings(allow_hosts=(f"127.0.0.1:{stub.port}",), **settings),
        resources=resources,
    )
    values = {"profile": {"user_id": "u-1", "tags": ["a", 1, None]}, "context": {"user_id": "u-1"}}
    try:
        return await bound.run(values, OperationCall("announce", values["context"]))
    finally:
        await resources.aclose()


@pytest.mark.parametrize(
    ("body", "content_type", "value"),
    [
        (b'{"a": [1, null]}', "application/json", {"a": [1, None]}),
        (b'"text"', "application/json; charset=utf-8", "text"),
        (b"[1]", "application/problem+json", [1]),
        (b"[1]", "text/plain", "[1]"),
        ("grüß".encode(), "text/plain", "grüß"),
        ("grüß".encode("latin-1"), "text/plain; charset=ISO-8859-1", "grüß"),
        ("grüß".encode(), "", "grüß"),
        (b"", "application/json", None),
        (b"", "text/plain", None),
        (b"0", "application/json", 0),
    ],
)
async def test_the_value_is_the_body_as_the_server_says_it_is(body: bytes, content_type: str, value: Any):
    headers = {"Content_Type": content_type} if content_type else {}
    async with http_stub(saying(answer(body, **headers))) as stub:
        assert await ask(stub, {}) == value


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b"NaN", "application/json"),
        (b'{"a": Infinity}', "application/json"),
        (b"[" * 200_000, "application/json"),
        (b"9" * 100_000, "application/json"),
        (b"\xff\xfe\xfa", "text/plain"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"abc", "text/plain; charset=punycode"),
        (b"abc", "text/plain; charset=nonsense"),
    ],
)
async def test_a_body_that_is_not_what_it_says_is_a_failure(body: bytes, content_type: str):
    async with http_stub(saying(answer(body, Content_Type=content_type))) as stub:
        with pytest.raises(OperationFailed, match="answered 200 with a body that is n"):
            await ask(stub, {})


@pytest.mark.parametrize("status", ["400 Bad", "404 Not Found", "429 Slow Down", "500 Oops", "503 Later"])
async def test_any_other_status_is_a_failure_that_carries_it(status: str):
    async with http_stub(saying(answer(b"{}", status=status, Content_Type="application/json"))) as stub:
        with pytest.raises(OperationFailed, match=f"answered {status[:3]}") as caught:
            await ask(stub, {})
    assert (caught.value.status, caught.value.op) == (int(status[:3]), "http.get")


@pytest.mark.parametrize("status", ["201 Created", "202 Accepted", "204 No Content"])
async def test_every_status_of_success_is_one(status: str):
    async with http_stub(saying(answer(status=status))) as stub:
        assert await ask(stub, {}, op="http.post") is None


async def test_url_headers_and_body_are_filled_from_the_flow():
    async with http_stub(saying(answer())) as stub:
        args = {
            "url": f"http://127.0.0.1:{stub.port}/profiles/${{context.user_id}}?q=a b&full=1",
            "headers": {"Authorization": "Bearer ${context.user_id}", "X-Count": 3},
            "body": "${profile}",
        }
        await ask(stub, args, op="http.post")
        (request,) = stub.requests
    assert request.line == "POST /profiles/u-1?q=a%20b&full=1 HTTP/1.1"
    assert request.headers["authorization"] == "Bearer u-1"
    assert request.headers["x-count"] == "3"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == {"user_id": "u-1", "tags": ["a", 1, None]}


@pytest.mark.parametrize(
    ("body", "headers", "sent", "content_type"),
    [
        ("grüß", {}, "grüß".encode(), "text/plain; charset=utf-8"),
        (
            "a=1",
            {"content-type": "application/x-www-form-urlencoded"},
            b"a=1",
            "application/x-www-form-urlencoded",
        ),
        ([1, {"a": 2.5}], {}, b'[1, {"a": 2.5}]', "application/json"),
        (False, {}, b"false", "application/json"),
        (None, {}, b"", None),
    ],
)
async def test_a_body_is_text_as_it_is_and_anything_else_as_json(
    body: Any, headers: dict[str, str], sent: bytes, content_type: str | None
):
    async with http_stub(saying(answer())) as stub:
        await ask(stub, {"body": body, "headers": headers}, op="http.post")
        (request,) = stub.requests
    assert (request.body, request.headers.get("content-type")) == (sent, content_type)
    assert request.headers["content-length"] == str(len(sent))


async def test_get_sends_get():
    async with http_stub(saying(answer())) as stub:
        await ask(stub, {})
        assert stub.requests[0].line == "GET / HTTP/1.1"


async def test_a_body_has_a_limit_and_must_be_json():
    async with http_stub(saying(answer())) as stub:
        with pytest.raises(OperationFailed, match="at most 10 may be sent"):
            await ask(stub, {"body": "x" * 11}, op="http.post", http_max_request_bytes=10)
        for body in (float("nan"), "\ud800"):
            with pytest.raises(OperationFailed, match="cannot be written"):
                await ask_with_input(stub, body)
        assert stub.connections == 0


async def ask_with_input(stub: Stub, body: Any) -> Any:
    bound = bind_operation(
        OperationSpec(op="http.post", args={"url": f"http://127.0.0.1:{stub.port}/", "body": "${body}"}),
        names={"body"},
        settings=OperationSettings(),
        resources=OperationResources(),
    )
    return await bound.run({"body": body}, OperationCall("n", {}))


@pytest.mark.parametrize("timeout_ms", [0, -1, "soon", True, float("nan")])
async def test_a_timeout_that_is_none_is_refused(timeout_ms: Any):
    async with http_stub(saying(answer())) as stub:
        with pytest.raises(OperationFailed, match="timeout_ms must be a number above 0"):
            await ask(stub, {"timeout_ms": timeout_ms})


async def test_a_missing_value_is_a_failure_before_anything_is_sent():
    async with http_stub(saying(answer())) as stub:
        with pytest.raises(PlaceholderFailed):
            await ask(stub, {"headers": {"Authorization": "${context.auth.token}"}}, op="http.post")
        assert stub.connections == 0


@pytest.mark.parametrize(
    "parts",
    [
        (b"",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",),
        (b"SSH-2.0-x\r\n\r\n",),
        (b"\x15\x03\x01\x00",),
    ],
)
async def test_a_server_that_breaks_off_or_speaks_something_else_is_a_failure(parts: tuple[bytes, ...]):
    async def respond(request: Any, writer: asyncio.StreamWriter) -> None:
        writer.writelines(parts)
        await writer.drain()
        raise ConnectionError

    async with http_stub(respond) as stub:
        with pytest.raises(OperationFailed, match="broke off, or did not speak HTTP"):
            await ask(stub, {})


async def test_a_port_where_nobody_listens_is_a_failure():
    async with http_stub(saying(answer())) as stub:
        pass
    with pytest.raises(OperationFailed, match="no connection to http://127"):
        await ask(stub, {})


async def test_connections_are_reused_and_closed_with_the_resources():
    async with http_stub(saying(answer(b"ok"))) as stub:
        resources = OperationResources()
        bound = bind_operation(
            OperationSpec(op="http.get", args={"url": f"http://127.0.0.1:{stub.port}/"}),
            names={"context"},
            settings=OperationSettings(allow_hosts=(f"127.0.0.1:{stub.port}",)),
            resources=resources,
        )
        for _ in range(3):
            assert await bound.run({}, OperationCall("n", {})) == "ok"
        assert stub.connections == 1
        await resources.aclose()
        await until(lambda: stub.hung_up == 1, what="the end of the connection")


def test_one_set_of_resources_serves_several_event_loops():
    resources = OperationResources()

    async def once() -> str:
        async with http_stub(saying(answer(b"ok"))) as stub:
            bound = bind_operation(
                OperationSpec(op="http.get", args={"url": f"http://127.0.0.1:{stub.port}/"}),
                names={"context"},
                settings=OperationSettings(allow_hosts=(f"127.0.0.1:{stub.port}",)),
                resources=resources,
            )
            value = await bound.run({}, OperationCall("n", {}))
            await resources.aclose()
            return value

    assert [asyncio.run(once()) for _ in range(2)] == ["ok", "ok"]


async def test_a_cancelled_call_gives_its_connection_up():
    async def never(request: Any, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with http_stub(never) as stub:
        task = asyncio.create_task(ask(stub, {}))
        await until(lambda: stub.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
