"""Every fault, as a client meets it, and what the log says about it afterwards."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from llmhub_runtime.sim import SimServer, parse_script
from support.waiting import until

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Where is my parcel?"}]}
STREAM = BODY | {"stream": True, "stream_options": {"include_usage": True}}


def _use(sim: SimServer, fault: dict[str, Any], **reply: Any) -> None:
    sim.set_script(parse_script({"rules": [{"reply": {"fault": fault, **reply}}]}))


async def _answered(sim: SimServer) -> Any:
    await until(lambda: sim.log() and sim.log()[-1].outcome != "open", what="the end of the last request")
    return sim.log()[-1]


@pytest.mark.parametrize("after", [2, 0.5, 1e9, "Wed, 21 Oct 2065 07:28:00 GMT", None])
async def test_rate_limit_sends_retry_after_as_given(http: httpx.AsyncClient, sim: SimServer, after: Any) -> None:
    _use(sim, {"kind": "rate_limit", "retry_after": after})
    answer = await http.post("/v1/chat/completions", json=BODY)
    assert answer.status_code == 429
    assert answer.headers.get("retry-after") == (None if after is None else str(after))
    assert answer.json()["error"]["type"] == "rate_limit_error"
    entry = await _answered(sim)
    assert (entry.decided, entry.status, entry.usage, entry.rule) == ("fault:rate_limit", 429, None, 0)


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (None, "application/json", '"server_error"'),
        ({"oops": 1}, "application/json", '{"oops":1}'),
        ("upstream died", "text/plain; charset=utf-8", "upstream died"),
    ],
)
async def test_error_sends_the_status_and_the_body(
    http: httpx.AsyncClient, sim: SimServer, body: Any, kind: str, text: str
) -> None:
    _use(sim, {"kind": "error", "status": 503, "body": body, "headers": {"retry-after": "7"}})
    answer = await http.post("/v1/chat/completions", json=STREAM)
    assert (answer.status_code, answer.headers["content-type"]) == (503, kind)
    assert text in answer.text
    assert answer.headers["retry-after"] == "7"


async def test_error_has_ollamas_form_for_ollama(http: httpx.AsyncClient, sim: SimServer) -> None:
    _use(sim, {"kind": "error", "status": 500})
    assert (await http.post("/api/chat", json=BODY)).json() == {"error": "Simulated failure 500."}


async def test_a_cleanly_cut_stream_has_neither_finish_reason_nor_end(http: httpx.AsyncClient, sim: SimServer) -> None:
    _use(sim, {"kind": "cut_stream", "after_chunks": 3})
    answer = await http.post("/v1/chat/completions", json=STREAM)
    events = [line for line in answer.text.splitlines() if line]
    assert len(events) == 3
    assert all(json.loads(event.removeprefix("data: "))["choices"][0]["finish_reason"] is None for event in events)
    entry = await _answered(sim)
    assert (entry.outcome, entry.usage, entry.status) == ("cut", None, 200)
    text = "".join(json.loads(event[6:])["choices"][0]["delta"]["content"] for event in events)
    assert entry.completion_tokens_sent == -(-len(text) // 4) > 0


async def test_an_aborted_stream_breaks_the_connection_after_its_chunks(
    http: httpx.AsyncClient, sim: SimServer
) -> None:
    _use(sim, {"kind": "cut_stream", "after_chunks": 2, "how": "abort"})
    received = b""
    with pytest.raises(httpx.RemoteProtocolError):
        async with http.stream("POST", "/v1/chat/completions", json=STREAM) as answer:
            async for part in answer.aiter_raw():
                received += part
    assert received.count(b"data: ") == 2
    assert (await _answered(sim)).outcome == "aborted"


@pytest.mark.parametrize("how", ["clean", "abort"])
async def test_an_answer_in_one_piece_loses_its_second_half(http: httpx.AsyncClient, sim: SimServer, how: str) -> None:
    _use(sim, {"kind": "cut_stream", "how": how})
    if how == "abort":
        with pytest.raises(httpx.RemoteProtocolError):
            await http.post("/v1/chat/completions", json=BODY)
    else:
        answer = await http.post("/v1/chat/completions", json=BODY)
        with pytest.raises(json.JSONDecodeError):
            answer.json()
    assert (await _answered(sim)).usage is None


async def test_a_cut_ollama_stream_never_says_done(http: httpx.AsyncClient, sim: SimServer) -> None:
    _use(sim, {"kind": "cut_stream", "after_chunks": 2})
    answer = await http.post("/api/chat", json=BODY)
    assert [json.loads(line)["done"] for line in answer.text.splitlines()] == [False, False]


async def test_malformed_json_is_not_json(http: httpx.AsyncClient, sim: SimServer) -> None:
    _use(sim, {"kind": "malformed", "body": "bad_json"})
    for path in ("/v1/chat/completions", "/v1/embeddings", "/api/chat", "/api/embed"):
        answer = await http.post(path, json=BODY | {"input": "x"})
        assert answer.status_code == 200
        with pytest.raises(json.JSONDecodeError):
            answer.json()


async def test_a_malformed_answer_can_be_an_html_page(http: httpx.AsyncClient, sim: SimServer) -> None:
    _use(sim, {"kind": "malformed", "body": "html"})
    for body in (BODY, STREAM):
        answer = await http.post("/v1/chat/completions", json=body)
        assert (answer.status_code, answer.text[:9]) == (200, "<!doctype")
        if body is BODY:
            assert answer.headers["content-type"].startswith("text/html")


async def test_malformed_answers_have_the_fields_wrong(http: httpx.AsyncClient, sim: SimServer) -> None:
    async def ask(path: str, kind: str, **more: Any) -> Any:
        _use(sim, {"kind": "malformed", "body": kind})
        return (await http.post(path, json=BODY | {"input": "x", "stream": False} | more)).json()

    chat, embed = "/v1/chat/completions", "/v1/embeddings"
    assert (await ask(chat, "empty_choices"))["choices"] == []
    assert (await ask(chat, "null_content"))["choices"][0]["message"]["content"] is None
    assert (await ask(chat, "wrong_types"))["usage"] == "many"
    assert (await ask(embed, "empty_choices"))["data"] == []
    assert (await ask(embed, "null_content"))["data"][0]["embedding"] is None
    assert (await ask(embed, "wrong_types"))["data"][0]["embedding"] == {"x": "y"}
    assert "message" not in await ask("/api/chat", "empty_choices")
    assert (await ask("/api/chat", "null_content"))["message"]["content"] is None
    assert (await ask("/api/generate", "null_content", prompt="x"))["response"] is None
    assert (await ask("/api/embed", "wrong_types"))["embeddings"] == {"x": "y"}


async def test_a_malformed_stream_is_still_a_stream(http: httpx.AsyncClient, sim: SimServer) -> None:
    _use(sim, {"kind": "malformed", "body": "empty_choices"})
    answer = await http.post("/v1/chat/completions", json=STREAM)
    assert answer.headers["content-type"] == "text/event-stream"
    assert json.loads(answer.text.splitlines()[0][6:])["choices"] == []


async def test_a_hanging_model_answers_nothing_until_the_client_leaves(http: httpx.AsyncClient, sim: SimServer) -> None:
    _use(sim, {"kind": "hang"})
    with pytest.raises(httpx.ReadTimeout):
        await http.post("/v1/chat/completions", json=BODY, timeout=0.2)
    entry = await _answered(sim)
    assert (entry.outcome, entry.status, entry.decided) == ("client_disconnected", None, "fault:hang")


async def test_a_stream_can_stall_after_it_began(http: httpx.AsyncClient, sim: SimServer) -> None:
    _use(sim, {"kind": "hang", "after_chunks": 2})
    received = b""
    with pytest.raises(httpx.ReadTimeout):
        async with http.stream("POST", "/v1/chat/completions", json=STREAM, timeout=0.2) as answer:
            async for part in answer.aiter_raw():
                received += part
    assert received.count(b"data: ") == 2
    assert (await _answered(sim)).status == 200


async def test_reset_closes_the_socket_without_an_answer(sim: SimServer) -> None:
    _use(sim, {"kind": "reset"})
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    try:
        body = json.dumps(BODY).encode()
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        with pytest.raises(ConnectionResetError):
            await reader.read()
    finally:
        writer.close()
    entry = await _answered(sim)
    assert (entry.outcome, entry.status) == ("aborted", None)


async def test_slow_loris_drips_the_right_answer(http: httpx.AsyncClient, sim: SimServer) -> None:
    right = (await http.post("/v1/chat/completions", json=BODY)).json()
    _use(sim, {"kind": "slow_loris", "bytes_per_second": 4000})
    parts: list[bytes] = []
    async with http.stream("POST", "/v1/chat/completions", json=BODY) as answer:
        parts.extend([part async for part in answer.aiter_raw()])
    assert json.loads(b"".join(parts))["choices"] == right["choices"]
    entry = await _answered(sim)
    assert entry.duration_ms is not None
    assert entry.duration_ms >= 0.9 * 1000 * len(b"".join(parts)) / 4000
    assert entry.usage is not None


async def test_a_stream_error_comes_after_the_first_chunks(client: openai.AsyncOpenAI, sim: SimServer) -> None:
    _use(sim, {"kind": "stream_error", "after_chunks": 2, "message": "out of memory"})
    stream = await client.chat.completions.create(model="m", messages=BODY["messages"], stream=True)
    events = aiter(stream)
    assert (await anext(events)).choices[0].delta.content
    assert (await anext(events)).choices[0].delta.content
    with pytest.raises(openai.APIError, match="out of memory"):
        await anext(events)
    assert (await _answered(sim)).usage is None


async def test_a_fault_hits_embeddings_too(http: httpx.AsyncClient, sim: SimServer) -> None:
    _use(sim, {"kind": "error", "status": 500})
    assert (await http.post("/v1/embeddings", json={"model": "e", "input": "x"})).status_code == 500


async def test_a_client_that_leaves_in_mid_stream_is_noticed(http: httpx.AsyncClient, sim: SimServer) -> None:
    sim.set_script(parse_script({"rules": [{"reply": {"answer": "word " * 1000, "ms_per_token": 20}}]}))
    async with http.stream("POST", "/v1/chat/completions", json=STREAM) as answer:
        await anext(answer.aiter_raw())
    entry = await _answered(sim)
    assert entry.outcome == "client_disconnected"
    assert 0 < entry.completion_tokens_sent < 1250
    assert entry.usage is None


async def test_a_client_that_leaves_before_the_answer_is_noticed(http: httpx.AsyncClient, sim: SimServer) -> None:
    sim.set_script(parse_script({"rules": [{"reply": {"latency_ms": 60_000}}]}))
    with pytest.raises(httpx.ReadTimeout):
        await http.post("/v1/chat/completions", json=BODY, timeout=0.2)
    entry = await _answered(sim)
    assert (entry.outcome, entry.status) == ("client_disconnected", None)


async def test_stopping_ends_hanging_answers_at_once() -> None:
    async with SimServer() as sim, httpx.AsyncClient(trust_env=False) as http:
        _use(sim, {"kind": "hang"})
        call = asyncio.create_task(http.post(f"{sim.openai_base}/chat/completions", json=BODY, timeout=60))
        await until(sim.log, what="the request")
        async with asyncio.timeout(20):
            await sim.stop()
        with pytest.raises(httpx.HTTPError):
            await call
        assert sim.log()[-1].outcome == "server_stopped"
