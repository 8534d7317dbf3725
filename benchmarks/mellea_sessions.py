"""Model calls through a mellea session against the same calls made of the engine, and against mellea's own backend."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.engine import Call, many_calls, open_engine
from benchmarks.harness import Figure, paired, pairs_for
from llm_client import ExecutionEngine, RequestSpec
from llmhub_runtime.sim import SimProcess
from runtime_core.stores.memory import MemoryDatabase

TURNS = 100
MEMORY_TURNS = 200
BRANCHES = 20
TARGETS = {"chat": 1.3, "instruct": 1.5, "generative": 1.9}
SCRIPT = """
rules:
  - match: {contains: imitate}
    reply: {answer: {result: "Within thirty days."}}
  - reply: {answer: "Within thirty days."}
"""
QUESTION = "How long may worn shoes be returned?"


def measure(short: bool) -> Iterator[Figure]:
    os.environ["MELLEA_LOGS_LEVEL"] = "ERROR"  # mellea writes a line for every call at its default
    requests, pairs = 96 if short else 192, 2 * pairs_for(short)
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory(prefix="af-") as folder:
        script = Path(folder) / "script.yaml"
        script.write_text(SCRIPT)
        with SimProcess(script=script) as sim:
            stack = AsyncExitStack()
            try:
                engine = runner.run(open_engine(stack, sim, MemoryDatabase()))
                yield from _calls(runner, engine, sim, requests=requests, pairs=pairs)
                yield from _conversation(runner, engine, sim, requests=requests, pairs=pairs)
                yield from _memory(runner, engine)
            finally:
                runner.run(stack.aclose())


def _calls(
    runner: asyncio.Runner, engine: ExecutionEngine, sim: SimProcess, *, requests: int, pairs: int
) -> Iterator[Figure]:
    def many(call: Call) -> Callable[[], tuple[float, float]]:
        return lambda: runner.run(many_calls(call, requests))

    ours = _asks(_role_backend(runner, engine))
    for kind, call in ours.items():
        direct = _direct(engine, runner.run(_sent(engine, kind)))
        results = paired(many(call), many(direct), pairs=pairs)
        ratio = median(mine[0] / theirs[0] for mine, theirs in results)
        yield Figure(
            f"mellea.{kind}", f"{kind} in a session / the same call of the engine", ratio, target=TARGETS[kind]
        )
    backend = _own_backend(sim)
    own = _asks(backend)
    for kind, call in ours.items():
        results = paired(many(own[kind]), many(call), pairs=pairs)
        ratio = median(theirs[1] / mine[1] for theirs, mine in results)
        what = f"CPU time of {kind} with mellea's own OpenAI backend / ours"
        yield Figure(f"mellea.own.{kind}", what, ratio, bound="at least", target=1.0)
    # A client that the garbage collector finds closes sockets whose numbers are the next client's by then.
    runner.run(backend.aclose())


def _conversation(
    runner: asyncio.Runner, engine: ExecutionEngine, sim: SimProcess, *, requests: int, pairs: int
) -> Iterator[Figure]:
    from any_llm import AnyLLM
    from mellea import MelleaSession

    from mellea_runtime import thaw
    from runtime_core.sessions.records import SessionRecord

    records = [
        SessionRecord(
            record_id=str(turn),
            run_id="r",
            role="assistant" if turn % 2 else "user",
            text=f"turn {turn} of a long talk",
        )
        for turn in range(2 * TURNS)
    ]
    messages = [{"role": record.role, "content": record.text} for record in records]
    bare: Any = AnyLLM.create_openai_compatible("sim", sim.openai_base, api_key="none", max_retries=0)
    backend, context = _role_backend(runner, engine), thaw(records)

    async def turn() -> None:
        await MelleaSession(backend, context).achat(QUESTION)

    async def same() -> None:
        await bare.acompletion("sim", [*messages, {"role": "user", "content": QUESTION}])

    def many(call: Call) -> Callable[[], tuple[float, float]]:
        return lambda: runner.run(many_calls(call, requests // 6))

    results = paired(many(turn), many(same), pairs=pairs)
    ratio = median(ours[0] / theirs[0] for ours, theirs in results)
    yield Figure("mellea.history", f"a session of {TURNS} turns / bare any-llm, same messages", ratio, target=1.5)
    runner.run(bare.client.close())


def _memory(runner: asyncio.Runner, engine: ExecutionEngine) -> Iterator[Figure]:
    from mellea_runtime import MelleaRuntime

    async def talk() -> tuple[float, int]:
        async with MelleaRuntime(engine=engine, role="chat") as runtime:
            await runtime.achat(QUESTION)  # what is loaded once is not the session's
            gc.collect()
            tracemalloc.start()
            for _ in range(MEMORY_TURNS):
                await runtime.achat(QUESTION)
            gc.collect()
            grown, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            before = len(runtime.session.ctx.as_list())
            branches = [runtime.fork() for _ in range(BRANCHES)]
            await asyncio.gather(*(branch.achat(QUESTION) for branch in branches))
            runtime.merge(*branches)
            return grown / 1e6, 2 * BRANCHES - (len(runtime.session.ctx.as_list()) - before)

    megabytes, lost = runner.run(talk())
    yield Figure("mellea.memory", f"memory of a session after {MEMORY_TURNS} turns", megabytes, unit="MB", target=3.0)
    yield Figure("mellea.branches", f"records lost by {BRANCHES} parallel branches", lost, unit="records", target=0.0)


def _role_backend(runner: asyncio.Runner, engine: ExecutionEngine) -> Any:
    from mellea_runtime import RoleBackend

    return RoleBackend(engine, "chat", home=runner.get_loop())


def _own_backend(sim: SimProcess) -> Any:
    from mellea.backends.openai import OpenAIBackend

    return OpenAIBackend("sim", base_url=sim.openai_base, api_key="none")


def _asks(backend: Any) -> dict[str, Call]:
    """One call of each kind, in a session of its own."""
    from mellea import MelleaSession, generative
    from mellea.stdlib.context import SimpleContext

    @generative
    async def answer(question: str, tone: str) -> str:  # pyright: ignore[reportReturnType]
        """The answer of a shop to a question of a customer, in one sentence."""

    def session() -> Any:
        return MelleaSession(backend, SimpleContext())

    async def chat() -> None:
        assert (await session().achat(QUESTION)).content

    async def instruct() -> None:
        made = await session().ainstruct(
            QUESTION, grounding_context={"rules": "Thirty days."}, strategy=None, await_result=True
        )
        assert made.value

    async def slot() -> None:
        assert await answer(session(), question=QUESTION, tone="kind")

    return {"chat": chat, "instruct": instruct, "generative": slot}


class _Seen:
    """An engine that remembers what it was asked."""

    def __init__(self, engine: ExecutionEngine) -> None:
        self._engine = engine
        self.spec: RequestSpec | None = None

    async def complete(self, spec: RequestSpec, *, context: Any = None) -> Any:
        self.spec = spec
        return await self._engine.complete(spec, context=context)


async def _sent(engine: ExecutionEngine, kind: str) -> RequestSpec:
    """What a call of this kind asks of the engine."""
    from mellea_runtime import RoleBackend

    seen: Any = _Seen(engine)
    await _asks(RoleBackend(seen, "chat"))[kind]()
    return RequestSpec.model_validate(seen.spec.model_dump())


def _direct(engine: ExecutionEngine, spec: RequestSpec) -> Call:
    async def ask() -> None:
        result = await engine.complete(RequestSpec.model_validate(dict(spec)))
        assert result.content

    return ask
