"""The way the product uses it: any-llm, as OpenAI and as Ollama, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from any_llm import AnyLLM
from any_llm.exceptions import ProviderError, RateLimitError

from llmhub_runtime.sim import SimServer, parse_script

ASK: Any = [{"role": "user", "content": "Where is my parcel?"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
TOOL: Any = {"type": "function", "function": {"name": "find", "description": "", "parameters": SCHEMA}}


@pytest.fixture(params=["openai", "ollama"])
async def llm(request: pytest.FixtureRequest, sim: SimServer) -> AsyncIterator[AnyLLM]:
    if request.param == "openai":
        found: Any = AnyLLM.create(
            "openai", api_key="any", api_base=sim.openai_base, unified_exceptions=True, max_retries=0
        )
    else:
        found = AnyLLM.create("ollama", api_base=sim.base_url, unified_exceptions=True)
    yield found
    await (found.client.close() if request.param == "openai" else found.client._client.aclose())


async def test_chat(llm: AnyLLM) -> None:
    answer: Any = await llm.acompletion(model="m", messages=ASK)
    assert "Where is my parcel?" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == 5


async def test_stream(llm: AnyLLM) -> None:
    whole: Any = await llm.acompletion(model="m", messages=ASK)
    options: Any = {"stream_options": {"include_usage": True}} if llm.PROVIDER_NAME == "openai" else {}
    stream: Any = await llm.acompletion(model="m", messages=ASK, stream=True, **options)
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


async def test_schema_and_tools(llm: AnyLLM) -> None:
    answer: Any = await llm.acompletion(model="m", messages=ASK, response_format=FORMAT)
    assert json.loads(answer.choices[0].message.content)["city"].startswith("city: ")
    answer = await llm.acompletion(model="m", messages=ASK, tools=[TOOL])
    [call] = answer.choices[0].message.tool_calls
    assert (call.function.name, set(json.loads(call.function.arguments))) == ("find", {"city"})
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_embeddings_and_models(llm: AnyLLM) -> None:
    answer = await llm.aembedding(model="e", inputs=["shoes", "boots"])
    assert [len(item.embedding) for item in answer.data] == [256, 256]
    assert answer.usage.prompt_tokens == 3
    assert {model.id for model in await llm.alist_models()} == {"sim", "sim-embed"}


async def test_a_rate_limit_arrives_with_its_retry_after(llm: AnyLLM, sim: SimServer) -> None:
    sim.set_script(parse_script({"rules": [{"reply": {"fault": {"kind": "rate_limit", "retry_after": 3}}}]}))
    if llm.PROVIDER_NAME == "ollama":
        # Ollama's SDK drops the headers; the status is all that arrives.
        with pytest.raises(Exception, match="Rate limit reached"):
            await llm.acompletion(model="m", messages=ASK)
        return
    with pytest.raises(RateLimitError) as limited:
        await llm.acompletion(model="m", messages=ASK)
    assert limited.value.retry_after == "3"
    assert len(sim.log()) == 1


async def test_a_server_error_is_a_provider_error(llm: AnyLLM, sim: SimServer) -> None:
    sim.set_script(parse_script({"rules": [{"reply": {"fault": {"kind": "error", "status": 500}}}]}))
    with pytest.raises(ProviderError, match="Simulated failure 500"):
        await llm.acompletion(model="m", messages=ASK)


async def test_a_cut_stream_ends_without_a_finish_reason(llm: AnyLLM, sim: SimServer) -> None:
    fault = {"kind": "cut_stream", "after_chunks": 2}
    sim.set_script(parse_script({"rules": [{"reply": {"fault": fault}}]}))
    stream: Any = await llm.acompletion(model="m", messages=ASK, stream=True)
    assert [chunk.choices[0].finish_reason async for chunk in stream] == [None, None]
