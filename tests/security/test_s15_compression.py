"""RELIABILITY S15: nothing compressed is unpacked, whichever way it comes, and no answer is read without end."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import psutil
import pytest

from flow_runtime.errors import OperationFailed
from support.cost import cheaply
from support.doors import PLAIN, assert_refused, predictor
from support.http_calls import ask
from support.http_stub import Request, answer, http_stub, saying
from support.waiting import until

MIB = 1024 * 1024
BOMB = gzip.compress(b"\0" * 10 * MIB)


@pytest.mark.parametrize(
    "coding", ["gzip", "GZIP", "x-gzip", "deflate", "br", "zstd", "compress", "identity, br", "gzip, gzip", "unknown"]
)
async def test_a_compressed_request_is_refused_unread(coding: str):
    body = zlib.compress(b"\0" * 10 * MIB) if coding == "deflate" else BOMB
    async with predictor(PLAIN) as desk:
        for path in ("/v1/models/m:predict", "/v2/models/m/infer"):
            reply = await cheaply(lambda path=path: desk.post(path, body, ("content-encoding", coding)))
            assert_refused(reply, 415)
            assert reply.json()["code"] == "unsupported_encoding"
        reply = await desk.predict({"x": "a"}, headers={"content-encoding": "identity"})
        assert reply.status == 200
    assert len(desk.calls) == 1


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "GZIP", "x-gzip"])
async def test_a_compressed_answer_is_refused_and_none_is_asked_for(encoding: str):
    async with http_stub(saying(answer(BOMB, Content_Encoding=encoding))) as stub:
        with pytest.raises(OperationFailed, match="compressed"):
            await ask(stub)
        assert stub.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("chunked", [True, False])
async def test_an_answer_is_read_no_further_than_the_limit(chunked: bool):
    sent = 0

    async def endless(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 1000000000"
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        block = b"x" * 65_536
        while sent < 1_000_000_000:
            writer.write(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
            await writer.drain()
            sent += len(block)

    before = psutil.Process().memory_info().rss
    async with http_stub(endless) as stub:
        with pytest.raises(OperationFailed, match="more than 100000 bytes"):
            await ask(stub, http_max_response_bytes=100_000)
        await until(lambda: stub.hung_up, what="the end of the connection")
    assert sent < 50_000_000
    assert psutil.Process().memory_info().rss - before < 64 * MIB


async def test_an_answer_of_exactly_the_limit_is_read():
    async with http_stub(saying(answer(b"x" * 1000))) as stub:
        assert len(await ask(stub, http_max_response_bytes=1000)) == 1000
