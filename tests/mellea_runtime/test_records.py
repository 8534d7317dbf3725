"""Conversations as records: what goes in comes out again, and only what was added goes on."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mellea import MelleaSession
from mellea.backends.tools import tool
from mellea.core import CBlock
from mellea.stdlib.components import Instruction, Message, ToolMessage
from mellea.stdlib.context import ChatContext

from llm_client.results import CompletionResult, ToolCall
from mellea_runtime import ContextNotPortable, RoleBackend, delta, freeze, merge, thaw
from runtime_core.sessions.records import RecordUsage, SessionRecord
from support.mellea import HandEngine

counter = itertools.count()


def new_id() -> str:
    return f"r{next(counter)}"


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return "rain"


def without_ids(records: tuple[SessionRecord, ...]) -> list[SessionRecord]:
    return [record.model_copy(update={"record_id": "-"}) for record in records]


async def test_a_conversation_with_tools_goes_through_json_and_continues():
    call = ToolCall(id="c1", name="weather", arguments='{"city": "Oslo"}')
    engine = HandEngine([CompletionResult(content="", finish_reason="tool_calls", tool_calls=(call,)), "It rains."])
    session = MelleaSession(RoleBackend(engine), ChatContext())
    await session.aact(
        Instruction("Weather?"), strategy=None, tool_calls=True, model_options={"tools": [weather]}, await_result=True
    )
    asked = session.ctx.last_output()
    assert asked is not None and asked.tool_calls
    wanted = asked.tool_calls[0]
    session.ctx = session.ctx.add(ToolMessage("tool", "rain", "rain", wanted.name, wanted.args, wanted))
    await session.achat("So?")

    records = freeze(session.ctx, run_id="run-1", new_id=new_id, node="n")
    assert [record.role for record in records] == ["user", "assistant", "tool", "user", "assistant"]
    stored = json.loads(json.dumps([record.model_dump(mode="json") for record in records]))
    again = tuple(SessionRecord.model_validate(record) for record in stored)
    assert again == records

    resumed = MelleaSession(RoleBackend(engine), thaw(again))
    await resumed.achat("Sure?")
    sent = engine.asked[-1].messages
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "user", "assistant", "user"]
    assert sent[1]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    ]
    assert sent[2]["tool_call_id"] == "c1"
    last = resumed.ctx.last_output()
    assert last is not None


async def test_only_what_was_added_is_written():
    session = MelleaSession(RoleBackend(HandEngine()), ChatContext())
    await session.achat("one")
    before = session.ctx
    await session.achat("two")
    records = freeze(session.ctx, run_id="r", new_id=new_id, since=before)
    assert [(record.role, record.text) for record in records] == [("user", "two"), ("assistant", "ok")]
    assert delta(before, before) == []
    with pytest.raises(ContextNotPortable):
        delta(session.ctx, before)


async def test_an_answer_that_is_still_to_come_cannot_be_written():
    _, context = await RoleBackend(HandEngine()).generate_from_context(CBlock("hi"), ctx=ChatContext())
    with pytest.raises(ContextNotPortable):
        freeze(context, run_id="r", new_id=new_id)


records_of = st.lists(
    st.builds(
        SessionRecord,
        record_id=st.sampled_from([f"r{number}" for number in range(12)]),
        run_id=st.just("run"),
        role=st.sampled_from(["user", "assistant", "system"]),
        text=st.text(max_size=20),
        usage=st.none() | st.builds(RecordUsage, input_tokens=st.integers(0, 9), output_tokens=st.integers(0, 9)),
    ),
    max_size=8,
).map(tuple)


@given(records_of)
def test_thawing_and_freezing_keeps_every_word(records: tuple[SessionRecord, ...]):
    again = freeze(thaw(records), run_id="run", new_id=new_id)
    told = [record.model_copy(update={"usage": None}) for record in records if record.role != "assistant"]
    assert [record.text for record in again] == [record.text for record in records]
    assert without_ids(tuple(record for record in again if record.role != "assistant")) == without_ids(tuple(told))
    usages = [record.usage for record in records if record.role == "assistant"]
    assert [record.usage for record in again if record.role == "assistant"] == usages


@given(records_of, records_of, records_of)
def test_a_merge_has_every_record_once_and_keeps_the_order_of_the_branches(
    shared: tuple[SessionRecord, ...], left: tuple[SessionRecord, ...], right: tuple[SessionRecord, ...]
):
    merged = merge(shared + left, shared + right)
    ids = [record.record_id for record in merged]
    assert len(ids) == len(set(ids))
    assert set(ids) == {record.record_id for record in (*shared, *left, *right)}
    assert merge(merged, shared) == merged


def test_a_thousand_turns_are_no_problem():
    records = tuple(
        SessionRecord(record_id=f"r{number}", run_id="r", role="user" if number % 2 else "assistant", text=str(number))
        for number in range(2000)
    )
    context = thaw(records)
    assert len(context.as_list()) == 2000
    assert isinstance(context.as_list()[1], Message)
