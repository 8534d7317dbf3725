"""Streams end with a finish reason or with an error, call the after-hook once, and leave nothing open."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from llmhub_runtime import (
    CallResult,
    LLMHub,
    ProviderCallError,
    ProviderMalformedError,
    ProviderRateLimitError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    StreamAbandonedError,
    UnknownRoleError,
)
from llmhub_runtime.streams import TimeBudget
from support.llmhub import MESSAGES, config_for
from support.scripted_provider import (
    DONE,
    FULL_STREAM,
    HANGS,
    USAGE_CHUNK,
    Reply,
    ScriptedProvider,
    chunk,
    completion,
    error_reply,
    html_reply,
    json_reply,
    stream_reply,
    wait_until,
    wait_until_async,
)


@pytest.fixture
def results() -> list[CallResult]:
    return []


@pytest.fixture
async def hub(provider: ScriptedProvider, results: list[CallResult]) -> AsyncIterator[LLMHub]:
    async with LLMHub(config_obj=config_for(provider.root), on_after_call=results.append) as hub:
        yield hub


async def test_chunks_pass_through_and_usage_is_asked_for(
    hub: LLMHub, provider: ScriptedProvider, results: list[CallResult]
) -> None:
    chunks = [chunk async for chunk in hub.astream_completion("chat", MESSAGES)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "hello"
    assert provider.requests[0].body["stream_options"] == {"include_usage": True}
    (result,) = results
    assert (result.success, result.finish_reason, result.streamed) == (True, "stop", True)
    assert result.usage is not None and result.usage["total_tokens"] == 18


async def test_the_callers_stream_options_are_kept(hub: LLMHub, provider: ScriptedProvider) -> None:
    options = {"stream_options": {"include_usage": False}}
    assert [chunk async for chunk in hub.astream_completion("chat", MESSAGES, options)]
    assert provider.requests[0].body["stream_options"] == {"include_usage": False}


@pytest.mark.parametrize(
    "reply",
    [
        stream_reply(chunk("half"), chunk(" of")),
        stream_reply(chunk("half"), cut=True),
        stream_reply(chunk("a"), chunk("b", index=1), chunk(finish="stop"), USAGE_CHUNK, DONE),
        stream_reply(),
        html_reply(),
        json_reply(completion()),
        stream_reply(chunk("a"), b"data: {\n\n"),
        stream_reply(b'data: {"choices": null}\n\n'),
        stream_reply(b"data: [1]\n\n"),
    ],
    ids=["ends", "breaks", "one of two", "empty", "web page", "no stream", "bad json", "no choices", "list"],
)
async def test_a_stream_without_a_finish_reason_is_malformed_never_success(
    hub: LLMHub, provider: ScriptedProvider, results: list[CallResult], reply: Reply
) -> None:
    provider.script(reply)
    with pytest.raises(ProviderMalformedError) as caught:
        async for _ in hub.astream_completion("chat", MESSAGES):
            pass
    assert [(result.success, result.error) for result in results] == [(False, caught.value)]


async def test_the_chunks_before_a_cut_were_delivered(hub: LLMHub, provider: ScriptedProvider) -> None:
    provider.script(stream_reply(chunk("half"), cut=True))
    stream = hub.astream_completion("chat", MESSAGES)
    assert (await anext(stream)).choices[0].delta.content == "half"
    with pytest.raises(ProviderMalformedError) as caught:
        await anext(stream)
    assert caught.value.code == "cut_stream"


@pytest.mark.parametrize("role", ["chat", "openai", "ollama", "anthropic"])
async def test_a_refusal_before_the_first_chunk_keeps_its_kind(
    hub: LLMHub, provider: ScriptedProvider, role: str
) -> None:
    provider.script(error_reply(429, retry_after="3"))
    with pytest.raises(ProviderRateLimitError) as caught:
        await anext(hub.astream_completion(role, MESSAGES))
    assert caught.value.status == 429


async def test_an_error_event_in_the_stream_is_an_error(hub: LLMHub, provider: ScriptedProvider) -> None:
    provider.script(stream_reply(chunk("a"), b'data: {"error": {"message": "overloaded"}}\n\n'))
    with pytest.raises(ProviderUnavailableError, match="overloaded"):
        async for _ in hub.astream_completion("chat", MESSAGES):
            pass


async def test_mistakes_show_when_the_stream_is_made_not_when_it_is_read(hub: LLMHub) -> None:
    with pytest.raises(UnknownRoleError):
        hub.astream_completion("unheard", MESSAGES)
    with pytest.raises(UnknownRoleError):
        hub.stream_completion("unheard", MESSAGES)


async def test_closing_a_stream_early_closes_the_upstream(
    hub: LLMHub, provider: ScriptedProvider, results: list[CallResult]
) -> None:
    provider.script(stream_reply(chunk("a"), hold=True))
    async with aclosing(hub.astream_completion("chat", MESSAGES)) as stream:
        await anext(stream)
    await wait_until_async(lambda: provider.left_early == 1)
    assert [(result.success, type(result.error)) for result in results] == [(False, StreamAbandonedError)]


async def test_breaking_out_of_the_loop_closes_the_upstream(
    hub: LLMHub, provider: ScriptedProvider, results: list[CallResult]
) -> None:
    provider.script(stream_reply(chunk("a"), hold=True))
    async for _ in hub.astream_completion("chat", MESSAGES):
        break
    await wait_until_async(lambda: provider.left_early == 1)
    await wait_until_async(lambda: len(results) == 1)


async def test_cancelling_the_consumer_closes_the_upstream(
    hub: LLMHub, provider: ScriptedProvider, results: list[CallResult]
) -> None:
    provider.script(stream_reply(chunk("a"), hold=True))
    first = asyncio.Event()

    async def consume() -> None:
        async for _ in hub.astream_completion("chat", MESSAGES):
            first.set()

    consumer = asyncio.create_task(consume())
    await first.wait()
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    await wait_until_async(lambda: provider.left_early == 1)
    assert [type(result.error) for result in results] == [asyncio.CancelledError]


async def test_cancelling_before_the_first_chunk_closes_the_request(
    hub: LLMHub, provider: ScriptedProvider, results: list[CallResult]
) -> None:
    provider.script(HANGS)
    stream = hub.astream_completion("chat", MESSAGES)
    consumer = asyncio.ensure_future(anext(stream))
    await wait_until_async(lambda: len(provider.requests) == 1)
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    await wait_until_async(lambda: provider.left_early == 1)
    assert len(results) == 1


async def test_stopping_after_the_finish_reason_is_a_success(
    hub: LLMHub, provider: ScriptedProvider, results: list[CallResult]
) -> None:
    async with aclosing(hub.astream_completion("chat", MESSAGES)) as stream:
        async for part in stream:
            if part.choices[0].finish_reason:
                break
    assert [(result.success, result.error) for result in results] == [(True, None)]


async def test_a_stream_that_nobody_reads_sends_nothing(
    hub: LLMHub, provider: ScriptedProvider, results: list[CallResult]
) -> None:
    hub.astream_completion("chat", MESSAGES)
    hub.stream_completion("chat", MESSAGES)
    gc.collect()
    assert (provider.requests, results) == ([], [])


async def test_a_stall_in_the_middle_runs_into_the_time_limit(
    hub: LLMHub, provider: ScriptedProvider, results: list[CallResult]
) -> None:
    provider.script(stream_reply(chunk("a"), hold=True))
    with pytest.raises(ProviderTimeoutError, match=r"no answer within 1\.5 s"):
        async for _ in hub.astream_completion("chat", MESSAGES, {"timeout": 1.5}):
            pass
    await wait_until_async(lambda: provider.left_early == 1)
    assert len(results) == 1


async def test_the_time_limit_does_not_count_the_consumers_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    real, skipped = loop.time, [0.0]
    monkeypatch.setattr(loop, "time", lambda: real() + skipped[0])

    def skip(seconds: float) -> None:
        skipped[0] += seconds

    budget = TimeBudget(60.0)
    async with budget.spend():
        skip(40.0)
    skip(1000.0)  # the consumer takes its time
    async with budget.spend():
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError, match="no answer within 60 s"):
        async with budget.spend():
            loop.call_soon(skip, 25.0)
            await asyncio.Event().wait()


def test_the_sync_stream_reads_the_same_chunks(provider: ScriptedProvider, results: list[CallResult]) -> None:
    with LLMHub(config_obj=config_for(provider.root), on_after_call=results.append) as hub:
        chunks = list(hub.stream_completion("chat", MESSAGES))
    assert len(chunks) == len(FULL_STREAM) - 1
    assert [result.success for result in results] == [True]


def test_leaving_the_sync_loop_early_closes_the_upstream(provider: ScriptedProvider, results: list[CallResult]) -> None:
    provider.script(stream_reply(chunk("a"), hold=True))
    with LLMHub(config_obj=config_for(provider.root), on_after_call=results.append) as hub:
        for _ in hub.stream_completion("chat", MESSAGES):
            break
        wait_until(lambda: provider.left_early == 1)
        assert [type(result.error) for result in results] == [StreamAbandonedError]


def test_a_sync_stream_may_outlive_its_hub(provider: ScriptedProvider, results: list[CallResult]) -> None:
    provider.script(stream_reply(chunk("a"), hold=True))
    with LLMHub(config_obj=config_for(provider.root), on_after_call=results.append) as hub:
        stream = hub.stream_completion("chat", MESSAGES)
        next(stream)
    wait_until(lambda: provider.left_early == 1)
    stream.close()
    assert len(results) == 1


@pytest.mark.parametrize("reply", [stream_reply(chunk("x")), error_reply(503)])
def test_sync_streams_fail_like_async_ones(provider: ScriptedProvider, reply: Reply) -> None:
    provider.script(reply)
    with LLMHub(config_obj=config_for(provider.root)) as hub, pytest.raises(ProviderCallError):
        list(hub.stream_completion("chat", MESSAGES))
