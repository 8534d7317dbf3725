"""Whatever a provider does, the caller sees one of our errors, with its facts. The HTTP is real."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmhub_runtime import (
    LLMHub,
    ProviderAuthError,
    ProviderBadRequestError,
    ProviderCallError,
    ProviderMalformedError,
    ProviderRateLimitError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from llmhub_runtime.retry_after import parse_retry_after
from runtime_core.clock import ManualClock
from support.llmhub import MESSAGES, config_for
from support.scripted_provider import (
    HANGS,
    Reply,
    ScriptedProvider,
    completion,
    error_reply,
    html_reply,
    json_reply,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROLES = ["chat", "openai", "anthropic", "ollama"]


@pytest.fixture
async def hub(provider: ScriptedProvider) -> AsyncIterator[LLMHub]:
    async with LLMHub(config_obj=config_for(provider.root), clock=ManualClock(NOW)) as hub:
        yield hub


async def failure(hub: LLMHub, role: str = "chat", **params: Any) -> ProviderCallError:
    with pytest.raises(ProviderCallError) as caught:
        await hub.acompletion(role, MESSAGES, params)
    return caught.value


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ProviderBadRequestError),
        (401, ProviderAuthError),
        (402, ProviderAuthError),
        (403, ProviderAuthError),
        (404, ProviderBadRequestError),
        (408, ProviderTimeoutError),
        (409, ProviderUnavailableError),
        (413, ProviderBadRequestError),
        (422, ProviderBadRequestError),
        (429, ProviderRateLimitError),
        (500, ProviderUnavailableError),
        (502, ProviderUnavailableError),
        (503, ProviderUnavailableError),
        (504, ProviderTimeoutError),
        (529, ProviderUnavailableError),
    ],
)
async def test_the_status_decides_the_kind_of_error(
    hub: LLMHub, provider: ScriptedProvider, role: str, status: int, kind: type[ProviderCallError]
) -> None:
    provider.script(error_reply(status, "nope"))
    error = await failure(hub, role)
    assert type(error) is kind
    assert (error.status, error.role, error.model) == (status, role, "m")
    assert error.provider is not None and error.provider in str(error)
    assert error.__cause__ is not None
    assert len(provider.requests) == 1, "nothing below the hub may retry"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"choices": []}',
        b'{"choices": null}',
        b'{"choices": [{}]}',
        b"\xff",
    ],
)
async def test_an_answer_that_is_none_is_malformed(
    hub: LLMHub, provider: ScriptedProvider, role: str, body: bytes
) -> None:
    provider.script(Reply(200, {"content-type": "application/json"}, body))
    assert type(await failure(hub, role)) is ProviderMalformedError


@pytest.mark.parametrize("role", ROLES)
async def test_a_web_page_with_status_200_is_malformed(hub: LLMHub, provider: ScriptedProvider, role: str) -> None:
    provider.script(html_reply())
    assert type(await failure(hub, role)) is ProviderMalformedError


async def test_an_error_in_a_200_answer_is_malformed(hub: LLMHub, provider: ScriptedProvider) -> None:
    provider.script(json_reply({"error": {"message": "upstream failed", "code": 502}}))
    assert type(await failure(hub)) is ProviderMalformedError


async def test_empty_choices_in_a_complete_answer_are_malformed(hub: LLMHub, provider: ScriptedProvider) -> None:
    provider.script(json_reply(completion(choices=[])))
    error = await failure(hub)
    assert (type(error), error.code) == (ProviderMalformedError, "no_choices")


async def test_a_body_that_cannot_be_unpacked_is_malformed(hub: LLMHub, provider: ScriptedProvider) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    provider.script(Reply(200, headers, b"not gzip"))
    assert type(await failure(hub)) is ProviderMalformedError


async def test_an_answer_cut_in_the_middle_is_a_broken_connection(hub: LLMHub, provider: ScriptedProvider) -> None:
    provider.script(Reply(200, {"content-type": "application/json", "content-length": "99"}, b"{", cut=True))
    error = await failure(hub)
    assert type(error) is ProviderUnavailableError
    assert "peer closed connection" in str(error)


@pytest.mark.parametrize("role", ROLES)
async def test_nobody_listening_is_unavailable_and_says_why(hub: LLMHub, role: str) -> None:
    for name in ("sim", "openai", "anthropic", "ollama"):
        hub.set_api_base(name, "http://127.0.0.1:1")
    error = await failure(hub, role)
    assert type(error) is ProviderUnavailableError
    assert "onnect" in str(error)
    assert "http://127.0.0.1:1" in str(error)


async def test_plain_http_behind_https_is_unavailable_although_it_is_a_value_error(
    hub: LLMHub, provider: ScriptedProvider
) -> None:
    hub.set_api_base("sim", provider.base.replace("http:", "https:"))
    assert type(await failure(hub)) is ProviderUnavailableError


@pytest.mark.parametrize("role", ROLES)
async def test_a_time_limit_ends_a_call_that_hangs(hub: LLMHub, provider: ScriptedProvider, role: str) -> None:
    """ollama has no time limit per request in any-llm; the hub's own works for all of them."""
    provider.script(HANGS)
    error = await failure(hub, role, timeout=0.2)
    assert type(error) is ProviderTimeoutError
    assert "no answer within 0.2 s" in str(error)


