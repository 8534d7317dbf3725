"""A mellea session over the engine: what its calls send, and what becomes of the answers. Over real HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from mellea import MelleaSession, generative
from mellea.backends import ModelOption
from mellea.backends.tools import tool
from mellea.core import CBlock
from mellea.stdlib.components import Message, SimpleComponent, ToolMessage
from mellea.stdlib.context import ChatContext, SimpleContext
from mellea.stdlib.requirements import req, simple_validate
from mellea.stdlib.sampling import RepairTemplateStrategy
from pydantic import BaseModel

from llm_client import CallFailed, CallRateLimited, CompletionResult, RequestContext
from mellea_runtime import ROLE, RoleBackend
from support.engine import check_books
from support.mellea import HandEngine, bodies, sim_backend


class City(BaseModel):
    name: str
    people: int


@generative
async def is_polite(text: str) -> bool:
    """Whether a text is polite."""


@generative
def how_many(text: str) -> int:
    """How many apples there are."""


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


async def test_a_chat_is_a_conversation_and_every_call_passes_the_engine():
    async with sim_backend() as (backend, behind):
        behind.reply(answers=["Hello.", "You said hi."])
        session = MelleaSession(backend, ChatContext())
        assert (await session.achat("Hi", model_options={"temperature": 0.5, "max_tokens": 9})).content == "Hello."
        assert (await session.achat("What did I say?", model_options={"system": "Be brief."})).content == "You said hi."
        first, second = bodies(behind)
        assert (first["temperature"], first["max_completion_tokens"]) == (0.5, 9)
        assert second["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "What did I say?"},
        ]
        check_books(await behind.rows(), behind.sent())
        answer = session.ctx.last_output()
        assert answer is not None and answer.generation.provider == "sim"
        told = behind.sent()[-1].usage
        assert told is not None and (answer.generation.usage or {})["prompt_tokens"] == told.prompt_tokens


async def test_instruct_takes_examples_grounding_and_format():
    async with sim_backend() as (backend, behind):
        behind.reply(answer={"name": "Oslo", "people": 700})
        session = MelleaSession(backend, SimpleContext())
        answer = await session.ainstruct(
            "Name a city.",
            icl_examples=["Bergen"],
            grounding_context={"land": "Norway"},
            format=City,
            strategy=None,
        )
        assert City.model_validate_json(await answer.avalue()) == City(name="Oslo", people=700)
        [body] = bodies(behind)
        assert body["response_format"]["json_schema"]["name"] == "City"
        assert all(part in body["messages"][0]["content"] for part in ("Name a city.", "Bergen", "[land] =  Norway"))


async def test_slots_answer_sync_and_async():
    async with sim_backend() as (backend, behind):
        behind.reply(answers=[{"result": True}, {"result": 3}])
        session = MelleaSession(backend, SimpleContext())
        assert await is_polite(session, text="Thank you") is True
        assert await asyncio.to_thread(how_many, session, text="three apples") == 3


async def test_a_failed_requirement_is_repaired_and_a_model_judges_on_its_own_role():
    async with sim_backend(judge="other") as (backend, behind):
        behind.script(
            {"match": {"role": "other"}, "reply": {"answers": ["no", "yes"]}},
            {"reply": {"answers": ["A long answer", "Short"]}},
        )
        session = MelleaSession(backend, ChatContext())
        answer = await session.ainstruct(
            "Write.",
            requirements=["be kind", req("be short", validation_fn=simple_validate(lambda text: len(text) < 20))],
            strategy=RepairTemplateStrategy(loop_budget=2),
            model_options={"system": "Be a poet.", "response_format": {"type": "json_object"}},
        )
        assert str(answer) == "Short"
        assert [entry.role for entry in behind.sent()] == ["chat", "other", "chat", "other"]
        _, judged, repaired, _ = bodies(behind)
        assert "The following requirements failed before:\n* be kind" in repaired["messages"][-1]["content"]
        assert "response_format" not in judged, "the form of an answer is none for a verdict on it"
        assert "Be a poet." not in json.dumps(judged)


async def test_a_session_validates_queries_and_transforms():
    async with sim_backend() as (backend, behind):
        session = MelleaSession(backend, ChatContext())
        behind.reply(answers=["It rains.", "yes", "forty", "shorter"])
        await session.achat("Weather?")
        [result] = await session.avalidate("it is about rain")
        assert result
        table = SimpleComponent(a=CBlock("1"))
        assert await (await session.aquery(table, "how many?")).avalue() == "forty"
        assert await (await session.atransform(table, "shorten it")).avalue() == "shorter"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_asks_for_a_tool_and_reads_its_result(stream: bool):
    async with sim_backend() as (backend, behind):
        behind.script(
            {
                "match": {"times": 1},
                "reply": {"tool_calls": [{"name": "weather", "arguments": {"city": "Oslo"}, "id": "call-1"}]},
            },
            {"reply": {"answer": "It rains."}},
        )
        session = MelleaSession(backend, ChatContext())
        options = {ModelOption.TOOLS: [weather], ModelOption.STREAM: stream}
        await session.ainstruct(
            "The weather?", model_options=options, tool_calls=True, strategy=None, await_result=True
        )
        asked = session.ctx.last_output()
        assert asked is not None and asked.tool_calls is not None
        [call] = asked.tool_calls
        result = call.call_func()
        session.ctx = session.ctx.add(
            ToolMessage("tool", content=result, tool_output=result, name=call.name, args=call.args, tool=call)
        )
        assert (await session.achat("And now?")).content == "It rains."
        *_, last = bodies(behind)
        roles = [(message["role"], message.get("tool_call_id")) for message in last["messages"]]
        assert roles == [("user", None), ("assistant", None), ("tool", "call-1"), ("user", None)]
        assert last["messages"][1]["tool_calls"][0]["id"] == "call-1"


async def test_a_stream_gives_deltas_and_then_the_whole_answer():
    async with sim_backend() as (backend, behind):
        behind.reply(answer="one two three")
        thunk, context = await backend.generate_from_context(
            Message("user", "Count."), ctx=ChatContext(), model_options={ModelOption.STREAM: True}
        )
        pieces = [piece async for piece in thunk if piece]
        assert len(pieces) > 1
        assert "".join(pieces) == thunk.value == "one two three"
        last = context.last_output()
        assert last is thunk and thunk.generation.streaming and thunk.generation.ttfb_ms is not None


async def test_a_stream_that_is_cut_is_an_error():
    async with sim_backend() as (backend, behind):
        behind.reply(fault={"kind": "cut_stream", "after_chunks": 1})
        thunk, _ = await backend.generate_from_context(
            CBlock("hi"), ctx=SimpleContext(), model_options={ModelOption.STREAM: True}
        )
        with pytest.raises(CallFailed):
            await asyncio.wait_for(thunk.avalue(), 20)


async def test_a_provider_that_refuses_is_the_engines_error():
    async with sim_backend() as (backend, behind):
        behind.reply(fault={"kind": "rate_limit", "retry_after": 0})
        with pytest.raises(CallRateLimited):
            await MelleaSession(backend, ChatContext()).achat("hi")


async def test_thinking_is_asked_for_and_a_call_may_name_its_own_role():
    async with sim_backend() as (backend, behind):
        session = MelleaSession(backend, ChatContext())
        await session.achat("hi", model_options={ModelOption.THINKING: True, ROLE: "other"})
        await session.achat("hi", model_options={ModelOption.THINKING: "low", "seed": 7, "stop": ["END"]})
        first, second = bodies(behind)
        assert (first["reasoning_effort"], first["model"]) == ("medium", "o")
        assert (second["reasoning_effort"], second["model"]) == ("low", "m")
        assert (second["seed"], second["stop"]) == (7, ["END"])


async def test_raw_generation_is_one_call_for_each_action_without_a_conversation():
    async with sim_backend() as (backend, behind):
        behind.script({"match": {"contains": "one"}, "reply": {"answer": "1"}}, {"reply": {"answer": "2"}})
        thunks = await backend.generate_from_raw(
            [CBlock("one"), CBlock("two")], ctx=ChatContext().add(CBlock("before"))
        )
        assert [thunk.value for thunk in thunks] == ["1", "2"]
        assert [len(body["messages"]) for body in bodies(behind)] == [1, 1]


async def test_embeddings_come_from_a_role_for_them():
    async with sim_backend() as (backend, behind):
        first, again, other = await backend.embed(["a", "a", "b"], role="embed")
        assert first == again != other
        assert [entry.kind for entry in behind.sent()] == ["embedding"]


async def test_twenty_parallel_branches_lose_no_turn():
    async with sim_backend() as (backend, behind):
        behind.reply(answer="ok")
        start = ChatContext().add(Message("user", "before")).add(Message("assistant", "yes"))

        async def branch(number: int) -> Any:
            _, context = await backend.generate_from_context(Message("user", f"branch {number}"), ctx=start)
            last = context.last_output()
            assert last is not None
            await last.avalue()
            return context

        contexts = await asyncio.gather(*(branch(number) for number in range(20)))
        assert [len(context.as_list()) for context in contexts] == [4] * 20
        said = {body["messages"][-1]["content"] for body in bodies(behind)}
        assert said == {f"branch {number}" for number in range(20)}


async def test_sync_code_in_a_thread_asks_on_the_engines_own_loop():
    async with sim_backend() as (backend, behind):
        behind.reply(answer="from afar")
        session = MelleaSession(backend, ChatContext())
        message = await asyncio.to_thread(session.chat, "hi")
        streamed = await asyncio.to_thread(session.chat, "hi", model_options={ModelOption.STREAM: True})
        assert (message.content, streamed.content) == ("from afar", "from afar")
        check_books(await behind.rows(), behind.sent())


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_model_thought_stays_with_its_answer(stream: bool):
    engine = HandEngine([CompletionResult(content="42", finish_reason="stop", reasoning="six times seven")])
    message = await MelleaSession(RoleBackend(engine), ChatContext()).achat(
        "?", model_options={ModelOption.STREAM: stream}
    )
    assert (message.content, message.thinking) == ("42", "six times seven")


async def test_on_whose_behalf_is_told_with_every_call():
    engine = HandEngine()
    backend = RoleBackend(engine, asker=lambda: RequestContext(tenant_id="acme", run_id="run-1"))
    await MelleaSession(backend, ChatContext()).achat("hi")
    await backend.embed(["a"])
    assert [context.tenant_id for context in engine.contexts if context] == ["acme"]
