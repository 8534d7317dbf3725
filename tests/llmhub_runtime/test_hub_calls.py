"""Calls by role: what reaches the provider, what comes back, what hooks see."""

from __future__ import annotations

import asyncio
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmhub_runtime import (
    CallContext,
    CallResult,
    ConfigError,
    EnvVarMissingError,
    LLMHub,
    LLMMode,
    ModeMismatchError,
    ProviderBadRequestError,
    ProviderUnavailableError,
    UnknownRoleError,
    UnmeteredCallError,
    UnsupportedModeError,
    parse_runtime_config,
)
from runtime_core.clock import ManualClock
from support.llmhub import MESSAGES, config_data, config_for
from support.scripted_provider import HANGS, ScriptedProvider, error_reply, wait_until_async


async def test_a_role_decides_model_and_parameters_and_the_call_wins(provider: ScriptedProvider) -> None:
    async with LLMHub(config_obj=config_for(provider.root)) as hub:
        answer = await hub.acompletion("chat", MESSAGES, {"max_tokens": 5, "temperature": 0.1})
    assert answer.choices[0].message.content == "hello"
    assert answer.usage.total_tokens == 18
    assert provider.requests[0].body == {
        "model": "m",
        "messages": MESSAGES,
        "temperature": 0.1,
        "max_completion_tokens": 5,
    }


@pytest.mark.parametrize("role", ["openai", "anthropic", "ollama"])
async def test_every_family_of_provider_answers_alike(provider: ScriptedProvider, role: str) -> None:
    async with LLMHub(config_obj=config_for(provider.root)) as hub:
        answer = await hub.acompletion(role, MESSAGES)
    assert answer.choices[0].message.content == "hello"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 7)


async def test_raw_answers_pass_through_and_pickle(provider: ScriptedProvider) -> None:
    from any_llm.types.completion import ChatCompletion, CreateEmbeddingResponse

    async with LLMHub(config_obj=config_for(provider.root)) as hub:
        answer = await hub.acompletion("chat", MESSAGES)
        vectors = await hub.aembedding("embed", ["a", "b"])
    assert isinstance(answer, ChatCompletion)
    assert isinstance(vectors, CreateEmbeddingResponse)
    assert pickle.loads(pickle.dumps(answer)) == answer


async def test_embedding_dim_reaches_the_provider_as_dimensions(provider: ScriptedProvider) -> None:
    async with LLMHub(config_obj=config_for(provider.root)) as hub:
        assert len((await hub.aembedding("embed", "text")).data[0].embedding) == 4
        assert len((await hub.aembedding("embed", ["a", "b"], {"dimensions": 2})).data[1].embedding) == 2
    assert [request.body["dimensions"] for request in provider.requests] == [4, 2]
    assert "embedding_dim" not in provider.requests[0].body


async def test_the_tool_mode_is_chat_with_tools(provider: ScriptedProvider) -> None:
    tool = {
        "type": "function",
        "function": {"name": "f", "description": "d", "parameters": {"type": "object"}},
    }
    async with LLMHub(config_obj=config_for(provider.root)) as hub:
        await hub.acompletion("tools", MESSAGES, {"tools": [tool]})
    assert provider.requests[0].body["tools"] == [tool]


@pytest.mark.parametrize("extra", [{}, {"stop": ["x"], "extra_body": {"top_k": 3}}])
@pytest.mark.parametrize(
    "messages",
    [
        MESSAGES,
        [{"role": "system", "content": [{"type": "text", "text": "é"}], "name": None}],
        [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            }
        ],
        [{"role": "user", "content": "x", "extra_content": {"google": {"a": 1}, "other": 2}}],
    ],
)
async def test_fast_messages_change_nothing_on_the_wire(
    provider: ScriptedProvider, messages: list[Any], extra: dict[str, Any]
) -> None:
    for fast in (True, False):
        async with LLMHub(config_obj=config_for(provider.root), fast_messages=fast) as hub:
            await hub.acompletion("chat", messages, extra)
    quick, slow = provider.requests
    assert quick.body == slow.body


@pytest.mark.parametrize("role", ["paint", "speak"])
async def test_image_and_audio_are_configured_but_not_supported_yet(provider: ScriptedProvider, role: str) -> None:
    async with LLMHub(config_obj=config_for(provider.root)) as hub:
        with pytest.raises(UnsupportedModeError, match="not supported yet"):
            await hub.acompletion(role, MESSAGES)
    assert provider.requests == []


