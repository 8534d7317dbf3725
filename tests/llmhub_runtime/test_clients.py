"""Clients are kept per loop and endpoint, work from everywhere, and nothing of them is left after closing."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest

from llmhub_runtime import (
    CallContext,
    CallResult,
    HubClosedError,
    LLMHub,
    LLMHubRuntimeError,
    ProviderCallError,
)
from support.llmhub import MESSAGES, config_for
from support.scripted_provider import HANGS, ScriptedProvider, wait_until, wait_until_async


async def test_calls_one_after_the_other_share_one_socket(provider: ScriptedProvider) -> None:
    async with LLMHub(config_obj=config_for(provider.root)) as hub:
        for role in ("chat", "tools", "chat", "chat"):
            await hub.acompletion(role, MESSAGES)
        await hub.aembedding("embed", "x")
        assert [chunk async for chunk in hub.astream_completion("chat", MESSAGES)]
    assert len(provider.requests) == 6
    assert provider.sockets_used == 1


async def test_twenty_calls_at_once_and_again(provider: ScriptedProvider) -> None:
    """A client per call would use sixty sockets."""
    async with LLMHub(config_obj=config_for(provider.root)) as hub:
        for _ in range(3):
            answers = await asyncio.gather(*(hub.acompletion("chat", MESSAGES) for _ in range(20)))
            assert [answer.choices[0].message.content for answer in answers] == ["hello"] * 20
    assert len(provider.requests) == 60
    assert provider.sockets_used <= 20


async def test_one_client_is_made_for_each_endpoint(
    provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    from any_llm import AnyLLM

    made: list[str] = []
    for name in ("create", "create_openai_compatible"):
        real = getattr(AnyLLM, name)

        def counted(kind: str, *args: object, _real: object = real, **options: object) -> object:
            made.append(kind)
            assert options["max_retries" if kind != "ollama" else "unified_exceptions"] in (0, True)
            return _real(kind, *args, **options)  # type: ignore[operator]

        monkeypatch.setattr(AnyLLM, name, counted)
    async with LLMHub(config_obj=config_for(provider.root)) as hub:
        await hub.awarm_up(["chat", "openai"])
        for role in ("chat", "openai", "tools", "ollama", "chat"):
            await hub.acompletion(role, MESSAGES)
    assert sorted(made) == ["ollama", "openai", "sim"]


async def test_a_new_key_in_the_environment_is_used_by_the_next_call(
    provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with LLMHub(config_obj=config_for(provider.root)) as hub:
        await hub.acompletion("openai", MESSAGES)
        monkeypatch.setenv("TEST_MODEL_KEY", " sk-rotated\n")
        await hub.acompletion("openai", MESSAGES)
    keys = [request.headers["authorization"] for request in provider.requests]
    assert keys == ["Bearer sk-test-key", "Bearer sk-rotated"]


def test_a_hub_works_in_one_event_loop_after_another_and_each_leaves_nothing(
    provider: ScriptedProvider,
) -> None:
    with LLMHub(config_obj=config_for(provider.root)) as hub:
        for _ in range(3):
            answer = asyncio.run(hub.acompletion("chat", MESSAGES))
            assert answer.choices[0].message.content == "hello"
            wait_until(lambda: provider.open_connections == 0)
    assert provider.sockets_used == 3


def test_sync_calls_share_one_loop_and_one_socket(provider: ScriptedProvider) -> None:
    with LLMHub(config_obj=config_for(provider.root)) as hub:
        for _ in range(3):
            assert hub.completion("chat", MESSAGES).choices[0].message.content == "hello"
        assert len(hub.embedding("embed", ["a", "b"]).data) == 2
    assert provider.sockets_used == 1


async def test_sync_calls_work_while_an_event_loop_runs_in_the_thread(provider: ScriptedProvider) -> None:
    async with LLMHub(config_obj=config_for(provider.root)) as hub:
        assert hub.completion("chat", MESSAGES).choices[0].message.content == "hello"
        assert list(hub.stream_completion("chat", MESSAGES))
        assert (await hub.acompletion("chat", MESSAGES)).choices


def test_sync_calls_from_many_threads(provider: ScriptedProvider) -> None:
    with LLMHub(config_obj=config_for(provider.root)) as hub, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: hub.completion("chat", MESSAGES), range(24)))
    assert len(answers) == len(provider.requests) == 24
    assert provider.sockets_used <= 8


def test_sync_calls_carry_the_callers_context_variables(provider: ScriptedProvider) -> None:
    request_id: ContextVar[str] = ContextVar("request_id")
    seen: list[str] = []
    with LLMHub(config_obj=config_for(provider.root), on_before_call=lambda _: seen.append(request_id.get())) as hub:
        for name in ("one", "two"):
            request_id.set(name)
            hub.completion("chat", MESSAGES)
    assert seen == ["one", "two"]


def test_a_hook_that_would_wait_for_itself_is_told_so(provider: ScriptedProvider) -> None:
    errors: list[Exception] = []

    async def on_after(result: CallResult) -> None:
        for waits_for_itself in (lambda: hub.completion("chat", MESSAGES), hub.close):
            with pytest.raises(LLMHubRuntimeError, match="wait for itself") as caught:
                waits_for_itself()
            errors.append(caught.value)
        with pytest.raises(LLMHubRuntimeError, match="wait for itself") as caught:
            await hub.aclose()
        errors.append(caught.value)

    with LLMHub(config_obj=config_for(provider.root), on_after_call=on_after) as hub:
        assert hub.completion("chat", MESSAGES).choices
    assert len(errors) == 3


def test_closing_ends_a_sync_call_in_flight(provider: ScriptedProvider) -> None:
    provider.script(HANGS)
    hub = LLMHub(config_obj=config_for(provider.root))
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(hub.completion, "chat", MESSAGES)
        wait_until(lambda: len(provider.requests) == 1)
        hub.close()
        with pytest.raises(HubClosedError):
            call.result()


async def test_a_closed_hub_refuses_calls_and_closing_again_is_fine(provider: ScriptedProvider) -> None:
    hub = LLMHub(config_obj=config_for(provider.root))
    await hub.acompletion("chat", MESSAGES)
    hub.completion("chat", MESSAGES)
    for _ in range(2):
        await hub.aclose()
    hub.close()
    with pytest.raises(HubClosedError):
        await hub.acompletion("chat", MESSAGES)
    with pytest.raises(HubClosedError):
        hub.completion("chat", MESSAGES)
    with pytest.raises(HubClosedError):
        list(hub.stream_completion("chat", MESSAGES))


async def test_close_refuses_to_leave_clients_of_the_running_loop_open(provider: ScriptedProvider) -> None:
    async with LLMHub(config_obj=config_for(provider.root)) as hub:
        await hub.acompletion("chat", MESSAGES)
        with pytest.raises(LLMHubRuntimeError, match="aclose"):
            hub.close()
        assert (await hub.acompletion("chat", MESSAGES)).choices, "a refused close changes nothing"


@pytest.mark.parametrize("way", ["close", "aclose"])
async def test_closing_reaches_the_clients_of_loops_in_other_threads(provider: ScriptedProvider, way: str) -> None:
    hub = LLMHub(config_obj=config_for(provider.root))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(hub.acompletion("chat", MESSAGES), loop).result()
        assert provider.open_connections == 1
        if way == "aclose":
            await hub.aclose()
        else:
            hub.close()
        await wait_until_async(lambda: provider.open_connections == 0)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_closing_reaches_the_clients_of_a_loop_that_is_at_rest(provider: ScriptedProvider) -> None:
    hub = LLMHub(config_obj=config_for(provider.root))
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(hub.acompletion("chat", MESSAGES))
        hub.close()
        wait_until(lambda: provider.open_connections == 0)
    finally:
        loop.close()


def test_a_hub_that_is_dropped_ends_its_thread_and_closes_its_clients(provider: ScriptedProvider) -> None:
    hub = LLMHub(config_obj=config_for(provider.root))
    hub.completion("chat", MESSAGES)
    del hub
    gc.collect()
    wait_until(lambda: provider.open_connections == 0)
    wait_until(lambda: "llmhub-sync" not in {thread.name for thread in threading.enumerate()})


async def test_a_failed_call_leaves_the_client_usable(provider: ScriptedProvider) -> None:
    provider.script(HANGS)
    async with LLMHub(config_obj=config_for(provider.root)) as hub:
        with pytest.raises(ProviderCallError):
            await hub.acompletion("chat", MESSAGES, {"timeout": 0.1})
        assert (await hub.acompletion("chat", MESSAGES)).choices


async def test_a_before_hook_may_make_an_async_call_of_its_own(provider: ScriptedProvider) -> None:
    async def look_up(context: CallContext) -> None:
        if context.role == "chat":
            await hub.acompletion("tools", MESSAGES)

    async with LLMHub(config_obj=config_for(provider.root), on_before_call=look_up) as hub:
        await hub.acompletion("chat", MESSAGES)
        await asyncio.to_thread(hub.completion, "chat", MESSAGES)
    assert len(provider.requests) == 4
