"""The samples of `mellea-core-internals.md`, layer by layer, named after its headings.

They run against our backend over the engine, which asks a simulated model over real HTTP; in their place
`OllamaModelBackend("granite4:latest")` stands `backend`. One of them is corrected, and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import mellea.stdlib.functional as mfuncs
import pytest
from mellea import MelleaSession
from mellea.core import (
    Backend,
    CBlock,
    Component,
    ComponentParseError,
    Context,
    ModelOutputThunk,
    TemplateRepresentation,
)
from mellea.stdlib.components import Instruction, Message, SimpleComponent
from mellea.stdlib.context import ChatContext, SimpleContext

from mellea_runtime import CachedFormatter, RoleBackend
from support.engine import Rig
from support.mellea import bodies, sim_backend

WITHIN_S = 20
Running = tuple[RoleBackend, Rig]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELLEA_LOGS_LEVEL", "ERROR")


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with sim_backend() as (backend, behind):
        behind.script(
            {"match": {"contains": "x+y"}, "reply": {"answer": "6"}},
            {"match": {"contains": "1+1"}, "reply": {"answer": "2"}},
            {"reply": {"answer": "4"}},
        )
        yield backend, behind


def test_cblock() -> None:
    block = CBlock("What is 1+1?")
    assert (block.value, str(block)) == ("What is 1+1?", "What is 1+1?")


def test_component() -> None:
    for each in (Message("user", "hi"), Instruction("write"), SimpleComponent(a="b")):
        assert isinstance(each, Component)


async def test_model_output_thunk(running: Running) -> None:
    backend, _ = running
    thunk, _ = await backend.generate_from_context(CBlock("What is 1+1?"), ctx=SimpleContext())
    thunk.is_computed()  # True if the value is already available
    assert await asyncio.wait_for(thunk.avalue(), WITHIN_S) == "2"  # Force evaluation; returns the actual value
    assert thunk.is_computed()


async def test_layer_1_melleasession(running: Running) -> None:
    backend, behind = running

    def sample() -> str:
        m = MelleaSession(backend=backend, ctx=SimpleContext())
        response = m.chat("What is 1+1?")
        assert isinstance(response, Message)
        return response.content

    assert await asyncio.to_thread(sample) == "2"
    assert [body["messages"] for body in bodies(behind)] == [[{"role": "user", "content": "What is 1+1?"}]]


async def test_layer_2_functional_api_with_explicit_context(running: Running) -> None:
    backend, _ = running

    def sample() -> tuple[str, Context]:
        response, next_context = mfuncs.chat("What is 1+1?", context=ChatContext(), backend=backend)
        return response.content, next_context

    content, next_context = await asyncio.to_thread(sample)
    assert (content, len(next_context.as_list())) == ("2", 2)


async def test_layer_3_direct_component_construction_with_mfuncs_act(running: Running) -> None:
    backend, _ = running

    def sample() -> str | None:
        response, _ = mfuncs.act(action=Instruction("What is 1+1?"), context=SimpleContext(), backend=backend)
        return response.value

    assert await asyncio.to_thread(sample) == "2"


async def test_layer_4_async_execution_with_mfuncs_aact(running: Running) -> None:
    """Corrected: `aact` starts the call and gives a thunk; the sample prints its value before it is there."""
    backend, _ = running

    async def main() -> tuple[str | None, str | None]:
        response, _ = await mfuncs.aact(Instruction("What is 1+1?"), context=SimpleContext(), backend=backend)
        as_written = response.value
        response, _ = await mfuncs.aact(
            Instruction("What is 1+1?"), context=SimpleContext(), backend=backend, await_result=True
        )
        return as_written, response.value

    assert await main() == (None, "2")
    assert await asyncio.to_thread(lambda: asyncio.run(main())) == (None, "2")


async def test_layer_5_lazy_computation_via_backend_generate_from_context(running: Running) -> None:
    backend, _ = running

    async def main() -> list[object]:
        ctx = SimpleContext()
        response, _ = await backend.generate_from_context(CBlock("What is 1+1?"), ctx=ctx)
        before = response.is_computed()  # may be False
        return [before, await response.avalue(), response.is_computed()]

    assert await main() == [False, "2", True]
    assert await asyncio.to_thread(lambda: asyncio.run(main())) == [False, "2", True]


async def test_layer_6_composing_lazy_computations(running: Running) -> None:
    backend, behind = running

    async def main(backend: Backend, ctx: Context) -> list[object]:
        x, _ = await backend.generate_from_context(CBlock("What is 1+1?"), ctx=ctx)
        y, _ = await backend.generate_from_context(CBlock("What is 2+2?"), ctx=ctx)

        # x and y may not have been computed yet, and can be inputs all the same
        before = [x.is_computed(), y.is_computed()]
        z, _ = await backend.generate_from_context(SimpleComponent(instruction="What is x+y?", x=x, y=y), ctx=ctx)
        return [*before, await z.avalue(), x.is_computed(), y.is_computed()]

    assert await asyncio.wait_for(main(backend, SimpleContext()), WITHIN_S) == [False, False, "6", True, True]
    *parts, whole = bodies(behind)
    assert {part["messages"][0]["content"] for part in parts} == {"What is 1+1?", "What is 2+2?"}
    assert all(text in whole["messages"][0]["content"] for text in ("What is x+y?", "2", "4"))


async def test_layer_summary(running: Running) -> None:
    """Every entry point of the table is there and asks the same."""
    backend, behind = running
    session = MelleaSession(backend, SimpleContext())
    await session.achat("What is 1+1?")
    await mfuncs.achat("What is 1+1?", context=SimpleContext(), backend=backend)
    await mfuncs.aact(Message("user", "What is 1+1?"), SimpleContext(), backend, await_result=True, strategy=None)
    thunk, _ = await backend.generate_from_context(Message("user", "What is 1+1?"), ctx=SimpleContext())
    await thunk.avalue()
    first, *others = bodies(behind)
    assert len(others) == 3 and all(body == first for body in others)


def template(root: Path, folder: str, text: str) -> None:
    path = root / "prompts" / folder
    path.mkdir(parents=True)
    (path / "Instruction.jinja2").write_text(text)


def test_templateformatter(tmp_path: Path) -> None:
    template(tmp_path, "default", "default: {{ description }}")
    template(tmp_path, "granite/granite-3-2/instruct", "granite: {{ description }}")
    for model, wanted in (
        ("ibm-granite/granite-3.2-8b-instruct", "granite: write"),
        ("gpt-5.1", "default: write"),
    ):
        formatter = CachedFormatter(model, template_path=str(tmp_path))
        assert [formatter.print(Instruction("write")) for _ in range(2)] == [wanted] * 2, model
    assert CachedFormatter("gpt-5.1").print(Instruction("write")) == "write"  # the package that owns the component


class Summary(Component[str]):
    """The simplest approach: a string, past all templates."""

    def __init__(self, text: str) -> None:
        self.text = text

    def parts(self) -> list[object]:  # type: ignore[override]
        return []

    def format_for_llm(self) -> str:
        return f"Summarise: {self.text}"

    def _parse(self, computed: ModelOutputThunk) -> str:
        if not computed.value:
            raise ValueError("nothing")
        return computed.value.strip()


class Titled(Summary):
    def format_for_llm(self) -> TemplateRepresentation:  # type: ignore[override]
        return TemplateRepresentation(
            obj=self, args={"text": self.text}, template="Title for: {{ text }}", tools={}, fields=[]
        )


async def test_templaterepresentation(running: Running) -> None:
    backend, behind = running
    for action in (Summary("1+1"), Titled("1+1 {{ 7 * 7 }}")):
        thunk, _ = await backend.generate_from_context(action, ctx=SimpleContext())
        assert await thunk.avalue() == "2"
        assert thunk.parsed_repr == "2"
    assert [body["messages"][0]["content"] for body in bodies(behind)] == [
        "Summarise: 1+1",
        "Title for: 1+1 {{ 7 * 7 }}",
    ]
    with pytest.raises(ComponentParseError):
        Summary("").parse(ModelOutputThunk(""))


async def test_customising_templates_for_an_existing_class(running: Running) -> None:
    class Pirate(Instruction):
        def format_for_llm(self) -> TemplateRepresentation:
            return TemplateRepresentation(obj=self, args={}, template="Arr! 1+1?", tools={}, fields=[])

    backend, behind = running
    session = MelleaSession(backend, SimpleContext())
    assert (await session.aact(Pirate("ignored"), strategy=None, await_result=True)).value == "2"
    assert bodies(behind)[0]["messages"][0]["content"] == "Arr! 1+1?"
