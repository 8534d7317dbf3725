"""Thunks: any number of tasks may await one, with deadlines, and a failure is the same for all of them."""

from __future__ import annotations

import asyncio

import pytest
from mellea import MelleaSession
from mellea.core import CBlock, ModelOutputThunk
from mellea.stdlib.components import Instruction, SimpleComponent
from mellea.stdlib.context import ChatContext, SimpleContext
from mellea.stdlib.functional import avalidate
from mellea.stdlib.requirements import req

from llm_client import CallCancelled, CallTimedOut
from mellea_runtime import ROLE, RoleBackend, SharedThunk, WouldBlockLoop
from mellea_runtime.scope import call_scope
from support.mellea import HandEngine

WITHIN_S = 10


async def thunk_of(engine: HandEngine, action: object = CBlock("hi")) -> SharedThunk:
    thunk, _ = await RoleBackend(engine).generate_from_context(action, ctx=SimpleContext())  # type: ignore[arg-type]
    assert isinstance(thunk, SharedThunk)
    return thunk


async def test_many_tasks_await_one_thunk():
    engine = HandEngine(gate=asyncio.Event())
    thunk = await thunk_of(engine)
    waiting = asyncio.gather(*(thunk.avalue() for _ in range(50)))
    await asyncio.sleep(0)
    assert engine.gate is not None
    engine.gate.set()
    assert await asyncio.wait_for(waiting, WITHIN_S) == ["ok"] * 50
    assert len(engine.asked) == 1


async def test_a_diamond_computes_its_top_once():
    engine = HandEngine([lambda spec: spec.messages[-1]["content"][:5]])
    backend = RoleBackend(engine)
    top = await thunk_of(engine, CBlock("top.."))
    left, right = await asyncio.gather(
        *(
            backend.generate_from_context(SimpleComponent(side=CBlock(side), top=top), ctx=SimpleContext())
            for side in "lr"
        )
    )
    bottom, _ = await backend.generate_from_context(SimpleComponent(left=left[0], right=right[0]), ctx=SimpleContext())
    await asyncio.wait_for(bottom.avalue(), WITHIN_S)
    assert len(engine.asked) == 4
    assert sum(text == "top.." for text in engine.texts()) == 1


async def test_a_failed_thunk_raises_the_same_error_for_every_waiter_and_every_time():
    error = CallTimedOut("too slow")
    thunk = await thunk_of(HandEngine([error]))
    found = await asyncio.wait_for(
        asyncio.gather(*(thunk.avalue() for _ in range(10)), return_exceptions=True), WITHIN_S
    )
    assert all(each is error for each in found)
    for _ in range(2):
        with pytest.raises(CallTimedOut):
            await asyncio.wait_for(thunk.avalue(), WITHIN_S)
        with pytest.raises(CallTimedOut):
            await asyncio.wait_for(thunk.astream(), WITHIN_S)
    composed = SimpleComponent(part=thunk)
    with pytest.raises(CallTimedOut):
        await asyncio.wait_for(RoleBackend(HandEngine()).generate_from_context(composed, ctx=SimpleContext()), WITHIN_S)


async def test_an_answer_that_does_not_parse_fails_every_time():
    class Picky(Instruction):
        def _parse(self, computed: ModelOutputThunk) -> str:
            raise ValueError("no")

    thunk = await thunk_of(HandEngine(), Picky("write"))
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await asyncio.wait_for(thunk.avalue(), WITHIN_S)


async def test_a_waiter_that_gives_up_leaves_the_answer_to_the_others():
    engine = HandEngine(gate=asyncio.Event())
    thunk = await thunk_of(engine)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(thunk.avalue(), 0.01)
    assert engine.gate is not None
    engine.gate.set()
    assert await asyncio.wait_for(thunk.avalue(), WITHIN_S) == "ok"


async def test_cancelling_a_generation_ends_the_request_and_wakes_who_waits():
    engine = HandEngine(gate=asyncio.Event())
    thunk = await thunk_of(engine)
    waiting = [asyncio.create_task(thunk.avalue()) for _ in range(3)]
    while not engine.asked:
        await asyncio.sleep(0)
    await asyncio.wait_for(thunk.cancel_generation(), WITHIN_S)
    assert await asyncio.wait_for(asyncio.gather(*waiting), WITHIN_S) == ["", "", ""]
    assert thunk.cancelled and engine.cancelled == 1


async def test_the_end_of_the_task_that_fills_a_thunk_is_an_error_and_no_hang():
    engine = HandEngine(gate=asyncio.Event())
    async with call_scope():
        thunk = await thunk_of(engine)
        while not engine.asked:
            await asyncio.sleep(0)
    assert engine.cancelled == 1
    with pytest.raises(CallCancelled):
        await asyncio.wait_for(thunk.avalue(), WITHIN_S)


async def test_a_thunk_that_nobody_fills_is_an_error_and_no_hang():
    with pytest.raises(RuntimeError):
        await asyncio.wait_for(ModelOutputThunk(None).avalue(), WITHIN_S)


async def test_requirements_on_an_answer_that_is_still_coming_wait_for_it():
    engine = HandEngine(["answer", "yes"])
    backend = RoleBackend(engine)
    thunk, context = await backend.generate_from_context(CBlock("hi"), ctx=ChatContext())
    results = await asyncio.wait_for(
        avalidate([req("one"), req("two"), req("three")], context, backend, output=thunk), WITHIN_S
    )
    assert [bool(result) for result in results] == [True] * 3


async def test_a_long_conversation_keeps_no_prompts():
    engine = HandEngine()
    context = ChatContext()
    for _ in range(5):
        thunk, context = await RoleBackend(engine).generate_from_context(CBlock("hi"), ctx=context)
        await thunk.avalue()
        assert thunk.generate_log is not None and thunk.generate_log.prompt is None
    kept, _ = await RoleBackend(engine, keep_prompts=True).generate_from_context(CBlock("hi"), ctx=context)
    await kept.avalue()
    assert kept.generate_log is not None and len(kept.generate_log.prompt or ()) == 11


def test_an_engine_whose_loop_stands_still_is_an_error_and_no_hang():
    with asyncio.Runner() as runner:
        session = MelleaSession(RoleBackend(HandEngine(), home=runner.get_loop()), ChatContext())
        assert runner.run(session.achat("hi")).content == "ok"
        for options in ({}, {"stream": True}):
            with pytest.raises(WouldBlockLoop, match="is not running"):
                session.chat("hi", model_options=options)


async def test_a_judge_keeps_its_role_when_a_call_names_another_for_the_answer():
    engine = HandEngine(["fine", "yes"])
    session = MelleaSession(RoleBackend(engine, "small", judge="judge"), ChatContext())
    await session.ainstruct("Write.", requirements=["be kind"], model_options={ROLE: "large"})
    assert [spec.role for spec in engine.asked] == ["large", "judge"]
