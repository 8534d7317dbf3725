"""The OpenAI API, spoken by the real SDK."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import httpx
import jsonschema
import openai
import pytest

from llmhub_runtime.sim import SimServer, count_tokens

ASK: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is my parcel?"}]
FIND: Any = {
    "type": "function",
    "function": {
        "name": "find_order",
        "parameters": {
            "type": "object",
            "properties": {"order": {"type": "string", "pattern": "^[A-Z]{2}-\\d{4}$"}, "limit": {"type": "integer"}},
            "required": ["order", "limit"],
            "additionalProperties": False,
        },
    },
}
SORT: Any = {"type": "function", "function": {"name": "sort", "parameters": {"type": "object"}}}


async def test_an_answer_quotes_the_question_and_says_what_it_is(client: openai.AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(model="gpt-4o", messages=ASK)
    answer = raw.parse()
    text = answer.choices[0].message.content or ""
    assert text.startswith("[sim:gpt-4o] ")
    assert "Where is my parcel?" in text
    assert answer.choices[0].finish_reason == "stop"
    assert answer.system_fingerprint == "agentflow-sim"
    assert raw.headers["x-agentflow-sim"] == "1"


async def test_usage_counts_four_bytes_as_a_token(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="m", messages=ASK)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 7  # 9 + 19 bytes
    assert answer.usage.completion_tokens == count_tokens(answer.choices[0].message.content or "")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_equal_requests_get_equal_answers_and_the_seed_changes_them(client: openai.AsyncOpenAI) -> None:
    async def ask(**more: Any) -> str | None:
        answer = await client.chat.completions.create(model=more.pop("model", "m"), messages=ASK, **more)
        return answer.choices[0].message.content

    assert await ask() == await ask(temperature=1.5)
    assert len({await ask(seed=1), await ask(seed=2), await ask(model="other")}) == 3


async def test_max_tokens_cuts_the_answer_and_says_so(client: openai.AsyncOpenAI) -> None:
    for limit in ("max_tokens", "max_completion_tokens"):
        more: Any = {limit: 5}
        answer = await client.chat.completions.create(model="m", messages=ASK, **more)
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 5


async def test_stop_ends_the_answer(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="m", messages=ASK, stop=["parcel", "nowhere"])
    assert (answer.choices[0].message.content or "").endswith('"Where is my ')
    assert answer.choices[0].finish_reason == "stop"


async def test_a_stream_gives_the_same_text_and_the_same_usage(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="m", messages=ASK)
    stream = await client.chat.completions.create(
        model="m", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 5
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_a_stream_tells_no_usage_unless_asked(client: openai.AsyncOpenAI, sim: SimServer) -> None:
    stream = await client.chat.completions.create(model="m", messages=ASK, stream=True)
    assert [chunk.usage async for chunk in stream if chunk.usage] == []
    assert sim.log()[-1].usage is None
    assert sim.log()[-1].completion_tokens_sent > 0


async def test_a_tool_is_called_once_with_arguments_that_fit_its_schema(client: openai.AsyncOpenAI) -> None:
    first = await client.chat.completions.create(model="m", messages=ASK, tools=[FIND, SORT])
    [choice] = first.choices
    assert choice.finish_reason == "tool_calls"
    [call] = choice.message.tool_calls or []
    assert isinstance(call, openai.types.chat.ChatCompletionMessageFunctionToolCall)
    assert call.function.name == "find_order"
    jsonschema.validate(json.loads(call.function.arguments), FIND["function"]["parameters"])

    result = {"role": "tool", "tool_call_id": call.id, "content": "It is in Lyon."}
    messages = [*ASK, choice.message.model_dump(exclude_none=True), result]
    second = await client.chat.completions.create(model="m", messages=messages, tools=[FIND, SORT])
    assert second.choices[0].message.tool_calls is None
    assert "It is in Lyon." in (second.choices[0].message.content or "")


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ("none", None),
        ("auto", "find_order"),
        ("required", "find_order"),
        ({"type": "function", "function": {"name": "sort"}}, "sort"),
    ],
)
async def test_tool_choice_is_followed(client: openai.AsyncOpenAI, choice: Any, called: str | None) -> None:
    answer = await client.chat.completions.create(model="m", messages=ASK, tools=[FIND, SORT], tool_choice=choice)
    calls = answer.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls if call.type == "function"] == ([called] if called else [])


async def test_the_tool_named_in_the_question_is_called(client: openai.AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": "please sort these"}]
    answer = await client.chat.completions.create(model="m", messages=messages, tools=[FIND, SORT])
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "sort"


async def test_a_streamed_tool_call_adds_up_to_the_whole_one(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="m", messages=ASK, tools=[FIND])
    stream = await client.chat.completions.create(model="m", messages=ASK, tools=[FIND], stream=True)
    parts = [
        part
        async for chunk in stream
        for part in (chunk.choices[0].delta.tool_calls or [])
        if part.function is not None
    ]
    [call] = whole.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert "".join(part.function.arguments or "" for part in parts if part.function) == call.function.arguments
    assert parts[0].id == call.id


async def test_a_json_schema_answer_satisfies_the_schema(client: openai.AsyncOpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "confidence": {"type": "number", "minimum": 0, "maximum": 1},
            "style": {"enum": ["budget", "premium"]},
        },
        "required": ["text", "confidence", "style"],
        "additionalProperties": False,
    }
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True}}
    answer = await client.chat.completions.create(model="m", messages=ASK, response_format=wanted)
    value = json.loads(answer.choices[0].message.content or "")
    jsonschema.validate(value, schema)
    assert value["text"] == "text: Where is my parcel"


async def test_json_object_gives_an_object(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="m", messages=ASK, response_format={"type": "json_object"})
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


async def test_an_impossible_schema_is_refused_with_a_sentence(client: openai.AsyncOpenAI) -> None:
    schema = {"type": "integer", "minimum": 5, "maximum": 4}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError, match="found no value for the schema"):
        await client.chat.completions.create(model="m", messages=ASK, response_format=wanted)


async def test_embeddings_are_the_same_as_floats_and_as_base64(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    packed = await client.embeddings.create(model="e", input=["return shoes", "refund"])
    plain = await client.embeddings.create(model="e", input=["return shoes", "refund"], encoding_format="float")
    assert [item.index for item in packed.data] == [0, 1]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert packed.usage.prompt_tokens == 5

    raw = (await http.post("/v1/embeddings", json={"model": "e", "input": "x", "encoding_format": "base64"})).json()
    assert len(struct.unpack("<256f", base64.b64decode(raw["data"][0]["embedding"]))) == 256


async def test_embeddings_have_the_dimensions_asked_for(client: openai.AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="e", input="shoes", dimensions=1536)
    assert len(answer.data[0].embedding) == 1536


async def test_embeddings_accept_token_numbers(client: openai.AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="e", input=[[1, 2], [1, 2], [3]])
    first, same, other = (item.embedding for item in answer.data)
    assert first == same != other


async def test_the_model_list_says_who_owns_the_models(client: openai.AsyncOpenAI) -> None:
    models = [model async for model in client.models.list()]
    assert models
    assert {model.owned_by for model in models} == {"agentflow-sim"}
    assert (await client.models.retrieve("gpt-4o")).id == "gpt-4o"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "not JSON"),
        (b"[" * 100_000, 400, "nested too deeply"),
        (b'{"model": NaN}', 400, "NaN is not JSON"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}', 400, "not JSON"),
        (b"[]", 400, "JSON object"),
        (b'{"messages": [{"role": "user", "content": "x"}]}', 400, "'model'"),
        (b'{"model": "m", "messages": []}', 400, "'messages'"),
        (b'{"model": "m", "messages": [{"content": "x"}]}', 400, "messages[0]"),
        (b'{"model": "m", "messages": [{"role": "user", "content": 7}]}', 400, "messages[0].content"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "n": 2}', 400, "'n'"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 0}', 400, "'max_tokens'"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [{}]}', 400, "tools[0]"),
    ],
)
async def test_a_bad_request_is_refused_in_a_sentence_and_logged(
    http: httpx.AsyncClient, sim: SimServer, body: bytes, status: int, said: str
) -> None:
    answer = await http.post("/v1/chat/completions", content=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert (sim.log()[-1].decided, sim.log()[-1].status) == ("bad_request", status)


async def test_an_unknown_path_is_not_found_and_logged(http: httpx.AsyncClient, sim: SimServer) -> None:
    answer = await http.post("/v1/completions", json={})
    assert answer.status_code == 404
    assert "/v1/completions" in answer.json()["error"]["message"]
    assert sim.log()[-1].path == "/v1/completions"
    assert (await http.get("/v1/embeddings")).status_code == 405


async def test_a_message_of_parts_counts_its_texts(client: openai.AsyncOpenAI) -> None:
    parts = [{"type": "text", "text": "What is"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    messages: Any = [{"role": "user", "content": [*parts, {"type": "text", "text": "this?"}]}]
    answer = await client.chat.completions.create(model="m", messages=messages)
    assert '"What is this?"' in (answer.choices[0].message.content or "")


async def test_the_printed_address_is_a_base_for_openai_clients_too(sim: SimServer) -> None:
    async with openai.AsyncOpenAI(api_key="any", base_url=sim.base_url, max_retries=0) as client:
        assert (await client.chat.completions.create(model="m", messages=ASK)).choices
        assert len((await client.embeddings.create(model="e", input="x")).data) == 1
        assert [model async for model in client.models.list()]