async def test_a_role_of_another_mode_than_the_call_is_refused(provider: ScriptedProvider) -> None:
    async with LLMHub(config_obj=config_for(provider.root)) as hub:
        with pytest.raises(ModeMismatchError, match="needs chat") as caught:
            await hub.acompletion("embed", MESSAGES)
        assert (caught.value.role, caught.value.mode, caught.value.wanted) == ("embed", "embedding", "chat")
        with pytest.raises(ModeMismatchError, match="needs embedding"):
            await hub.aembedding("chat", "x")
        with pytest.raises(ModeMismatchError):
            hub.astream_completion("embed", MESSAGES)
    assert provider.requests == []


async def test_defaults_serve_a_missing_role_and_warn_once(
    provider: ScriptedProvider, caplog: pytest.LogCaptureFixture
) -> None:
    data = config_data(provider.root)
    data["defaults"] = {"provider": "sim", "model": "spare", "mode": "chat"}
    async with LLMHub(config_obj=parse_runtime_config(data)) as hub:
        with caplog.at_level(logging.WARNING, logger="llmhub_runtime"):
            for role in ("one", "one", "two"):
                await hub.acompletion(role, MESSAGES)
    assert [request.body["model"] for request in provider.requests] == ["spare"] * 3
    assert [record.getMessage().split("'")[1] for record in caplog.records] == ["one", "two"]


async def test_hooks_see_typed_copies_and_cannot_change_the_call(provider: ScriptedProvider) -> None:
    before: list[CallContext] = []
    after: list[CallResult] = []

    def on_before(context: CallContext) -> None:
        before.append(context)
        context.params["temperature"] = 2  # type: ignore[index]
        context.messages[0]["content"] = "changed"  # type: ignore[index]

    def on_after(result: CallResult) -> None:
        after.append(result)
        result.response.choices.clear()

    hub = LLMHub(config_obj=config_for(provider.root), on_before_call=on_before, on_after_call=on_after)
    async with hub:
        answer = await hub.acompletion("chat", MESSAGES)
    assert (before[0].role, before[0].provider, before[0].model, before[0].mode) == (
        "chat",
        "sim",
        "m",
        LLMMode.CHAT,
    )
    assert provider.requests[0].body["temperature"] == 0.5
    assert provider.requests[0].body["messages"] == [{"role": "user", "content": "hi"}]
    assert len(answer.choices) == 1
    result = after[0]
    assert (result.success, result.error, result.finish_reason) == (True, None, "stop")
    assert result.usage is not None and result.usage["total_tokens"] == 18


