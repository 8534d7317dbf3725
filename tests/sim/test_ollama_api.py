"""Ollama's API, spoken by the real SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import jsonschema
import ollama
import pytest

from llmhub_runtime.sim import Reply, Rule, Script, SimServer

ASK = [{"role": "user", "content": "Where is my parcel?"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "find", "parameters": SCHEMA}}


@pytest.fixture
async def client(sim: SimServer) -> AsyncIterator[ollama.AsyncClient]:
    found = ollama.AsyncClient(host=sim.base_url, timeout=20, trust_env=False)
    yield found
    await found._client.aclose()


async def test_a_chat_and_its_stream_say_the_same(client: ollama.AsyncClient) -> None:
    whole = await client.chat("llama3", ASK)
    parts = [part async for part in await client.chat("llama3", ASK, stream=True)]
    assert (whole.message.content or "").startswith("[sim:llama3] ")
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert (parts[-1].eval_count, parts[-1].prompt_eval_count) == (whole.eval_count, whole.prompt_eval_count)
    assert whole.prompt_eval_count == 5


async def test_both_apis_give_the_same_text(client: ollama.AsyncClient, http: httpx.AsyncClient) -> None:
    ours = await client.chat("m", ASK)
    theirs = (await http.post("/v1/chat/completions", json={"model": "m", "messages": ASK})).json()
    assert ours.message.content == theirs["choices"][0]["message"]["content"]


async def test_options_limit_the_answer(client: ollama.AsyncClient) -> None:
    short = await client.chat("m", ASK, options={"num_predict": 4})
    assert (short.done_reason, short.eval_count) == ("length", 4)
    endless = await client.chat("m", ASK, options={"num_predict": -1, "stop": ["parcel"]})
    assert endless.done_reason == "stop"
    assert (endless.message.content or "").endswith("Where is my ")


async def test_a_format_is_satisfied(client: ollama.AsyncClient) -> None:
    answer = await client.chat("m", ASK, format=SCHEMA)
    jsonschema.validate(json.loads(answer.message.content or ""), SCHEMA)
    assert isinstance(json.loads((await client.chat("m", ASK, format="json")).message.content or ""), dict)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_is_called_once(client: ollama.AsyncClient, stream: bool) -> None:
    answer = await client.chat("m", ASK, tools=[TOOL], stream=stream)
    parts = [part async for part in answer] if stream else [answer]
    [call] = [call for part in parts for call in part.message.tool_calls or []]
    assert call.function.name == "find"
    jsonschema.validate(call.function.arguments, SCHEMA)
    after = await client.chat("m", [*ASK, {"role": "tool", "content": "Lyon"}], tools=[TOOL])
    assert not after.message.tool_calls
    assert "Lyon" in (after.message.content or "")


async def test_generate_answers_a_prompt(client: ollama.AsyncClient) -> None:
    whole = await client.generate("m", "Where is my parcel?", system="Be brief.")
    parts = [part async for part in await client.generate("m", "Where is my parcel?", system="Be brief.", stream=True)]
    assert "Where is my parcel?" in (whole.response or "")
    assert "".join(part.response or "" for part in parts) == whole.response


async def test_embeddings_in_both_forms(client: ollama.AsyncClient) -> None:
    two = await client.embed("e", ["shoes", "boots"])
    one = await client.embeddings("e", "shoes")
    assert len(two.embeddings) == 2
    assert list(two.embeddings[0]) == list(one.embedding)
    assert two.prompt_eval_count == 3


async def test_the_models_are_listed_shown_and_pulled(client: ollama.AsyncClient, sim: SimServer) -> None:
    sim.set_script(Script(models=("llama3",)))
    assert [model.model for model in (await client.list()).models] == ["llama3"]
    assert [model.model for model in (await client.ps()).models] == ["llama3"]
    assert "tools" in ((await client.show("llama3")).capabilities or [])
    assert [update.status async for update in await client.pull("x", stream=True)][-1] == "success"
    assert (await client.pull("x")).status == "success"


async def test_errors_have_ollamas_form(client: ollama.AsyncClient, sim: SimServer) -> None:
    with pytest.raises(ollama.ResponseError, match="'messages'") as refused:
        await client.chat("m", [])
    assert refused.value.status_code == 400
    sim.set_script(Script(rules=(Rule(reply=Reply.model_validate({"fault": {"kind": "stream_error"}})),)))
    with pytest.raises(ollama.ResponseError, match="failed while it was answering"):
        async for _ in await client.chat("m", ASK, stream=True):
            pass
