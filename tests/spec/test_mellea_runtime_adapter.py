"""The samples of `mellea-runtime-adapter.md`, named after its headings.

They run as written, with mellea's own Ollama backend on a simulated model that speaks Ollama's API over real HTTP, and
again behind the engine. One sample cannot run in any version of mellea; its test says what is called in its place.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from mellea import MelleaSession, generative
from pydantic import BaseModel

from llmhub_runtime.sim import SimServer, parse_script
from mellea_runtime import MelleaRuntime, NodeLogger, RuntimeSettingsInvalid, active, invoke_model, run_program
from support.engine import rig

PROGRAM = '''
"""A program as users write them."""

from mellea import generative


@generative
def summarize(text: str, max_words: int) -> str:
    """A summary of a text in so many words."""


@generative
async def generate_summary(text: str) -> str:
    """A summary of a text."""
'''


class Answer(BaseModel):
    capital: str


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELLEA_LOGS_LEVEL", "ERROR")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The package `my_program`, as a user's container has it."""
    root = tmp_path_factory.mktemp("af-programs")
    package = root / "my_program"
    package.mkdir()
    (package / "__init__.py").touch()
    for module in ("generators", "main", "slots"):
        (package / f"{module}.py").write_text(textwrap.dedent(PROGRAM))
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(root))
    yield
    patch.undo()


@pytest.fixture
async def sim(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SimServer]:
    async with SimServer() as server:
        server.set_script(
            parse_script(
                {
                    "models": ["granite4:micro", "llama3.2:3b"],
                    "rules": [
                        {"match": {"contains": "Name the capital"}, "reply": {"answer": "Paris."}},
                        {"match": {"contains": "summar"}, "reply": {"answer": {"result": "a summary"}}},
                        {"match": {"contains": "as JSON"}, "reply": {"answer": {"capital": "Paris"}}},
                        {"reply": {"answer": "Paris."}},
                    ],
                }
            )
        )
        monkeypatch.setenv("OLLAMA_HOST", server.base_url)
        monkeypatch.setenv("OPENAI_BASE_URL", server.openai_base)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        yield server


async def in_thread(work: Any) -> Any:
    """The samples are sync programs; the simulated model has this loop."""
    return await asyncio.wait_for(asyncio.to_thread(work), 60)


def asked(sim: SimServer) -> list[Any]:
    return [entry for entry in sim.log() if entry.kind == "chat"]


async def test_session_scope_one_session_per_run(sim: SimServer) -> None:
    def sample() -> None:
        with MelleaRuntime(backend="ollama", model_id="granite4:micro") as runtime:
            session = runtime.session
            runtime.chat("What is the capital of France?")
            runtime.chat("And how many people live there?")
            assert runtime.session is session

    await in_thread(sample)
    assert [len(entry.request["messages"]) for entry in asked(sim)] == [1, 3]


async def test_model_id_mapping(sim: SimServer) -> None:
    def sample() -> None:
        for backend in ("ollama", "openai"):
            with MelleaRuntime(backend=backend, model_id="llama3.2:3b", model_options={"temperature": 0.7}) as runtime:
                assert runtime.chat("What is the capital of France?") == "Paris."
        for backend, extra in (("watsonx", "watsonx"), ("hf", "hf"), ("litellm", "litellm")):
            with pytest.raises(RuntimeSettingsInvalid, match=rf"mellea\[{extra}\]"):
                MelleaRuntime(backend=backend, model_id="m")

    await in_thread(sample)
    ollama, openai = asked(sim)
    assert (ollama.request["model"], ollama.request["options"]["temperature"]) == ("llama3.2:3b", 0.7)
    assert (openai.request["model"], openai.request["temperature"]) == ("llama3.2:3b", 0.7)
    assert (ollama.path, openai.path) == ("/api/chat", "/v1/chat/completions")