async def test_the_roles_timeout_s_is_applied(provider: ScriptedProvider) -> None:
    provider.script(HANGS)
    async with LLMHub(config_obj=config_for(provider.root, timeout_s=0.2)) as hub:
        assert type(await failure(hub)) is ProviderTimeoutError


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("1.5", 1.5),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("soon", None),
        ("-3", None),
        ("nan", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_seconds_or_a_date(
    hub: LLMHub, provider: ScriptedProvider, status: int, header: str, seconds: float | None
) -> None:
    provider.script(error_reply(status, retry_after=header))
    assert (await failure(hub)).retry_after == seconds


@given(st.text(max_size=40) | st.floats().map(str) | st.integers().map(str))
def test_any_retry_after_gives_a_usable_number_or_none(value: str) -> None:
    seconds = parse_retry_after(value, now=NOW)
    assert seconds is None or 0 <= seconds < float("inf")


async def test_an_account_without_credit_is_not_a_rate_limit(hub: LLMHub, provider: ScriptedProvider) -> None:
    provider.script(error_reply(429, "You exceeded your quota", code="insufficient_quota"))
    error = await failure(hub)
    assert (type(error), error.code, error.status) == (ProviderAuthError, "insufficient_quota", 429)


@pytest.mark.parametrize(
    ("message", "kind", "code"),
    [
        ("maximum context length is 8192 tokens", ProviderBadRequestError, "context_length"),
        ("blocked by the safety filter", ProviderBadRequestError, "content_filter"),
        ("Incorrect API key provided", ProviderAuthError, None),
    ],
)
async def test_a_400_is_told_apart_by_what_it_says(
    hub: LLMHub, provider: ScriptedProvider, message: str, kind: type[ProviderCallError], code: str | None
) -> None:
    provider.script(error_reply(400, message))
    error = await failure(hub)
    assert (type(error), error.code) == (kind, code)


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": "hot"},
        {"no_such_parameter": 1},
        {"tools": [1]},
        {"timeout": -1},
        {"extra_body": {"x": Decimal(1)}},
    ],
    ids=lambda params: next(iter(params)),
)
async def test_a_bad_parameter_is_the_callers_fault_and_is_not_sent(
    hub: LLMHub, provider: ScriptedProvider, params: dict[str, Any]
) -> None:
    assert type(await failure(hub, **params)) is ProviderBadRequestError
    assert provider.requests == []


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "messages",
    [[], [{"role": "user", "content": object()}], [{"role": "user", "content": "\ud800"}]],
    ids=["none", "not json", "half a character"],
)
async def test_bad_messages_are_the_callers_fault_and_are_not_sent(
    hub: LLMHub, provider: ScriptedProvider, role: str, messages: list[Any]
) -> None:
    with pytest.raises(ProviderBadRequestError):
        await hub.acompletion(role, messages)
    assert provider.requests == []


async def test_neither_the_key_nor_the_answers_text_is_in_the_message(hub: LLMHub, provider: ScriptedProvider) -> None:
    provider.script(error_reply(401, "Incorrect API key provided: sk-test-key"))
    error = await failure(hub, "openai")
    assert "sk-test-key" not in str(error)
    assert "TEST_MODEL_KEY" in str(error)
    choice = {"index": 0, "message": {"role": "assistant", "content": {"secret": 1}}, "finish_reason": "stop"}
    provider.script(json_reply(completion(choices=[choice])))
    error = await failure(hub)
    assert type(error) is ProviderMalformedError
    assert "secret" not in str(error)


@pytest.mark.parametrize("data", [[], None, [{"object": "embedding", "index": 0, "embedding": []}]])
async def test_embeddings_that_are_missing_are_malformed(hub: LLMHub, provider: ScriptedProvider, data: Any) -> None:
    document = {
        "object": "list",
        "model": "e",
        "data": data,
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }
    provider.script(json_reply(document))
    with pytest.raises(ProviderMalformedError):
        await hub.aembedding("embed", "text")


async def test_fewer_embeddings_than_inputs_are_malformed(hub: LLMHub, provider: ScriptedProvider) -> None:
    data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    provider.script(json_reply({"object": "list", "model": "e", "data": data, "usage": usage}))
    with pytest.raises(ProviderMalformedError, match="2 inputs gave 1 embeddings"):
        await hub.aembedding("embed", ["a", "b"])


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["index", "message", "role", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(changes=st.dictionaries(st.sampled_from(sorted(completion())), _JSON, min_size=1, max_size=3))
def test_any_damage_to_an_answer_is_malformed_or_leaves_it_an_answer(
    provider: ScriptedProvider, changes: dict[str, Any]
) -> None:
    provider.script(Reply(200, {"content-type": "application/json"}, json.dumps(completion(**changes)).encode()))
    with LLMHub(config_obj=config_for(provider.root)) as hub:
        try:
            answer = hub.completion("chat", MESSAGES)
        except ProviderMalformedError:
            return
    assert [choice.message.content for choice in answer.choices] == ["hello"]
