"""`MelleaRuntime`: one session for a run, sync and async, whatever serves its models."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from llmhub_runtime.errors import UnmeteredCallError
from llmhub_runtime.names import SERVED_FLOW
from mellea_runtime import (
    AnswerInvalid,
    Check,
    Checkpoint,
    MelleaRuntime,
    MelleaRuntimeError,
    NodeLogger,
    RequirementsUnmet,
    RuntimeSettingsInvalid,
    SlotFailed,
    SlotNotFound,
    SlotRefused,
    WouldBlockLoop,
    active,
    invoke_model,
    run_program,
)
from mellea_runtime.settings import read_settings
from support import slots
from support.mellea import HandEngine

SLOTS = "support.slots"


class City(BaseModel):
    name: str


@pytest.fixture
def engine() -> HandEngine:
    return HandEngine()


@pytest.fixture
def runtime(engine: HandEngine) -> Iterator[MelleaRuntime]:
    with MelleaRuntime(engine=engine, role="writer", run_id="run-7") as runtime:
        yield runtime


def test_sync_calls_share_one_conversation(runtime: MelleaRuntime, engine: HandEngine):
    engine.answers = ["Hello.", "Nice."]
    assert runtime.chat("Hi", temperature=0.1, max_tokens=5) == "Hello."
    assert runtime.instruct("Say more.", examples=["so"], context={"n": 3}) == "Nice."
    assert [spec.role for spec in engine.asked] == ["writer", "writer"]
    assert engine.asked[0].params == {"temperature": 0.1, "max_tokens": 5}
    assert [message["content"] for message in engine.asked[1].messages[:2]] == ["Hi", "Hello."]
    assert {context.run_id for context in engine.contexts if context} == {"run-7"}


async def test_async_code_and_the_loop_of_the_engine(engine: HandEngine):
    async with MelleaRuntime(engine=engine) as runtime:
        assert await runtime.achat("Hi") == "ok"
        assert await runtime.ainstruct("Write") == "ok"
        assert [piece async for piece in runtime.astream_chat("Hi")] == ["ok"]
        with pytest.raises(WouldBlockLoop):
            runtime.chat("Hi")
        assert await asyncio.to_thread(runtime.chat, "from a thread") == "ok"
        elsewhere: list[str] = []
        thread = threading.Thread(target=lambda: elsewhere.append(asyncio.run(runtime.achat("from another loop"))))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert elsewhere == ["ok"]
        assert len(runtime.session.ctx.as_list()) == 10


async def test_calls_at_the_same_time_wait_for_each_other_and_lose_no_turn(engine: HandEngine):
    async with MelleaRuntime(engine=engine) as runtime:
        await asyncio.gather(*(runtime.achat(f"turn {number}") for number in range(20)))
        assert len(runtime.session.ctx.as_list()) == 40
        assert sorted(len(spec.messages) for spec in engine.asked) == list(range(1, 41, 2))


def test_a_stream_gives_its_pieces_and_is_a_turn(runtime: MelleaRuntime, engine: HandEngine):
    engine.answers = ["one two three"]
    pieces = list(runtime.chat("Count.", stream=True))
    assert len(pieces) > 1 and "".join(pieces) == "one two three"
    assert len(runtime.session.ctx.as_list()) == 2
    with pytest.raises(RuntimeSettingsInvalid):
        list(runtime.instruct("x", requirements=["y"], stream=True))


def test_a_format_gives_an_instance(runtime: MelleaRuntime, engine: HandEngine):
    engine.answers = ['{"name": "Oslo"}', "no json"]
    assert runtime.chat("A city", format=City) == City(name="Oslo")
    assert engine.asked[0].params["response_format"]["json_schema"]["name"] == "City"  # type: ignore[index,call-overload]
    with pytest.raises(AnswerInvalid) as caught:
        runtime.chat("A city", format=City)
    assert caught.value.answer == "no json"
    assert len(runtime.session.ctx.as_list()) == 2, "a turn that failed is none"


def test_requirements_are_checked_repaired_and_at_last_an_error(runtime: MelleaRuntime, engine: HandEngine):
    short = Check("be short", problem=lambda text: None if len(text) < 5 else f"{len(text)} characters are too many")
    engine.answers = ["much too long", "fine"]
    assert runtime.instruct("Write.", requirements=[short]) == "fine"
    assert engine.texts()[1].endswith("The following requirements failed before:\n* 13 characters are too many")
    engine.answers = ["much too long"]
    with pytest.raises(RequirementsUnmet) as caught:
        runtime.instruct("Write.", requirements=[short], repair_attempts=2)
    assert (caught.value.failed, caught.value.attempts, caught.value.answer) == (("be short",), 3, "much too long")
    assert len(runtime.session.ctx.as_list()) == 2


def test_a_providers_error_after_a_failed_answer_is_not_lost(runtime: MelleaRuntime, engine: HandEngine):
    engine.answers = ["bad", OSError("the line is dead")]
    with pytest.raises(OSError, match="dead"):
        runtime.instruct("Write.", requirements=[Check("x", problem=lambda text: "no")], repair_attempts=3)


def test_slots_are_executed_in_the_runs_session(runtime: MelleaRuntime, engine: HandEngine):
    engine.answers = ['{"result": "short"}', '{"result": {"title": "t", "urgent": true}}']
    assert runtime.execute_slot(SLOTS, "summarize", text="long") == "short"
    assert runtime.invoke_slot(slots.triage, text="help") == slots.Ticket(title="t", urgent=True)
    assert runtime.execute_slot(SLOTS, "shout", text="hi") == {"text": "HI"}
    assert runtime.invoke_slot(slots.whisper, text="HI") == "hi"
    assert len(engine.asked) == 2
    assert len(runtime.session.ctx.as_list()) == 4


def test_a_slot_whose_answer_does_not_parse_is_called_again(runtime: MelleaRuntime, engine: HandEngine):
    engine.answers = ["nonsense", '{"result": "good"}']
    assert runtime.execute_slot(SLOTS, "summarize", text="x") == "good"
    engine.answers = ["nonsense"]
    with pytest.raises(SlotFailed) as caught:
        runtime.execute_slot(SLOTS, "summarize", text="x")
    assert (caught.value.attempts, caught.value.invalid) == (2, True)
    with pytest.raises(SlotFailed, match="missing required parameter"):
        runtime.execute_slot(SLOTS, "summarize")
    with pytest.raises(SlotFailed, match="raised KeyError"):
        runtime.execute_slot(SLOTS, "breaks", text="x")


def test_only_allowed_modules_are_imported(engine: HandEngine, monkeypatch: pytest.MonkeyPatch):
    with MelleaRuntime(engine=engine, program_modules=["support"]) as runtime:
        assert runtime.execute_slot(SLOTS, "shout", text="a") == {"text": "A"}
        with pytest.raises(SlotRefused):
            runtime.execute_slot("supporting", "x")
        for name in ("absent", "NO_SLOT"):
            with pytest.raises(SlotNotFound):
                runtime.execute_slot(SLOTS, name)
    with MelleaRuntime(engine=engine) as runtime:
        monkeypatch.setenv(SERVED_FLOW, "desk")
        with pytest.raises(SlotRefused):
            runtime.execute_slot(SLOTS, "shout", text="a")
        with pytest.raises(UnmeteredCallError, match="desk"):
            runtime.switch_model("granite4:micro", backend="ollama")


def test_a_checkpoint_is_json_and_brings_the_conversation_back(runtime: MelleaRuntime, engine: HandEngine):
    runtime.chat("one")
    kept = runtime.checkpoint().model_dump_json()
    runtime.chat("two")
    runtime.restore(Checkpoint.model_validate_json(kept))
    runtime.chat("three")
    assert [message["content"] for message in engine.asked[-1].messages] == ["one", "ok", "three"]


def test_the_model_may_change_within_a_conversation(runtime: MelleaRuntime, engine: HandEngine):
    runtime.chat("one")
    runtime.switch_model(role="large")
    runtime.chat("two", role="small")
    runtime.chat("three")
    assert [spec.role for spec in engine.asked] == ["writer", "small", "large"]
    assert len(engine.asked[-1].messages) == 5


async def test_branches_are_merged_in_the_order_given(engine: HandEngine):
    engine.answers = [lambda spec: str(spec.messages[-1]["content"]).upper()]
    async with MelleaRuntime(engine=engine) as runtime:
        await runtime.achat("start")
        left, right = runtime.fork(), runtime.fork()
        await asyncio.gather(right.achat("right"), left.achat("left"))
        runtime.merge(left, right)
        await runtime.achat("end")
        texts = [message["content"] for message in engine.asked[-1].messages]
        assert texts == ["start", "START", "left", "LEFT", "right", "RIGHT", "end"]


def test_without_memory_every_message_stands_alone(engine: HandEngine):
    with MelleaRuntime(engine=engine, context="simple") as runtime:
        runtime.chat("one")
        runtime.chat("two")
        assert [len(spec.messages) for spec in engine.asked] == [1, 1]


def test_an_image_goes_with_its_message(runtime: MelleaRuntime, engine: HandEngine):
    runtime.chat("What is it?", images=["https://example.com/cat.png", "data:image/jpeg;base64,aGk="])
    _, web, data = engine.asked[0].messages[0]["content"]  # type: ignore[misc]
    assert web == {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    assert data == {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,aGk="}}


def test_a_session_that_was_cleaned_up_has_ended(engine: HandEngine):
    runtime = MelleaRuntime(engine=engine)
    runtime.chat("hi")
    runtime.cleanup()
    runtime.cleanup()
    with pytest.raises(MelleaRuntimeError, match="has ended"):
        runtime.chat("hi")


def test_settings_come_from_the_call_the_constructor_and_the_environment():
    environ = {
        "MELLEA_BACKEND": "openai",
        "MELLEA_MODEL_ID": "gpt-5.1",
        "MELLEA_RUN_ID": "run-1",
        "MELLEA_MODEL_OPTIONS": '{"temperature": 0.7}',
    }
    read = read_settings(environ)
    assert (read.backend, read.model_id, read.run_id, read.model_options) == (
        "openai",
        "gpt-5.1",
        "run-1",
        {"temperature": 0.7},
    )
    own = read_settings(environ, backend="hf", model_id="m", model_options={}, run_id="run-2")
    assert (own.backend, own.model_id, own.run_id, own.model_options) == ("hf", "m", "run-2", {})
    assert read_settings({"MELLEA_BACKEND": ""}).backend == "ollama"
    assert read_settings({}, has_engine=True).backend == "role"


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"MELLEA_BACKEND": "olama"}, "there is no backend 'olama'"),
        ({"MELLEA_MODEL_OPTIONS": "{temperature"}, "MELLEA_MODEL_OPTIONS is not JSON"),
        ({"MELLEA_MODEL_OPTIONS": "[1]"}, "must be a JSON object"),
    ],
)
def test_a_setting_that_makes_no_sense_is_an_error(environ: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeSettingsInvalid, match=says):
        MelleaRuntime()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(RuntimeSettingsInvalid, match="needs an ExecutionEngine"):
        MelleaRuntime(backend="role")
    with pytest.raises(RuntimeSettingsInvalid, match=r"mellea\[hf\]"):
        MelleaRuntime(backend="hf", model_id="m")


def test_the_shims_work_on_the_runs_session(engine: HandEngine):
    engine.answers = ["from the model"]
    with (
        MelleaRuntime(
            engine=engine, role="writer", programs={"program-xyz": f"{SLOTS}:shout"}, models={"model-abc": "small"}
        ) as runtime,
        active(runtime),
        pytest.warns(DeprecationWarning),
    ):
        assert invoke_model("model-abc", "hi") == "from the model"
        assert run_program("program-xyz", text="a") == {"text": "A"}
        assert run_program(f"{SLOTS}:whisper", text="A") == {"result": "a"}
        runtime.chat("and?")
        with pytest.raises(RuntimeSettingsInvalid, match="there is no program 'nothing'"):
            run_program("nothing")
    assert [spec.role for spec in engine.asked] == ["small", "writer"]
    assert len(engine.asked[1].messages) == 3


def test_a_node_logger_says_which_run_and_node(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    logger = NodeLogger("run-1").for_node("draft")
    logger.info("asked %s", "a model")
    with pytest.raises(OSError), logger.timed("the call"):
        raise OSError("secret")
    told, failed = caplog.records
    assert told.getMessage() == "[run-1/draft] asked a model"
    assert (told.run_id, told.node_id) == ("run-1", "draft")  # type: ignore[attr-defined]
    assert "secret" not in failed.getMessage() and failed.levelno == logging.ERROR


TENANTS = ("acme", "zorro")


async def test_the_variables_of_one_request_never_reach_the_next(engine: HandEngine):
    """mellea renders lists in place: what a caller passes is copied, and never used as a template."""
    requirements, examples = ["about {{ customer }}"], ["{{ customer }}: hello"]
    async with MelleaRuntime(engine=engine, context="simple") as runtime:
        engine.answers = ["yes"]
        for tenant in TENANTS:
            await runtime.ainstruct(
                f"Write to {tenant}. {{{{ 7 * 7 }}}}",
                requirements=requirements,
                examples=examples,
                context={"customer": tenant, "note": "{{ customer }}"},
            )
    assert (requirements, examples) == (["about {{ customer }}"], ["{{ customer }}: hello"])
    for spec in engine.asked:
        sent = json.dumps(spec.messages)
        assert sum(tenant in sent for tenant in TENANTS) <= 1
        assert "49" not in sent