async def test_the_duration_is_measured_in_milliseconds(provider: ScriptedProvider) -> None:
    clock = ManualClock()
    results: list[CallResult] = []
    provider.script(HANGS)
    hub = LLMHub(config_obj=config_for(provider.root), on_after_call=results.append, clock=clock)
    async with hub:
        call = asyncio.create_task(hub.acompletion("chat", MESSAGES))
        await wait_until_async(lambda: len(provider.requests) == 1)
        clock.advance(2.5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert [(result.duration_ms, result.success) for result in results] == [(2500.0, False)]
    assert isinstance(results[0].error, asyncio.CancelledError)


async def test_the_after_hook_sees_the_error_that_the_caller_gets(provider: ScriptedProvider) -> None:
    results: list[CallResult] = []
    provider.script(error_reply(500))
    async with LLMHub(config_obj=config_for(provider.root), on_after_call=results.append) as hub:
        with pytest.raises(ProviderUnavailableError) as caught:
            await hub.acompletion("chat", MESSAGES)
    assert [(result.success, result.error, result.response) for result in results] == [(False, caught.value, None)]


async def test_a_failing_before_hook_aborts_the_call_with_its_own_error(provider: ScriptedProvider) -> None:
    results: list[CallResult] = []

    def refuse(context: CallContext) -> None:
        raise PermissionError(context.role)

    hub = LLMHub(config_obj=config_for(provider.root), on_before_call=refuse, on_after_call=results.append)
    async with hub:
        with pytest.raises(PermissionError, match="chat"):
            await hub.acompletion("chat", MESSAGES)
    assert (provider.requests, results) == ([], [])


async def test_a_failing_after_hook_is_logged_and_masks_nothing(
    provider: ScriptedProvider, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(result: CallResult) -> None:
        raise ZeroDivisionError

    provider.script(error_reply(500))
    async with LLMHub(config_obj=config_for(provider.root), on_after_call=broken) as hub:
        with pytest.raises(ProviderUnavailableError):
            await hub.acompletion("chat", MESSAGES)
        assert (await hub.acompletion("chat", MESSAGES)).choices
    assert [record.exc_info is not None for record in caplog.records if record.name == "llmhub_runtime.hooks"] == [
        True,
        True,
    ]


async def test_hooks_may_be_async_functions(provider: ScriptedProvider) -> None:
    seen: list[str] = []

    async def note(event: CallContext | CallResult) -> None:
        await asyncio.sleep(0)
        seen.append(type(event).__name__)

    async with LLMHub(config_obj=config_for(provider.root), on_before_call=note, on_after_call=note) as hub:
        await hub.aembedding("embed", "x")
    assert seen == ["CallContext", "CallResult"]


async def test_an_ad_hoc_model_is_called_like_a_role(provider: ScriptedProvider) -> None:
    results: list[CallResult] = []
    async with LLMHub(config_obj=config_for(provider.root), on_after_call=results.append) as hub:
        call = hub.ad_hoc(provider="sim", model="inline", params={"temperature": 0.9, "seed": 1})
        await hub.acompletion(call, MESSAGES, {"seed": 2})
        chunks = [chunk async for chunk in hub.astream_completion(call, MESSAGES)]
        with pytest.raises(ProviderBadRequestError):
            await hub.acompletion(call, MESSAGES, {"stream": True})
    assert chunks
    body = provider.requests[0].body
    assert (body["model"], body["temperature"], body["seed"]) == ("inline", 0.9, 2)
    assert [result.role for result in results] == ["sim/inline", "sim/inline"]


def test_an_ad_hoc_model_that_makes_no_sense_is_a_config_error() -> None:
    with LLMHub(config_obj=config_for("http://127.0.0.1:9")) as hub:
        with pytest.raises(ConfigError, match="api_base must be a URL"):
            hub.ad_hoc(provider="sim", model="m", api_base="ftp://x")
        with pytest.raises(ConfigError, match="must not set 'stream'"):
            hub.ad_hoc(provider="sim", model="m", params={"stream": True})


def test_role_names_and_resolve_tell_what_a_call_would_use() -> None:
    with LLMHub(config_obj=config_for("http://127.0.0.1:9")) as hub:
        assert hub.role_names()[:2] == ("chat", "openai")
        assert hub.resolve("chat", {"seed": 1}).params == {"temperature": 0.5, "seed": 1}
        with pytest.raises(UnknownRoleError):
            hub.resolve("unheard")


def test_exactly_one_source_of_configuration(tmp_path: Path) -> None:
    path = tmp_path / "llmhub.yaml"
    path.write_text(yaml.safe_dump(config_data("http://127.0.0.1:9")))
    LLMHub(config_path=path).close()
    for arguments in ({}, {"config_path": path, "config_obj": config_for("http://127.0.0.1:9")}):
        with pytest.raises(ConfigError, match="exactly one"):
            LLMHub(**arguments)


def test_strict_env_names_every_missing_key_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = config_data("http://127.0.0.1:9")
    data["providers"] |= {"a": {"env_key": "KEY_A"}, "b": {"env_key": "KEY_B"}, "c": {"env_key": "KEY_C"}}
    config = parse_runtime_config(data)
    monkeypatch.setenv("TEST_MODEL_KEY", "x")
    monkeypatch.setenv("KEY_A", "")
    monkeypatch.delenv("KEY_B", raising=False)
    monkeypatch.setenv("KEY_C", "x")
    with pytest.raises(EnvVarMissingError, match=r"KEY_A .*KEY_B") as caught:
        LLMHub(config_obj=config, strict_env=True)
    assert caught.value.names == ("KEY_A", "KEY_B")
    LLMHub(config_obj=config).close()


async def test_inside_a_served_flow_only_the_hub_behind_the_engine_calls(
    provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTFLOW_SERVED_FLOW", "desk")
    async with LLMHub(config_obj=config_for(provider.root)) as hub:
        with pytest.raises(UnmeteredCallError, match="served flow 'desk'"):
            await hub.acompletion("chat", MESSAGES)
        with pytest.raises(UnmeteredCallError):
            hub.astream_completion("chat", MESSAGES)
        with pytest.raises(UnmeteredCallError):
            hub.embedding("embed", "a")
    assert provider.requests == []
    async with LLMHub(config_obj=config_for(provider.root), behind_engine=True) as hub:
        await hub.acompletion("chat", MESSAGES)
    assert len(provider.requests) == 1
