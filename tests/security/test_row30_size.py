"""RELIABILITY row 30: what is too large is refused after the limit, and never held."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import psutil

from support.cost import cheaply
from support.doors import PLAIN, Predictor, assert_refused, post, predictor, read_reply

MIB = 1024 * 1024
GROWTH = 64 * MIB


def rss() -> int:
    """Of server and client: both run in this process."""
    return psutil.Process().memory_info().rss


async def flood(desk: Predictor, *, mib: int) -> tuple[int, int, int]:
    """Send a chunked body until nobody takes it: the status, the bytes sent, and the growth at its peak."""
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    before = peak = rss()
    sent = 0
    reader, writer = await asyncio.open_connection("127.0.0.1", desk.port)
    writer.write(b"POST /v1/models/m:predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    answer = asyncio.create_task(read_reply(reader))
    with suppress(ConnectionError):
        while sent < mib * MIB:
            writer.write(chunk)
            await writer.drain()
            sent += len(chunk)
            peak = max(peak, rss())
    reply = await answer
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return reply.status, sent, peak - before


async def test_a_chunked_body_of_a_gigabyte_is_refused_after_the_limit():
    async with predictor(PLAIN) as desk:
        status, sent, growth = await flood(desk, mib=1_000)
    assert status == 413
    assert sent < 40 * MIB  # the limit of 4, 8 that are dropped so that the answer arrives, and socket buffers
    assert growth < GROWTH
    assert desk.calls == []


async def test_ten_floods_at_once_hold_no_more_than_their_limits():
    async with predictor(PLAIN, max_body_bytes=MIB) as desk:
        results = await asyncio.gather(*(flood(desk, mib=1_000) for _ in range(10)))
    assert {status for status, _, _ in results} == {413}
    assert max(growth for _, _, growth in results) < GROWTH


async def test_a_body_that_says_it_is_too_large_is_refused_at_once():
    head = b"POST /v1/models/m:predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\nexpect: 100-continue\r\n\r\n"
    async with predictor(PLAIN) as desk:
        for size in (4 * MIB + 1, 10**9, 10**11):
            assert_refused(await desk.send(head % size), 413)


async def test_ten_thousand_headers_and_one_large_one_are_refused():
    many = [(f"h{index}", "v") for index in range(10_000)]
    async with predictor(PLAIN) as desk:
        before = rss()
        for headers in (many, many[:101], [("h", "v" * 60_000)], [("h" * 60_000, "v")]):
            raw = post("/v1/models/m:predict", b"{}", *headers)
            assert_refused(await cheaply(lambda raw=raw: desk.send(raw)), 400, 431)
        assert rss() - before < GROWTH
    assert desk.calls == []


async def test_a_million_elements_are_refused_or_answered_within_bounds():
    numbers = b"[" + b"1," * 999_999 + b"1]"
    async with predictor(PLAIN) as desk:
        for start, path in [
            (b'{"inputs": [{"name": "x", "shape": [1, 1000000], "datatype": "INT8", "data": ', "/v2/models/m/infer"),
            (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": ', "/v2/models/m/infer"),
            (b'{"instances": [{"x": ', "/v1/models/m:predict"),
        ]:
            before = rss()
            reply = await desk.post(path, start + numbers + b"}]}")
            assert reply.status in (200, 400), reply
            assert len(reply.body) < 10_000
            assert rss() - before < GROWTH