@pytest.mark.usefixtures("programs")
async def test_generative_slot_invocation(sim: SimServer) -> None:
    def sample() -> Any:
        # Initialize runtime (one per run)
        runtime = MelleaRuntime(backend="ollama", model_id="granite4:micro")

        # Execute a @generative slot
        result = runtime.execute_slot(
            module_name="my_program.generators",
            slot_name="summarize",
            text="Long text to summarize...",
            max_words=100,
        )
        runtime.cleanup()
        return result

    assert await in_thread(sample) == "a summary"
    [entry] = asked(sim)
    assert "max_words: 100" in entry.request["messages"][-1]["content"]


async def test_the_way_that_the_document_calls_a_slot_raises(sim: SimServer) -> None:
    """`session.instruct(slot_fn.format_for_llm(), ...)`: a slot is called with the session, as `execute_slot` does."""

    @generative
    def summarize(text: str) -> str:
        """A summary."""

    def sample() -> None:
        with MelleaRuntime(backend="ollama", model_id="granite4:micro") as runtime:
            session: MelleaSession[Any] = runtime.session
            with pytest.raises((TypeError, AssertionError, AttributeError, ValueError, Exception)) as caught:
                session.instruct(summarize.format_for_llm(), grounding_context={"text": "x"})  # type: ignore[arg-type]
            assert not asked(sim), caught.value
            assert runtime.invoke_slot(summarize, text="please summarize") == "a summary"

    await in_thread(sample)


def test_api_contract() -> None:
    wanted = {
        "__init__": ("backend", "model_id", "model_options", "run_id"),
        "chat": ("message", "images", "format", "options"),
        "instruct": ("description", "requirements", "examples", "context", "format", "options"),
        "execute_slot": ("module_name", "slot_name", "kwargs"),
        "invoke_slot": ("slot_fn", "kwargs"),
        "cleanup": (),
    }
    for method, names in wanted.items():
        parameters = inspect.signature(getattr(MelleaRuntime, method)).parameters
        assert set(names) <= set(parameters), method
    assert isinstance(MelleaRuntime.session, property)


async def test_melleaRuntime_class_in_use(sim: SimServer) -> None:
    def sample() -> list[Any]:
        with MelleaRuntime(backend="ollama", model_id="granite4:micro") as runtime:
            return [
                runtime.chat("What is the capital of France?", temperature=0.1, max_tokens=20),
                runtime.chat("Again, as JSON", format=Answer),
                runtime.instruct(
                    "Name the capital.",
                    examples=["Rome"],
                    context={"country": "France", "year": 2026},
                    seed=7,
                ),
            ]

    assert await in_thread(sample) == ["Paris.", Answer(capital="Paris"), "Paris."]
    first, *_, last = asked(sim)
    assert first.request["options"]["num_predict"] == 20
    assert last.request["options"]["seed"] == 7
    assert all(text in last.request["messages"][-1]["content"] for text in ("Rome", "France", "2026"))


@pytest.mark.usefixtures("programs")
async def test_compatibility_shims(sim: SimServer) -> None:
    def sample() -> tuple[Any, Any, Any]:
        runtime = MelleaRuntime(
            backend="ollama",
            model_id="granite4:micro",
            programs={"program-xyz": "my_program.main:generate_summary"},
            models={"model-abc": "ollama/llama3.2:3b"},
        )
        with runtime, active(runtime), pytest.warns(DeprecationWarning) as warned:
            # Generated code uses invoke_model/run_program
            result = invoke_model("model-abc", "What is the capital of France?")
            program = run_program("program-xyz", text="please summarize")
        return result, program, len(warned)

    assert await in_thread(sample) == ("Paris.", {"result": "a summary"}, 2)
    assert [entry.request["model"] for entry in asked(sim)] == ["llama3.2:3b", "granite4:micro"]
    assert len(asked(sim)[1].request["messages"]) == 3, "the shims share the run's session"


