"""The gateway of an InferenceService: what the service says reaches the client as it is, and nothing that steers it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from agentflow_serve.gateway import ALIVE, Gateway
from support.http_stub import Request, Respond, Stub, answer, http_stub, saying
from support.ports import free_port
from support.predictor_server import serving
from support.waiting import until

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"


@asynccontextmanager
async def gateway_to(port: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway in front of what listens on `port`."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5, trust_env=False) as client:
        app = Starlette(routes=[Mount("/", Gateway(client))])
        async with (
            serving(app) as own,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{own}", timeout=10, trust_env=False) as caller,
        ):
            yield caller


@asynccontextmanager
async def in_front_of(respond: Respond) -> AsyncIterator[tuple[httpx.AsyncClient, Stub]]:
    async with http_stub(respond) as stub, gateway_to(stub.port) as caller:
        yield caller, stub


@pytest.mark.parametrize(
    "status", ["200 OK", "400 Bad Request", "422 Unprocessable Entity", "500 Internal Server Error"]
)
async def test_status_body_and_headers_come_back_as_the_service_gave_them(status: str):
    body = '{"error": "Überraschung \\u0000"}'.encode()
    async with in_front_of(saying(answer(body, status=status, X_Trace_Id="t-1", Content_Type="x/y"))) as (caller, _):
        got = await caller.post("/v1/models/desk:predict?a=%20b", content=b'{"instances": [1]}')
    assert (f"{got.status_code}", got.content) == (status[:3], body)
    assert (got.headers["x-trace-id"], got.headers["content-type"]) == ("t-1", "x/y")


async def test_path_query_and_body_reach_the_service_and_orders_to_serve_do_not():
    orders = {
        "x-request-timeout-seconds": "0",
        "x-request-disconnect-disabled": "?1",
        "serve_multiplexed_model_id": "m",
        "X-Scope-Id": "somebody",
        "x-serve-router-pick": "1",
    }
    async with in_front_of(saying(answer(b"{}"))) as (caller, stub):
        kept = {"authorization": "Bearer k", "idempotency-key": "i-1", **orders}
        await caller.post("/v2/models/a%2Fb/infer?x=%C3%BC&y", content=b"\x00\x01", headers=kept)
        await caller.get("/v2/health/live")
    first, second = stub.requests
    assert first.line == "POST /v2/models/a%2Fb/infer?x=%C3%BC&y HTTP/1.1"
    assert first.body == b"\x00\x01"
    assert (first.headers["authorization"], first.headers["idempotency-key"]) == ("Bearer k", "i-1")
    assert first.headers.keys() & {name.lower() for name in orders} == set()
    assert second.line == "GET /v2/health/live HTTP/1.1" and "content-length" not in second.headers


async def test_a_stream_arrives_part_by_part_while_it_is_written():
    more = asyncio.Event()

    async def respond(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"5\r\none\n\n\r\n")
        await more.wait()
        writer.write(b"5\r\ntwo\n\n\r\n0\r\n\r\n")

    async with in_front_of(respond) as (caller, _), caller.stream("POST", "/s", content=b"{}") as got:
        parts = got.aiter_raw()
        assert await anext(parts) == b"one\n\n"
        more.set()
        assert b"".join([part async for part in parts]) == b"two\n\n"
        assert got.headers["content-type"] == "text/event-stream"


async def test_a_stream_that_breaks_off_is_not_made_whole():
    async def respond(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"5\r\none\n\n\r\n")
        await writer.drain()
        raise ConnectionError

    async with in_front_of(respond) as (caller, _):
        with pytest.raises(httpx.RemoteProtocolError):
            await caller.post("/s", content=b"{}")


async def test_when_the_client_leaves_the_service_is_told():
    async def respond(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        while True:  # until the connection is gone, which the stub counts
            writer.write(b"1\r\n.\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with in_front_of(respond) as (caller, stub):
        async with caller.stream("POST", "/s", content=b"{}") as got:
            await anext(got.aiter_raw())
            assert stub.hung_up == 0
        await until(lambda: stub.hung_up == 1)


async def test_a_service_that_is_not_there_is_a_503_that_says_when_to_come_back():
    async with gateway_to(free_port()) as caller:
        got = await caller.get("/v2/health/live")
        assert (got.status_code, got.json()["code"], got.headers["retry-after"]) == (503, "unavailable", "1")
        assert (await caller.get(ALIVE)).json() == {"alive": True}