@pytest.mark.usefixtures("programs")
async def test_code_generator_updates_after(sim: SimServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELLEA_RUN_ID", "run-abc123")
    input_data = "please summarize this"

    def sample() -> MelleaRuntime:
        # Initialize runtime (happens once at start)
        runtime = MelleaRuntime(backend="ollama", model_id="granite4:micro", run_id=os.environ.get("MELLEA_RUN_ID"))

        # Model node: use chat or instruct
        model_abc_output = runtime.chat("What is the capital of France?")

        # Program node: execute @generative slot
        program_xyz_output = runtime.execute_slot("my_program.main", "generate_summary", text=input_data)

        # Cleanup at end
        runtime.cleanup()
        assert (model_abc_output, program_xyz_output) == ("Paris.", "a summary")
        return runtime

    runtime = await in_thread(sample)
    assert runtime.run_id == "run-abc123"
    assert [len(entry.request["messages"]) for entry in asked(sim)] == [1, 3]


@pytest.mark.usefixtures("programs")
async def test_a_composition_behind_the_engine() -> None:
    """The same generated program with a role: two model nodes, two programs, one session, and books that agree."""
    async with rig() as behind:
        behind.script(
            {"match": {"contains": "Conclude"}, "reply": {"answer": "The end."}},
            {"match": {"contains": "imitate"}, "reply": {"answer": {"result": "a summary"}}},
            {"reply": {"answer": "The report."}},
        )

        async def composition() -> list[Any]:
            runtime = MelleaRuntime(backend="role", role="chat", engine=behind.engine, run_id="run-1")
            outputs: dict[str, Any] = {}
            outputs["model_1"] = await runtime.achat("Write a report.")
            branches = [runtime.fork(), runtime.fork()]
            outputs["program_1"], outputs["program_2"] = await asyncio.gather(
                branches[0].aexecute_slot("my_program.main", "generate_summary", text=outputs["model_1"]),
                branches[1].aexecute_slot("my_program.slots", "summarize", text=outputs["model_1"], max_words=3),
            )
            runtime.merge(*branches)
            outputs["model_2"] = await runtime.achat(f"Conclude from {outputs['program_1']}.")
            await runtime.acleanup()
            return list(outputs.values())

        assert await composition() == ["The report.", "a summary", "a summary", "The end."]
        last = behind.sent()[-1].request
        assert isinstance(last, dict) and len(last["messages"]) == 7  # type: ignore[arg-type]
        rows = await behind.rows()
        assert {row.attempt.run_id for row in rows} == {"run-1"} and len(rows) == 4


async def test_environment_variables(sim: SimServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELLEA_RUN_ID", "run-abc123")
    monkeypatch.setenv("MELLEA_BACKEND", "ollama")
    monkeypatch.setenv("MELLEA_MODEL_ID", "granite4:micro")
    monkeypatch.setenv("MELLEA_MODEL_OPTIONS", '{"temperature": 0.7}')

    def sample() -> str:
        with MelleaRuntime() as runtime:
            assert isinstance(runtime.logger, NodeLogger) and runtime.logger.run_id == "run-abc123"
            runtime.chat("hi", temperature=0.1)
            return runtime.chat("hi")

    assert await in_thread(sample) == "Paris."
    by_call, by_environment = asked(sim)
    assert by_environment.request["model"] == "granite4:micro"
    assert by_environment.request["options"]["temperature"] == 0.7
    assert by_call.request["options"]["temperature"] == 0.1


async def test_open_questions(sim: SimServer, tmp_path: Path) -> None:
    """Context persistence, multi-model compositions and streaming: all three are there."""

    def sample() -> None:
        kept = tmp_path / "checkpoint.json"
        with MelleaRuntime(backend="ollama", model_id="granite4:micro") as first:
            first.chat("What is the capital of France?")
            kept.write_text(first.checkpoint().model_dump_json())
        with MelleaRuntime(backend="ollama", model_id="granite4:micro") as second:
            second.restore(type(second.checkpoint()).model_validate_json(kept.read_text()))
            second.switch_model("llama3.2:3b")
            pieces = list(second.chat("Sure?", stream=True))
            assert "".join(pieces) == "Paris."

    await in_thread(sample)
    last = asked(sim)[-1]
    assert (last.request["model"], len(last.request["messages"])) == ("llama3.2:3b", 3)
