"""Model calls through the engine against bare any-llm: the same HTTP client, the same simulated model."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import Figure, paired, pairs_for
from llm_client import ExecutionEngine, HubRouter, RequestSpec, ResponseCache
from llmhub_runtime import LLMHub, parse_runtime_config
from llmhub_runtime.sim import SimProcess
from runtime_core.call_log.log import CallLog
from runtime_core.clock import SystemClock
from runtime_core.stores import Database
from runtime_core.stores.memory import MemoryDatabase
from runtime_core.stores.sqlite import SqliteDatabase

CONCURRENCY = 32
TURNS = 100
QUESTION = [
    {"role": "system", "content": "You answer in one sentence."},
    {"role": "user", "content": "How long may worn shoes be returned?"},
]
HISTORY = [
    {"role": "user" if turn % 2 else "assistant", "content": f"turn {turn} of a long talk"} for turn in range(TURNS)
]

Call = Callable[[], Awaitable[Any]]


def measure(short: bool) -> Iterator[Figure]:
    # Many short rounds, because the machine's own noise comes in longer waves.
    requests, pairs = 192, 2 * pairs_for(short)
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory(prefix="af-") as folder, SimProcess() as sim:
        stack = AsyncExitStack()

        def opened(database: Database, **options: Any) -> ExecutionEngine:
            return runner.run(open_engine(stack, sim, database, **options))

        bare = _bare(sim)
        try:
            memory, sqlite = opened(MemoryDatabase()), opened(SqliteDatabase(Path(folder) / "log.db"))
            for name, engine, target in (("memory", memory, 0.85), ("sqlite", sqlite, 0.7)):

                def many(call: Call) -> Callable[[], tuple[float, float]]:
                    return lambda: runner.run(many_calls(call, requests))

                results = paired(many(_ask(engine, QUESTION)), many(_ask_bare(bare, QUESTION)), pairs=pairs)
                wall = median(theirs[0] / ours[0] for ours, theirs in results)
                what = f"calls a second with a log in {name}, {CONCURRENCY} at once / bare any-llm"
                yield Figure(f"engine.{name}", what, wall, bound="at least", target=target)
                cpu = median((ours[1] - theirs[1]) / requests for ours, theirs in results)
                yield Figure(f"engine.{name}.cpu", "CPU time of a call, beyond bare any-llm", cpu * 1e6, unit="µs")

            def history(call: Call) -> Callable[[], tuple[float, float]]:
                return lambda: runner.run(many_calls(call, requests // 6))

            results = paired(history(_ask(memory, HISTORY)), history(_ask_bare(bare, HISTORY)), pairs=pairs)
            ratio = median(ours[0] / theirs[0] for ours, theirs in results)
            yield Figure("engine.history", f"a history of {TURNS} turns / bare any-llm", ratio, target=1.2)
            cached = opened(MemoryDatabase(), cache=ResponseCache())
            yield Figure(
                "engine.cached", "a cache hit, two messages", runner.run(_hit(cached)) * 1e6, unit="µs", target=60.0
            )
        finally:
            runner.run(_close(stack, bare))


async def open_engine(stack: AsyncExitStack, sim: SimProcess, database: Database, **options: Any) -> ExecutionEngine:
    document = {
        "project": "benchmarks",
        "env": "bench",
        "providers": {"sim": {"api_base": sim.openai_base}},
        "roles": {"chat": {"provider": "sim", "model": "sim", "mode": "chat", "price": {"input": 1, "output": 2}}},
    }
    hub = await stack.enter_async_context(LLMHub(config_obj=parse_runtime_config(document)))
    await stack.enter_async_context(database)
    log = CallLog(database, clock=SystemClock())
    engine = await stack.enter_async_context(ExecutionEngine(router=HubRouter(hub), log=log, **options))
    await engine.warm_up(["chat"])
    return engine


def _bare(sim: SimProcess) -> Any:
    from any_llm import AnyLLM

    return AnyLLM.create_openai_compatible("sim", sim.openai_base, api_key="none", max_retries=0)


def _ask(engine: ExecutionEngine, messages: list[dict[str, Any]]) -> Call:
    async def ask() -> None:
        result = await engine.complete(RequestSpec(messages=tuple(messages), role="chat"))
        assert result.content

    return ask


def _ask_bare(client: Any, messages: list[dict[str, Any]]) -> Call:
    async def ask() -> None:
        response = await client.acompletion("sim", messages)
        assert response.choices[0].message.content

    return ask


async def many_calls(call: Call, requests: int) -> tuple[float, float]:
    """Seconds on the wall and of CPU for `requests` calls, CONCURRENCY at once."""
    left = iter(range(requests))

    async def work() -> None:
        for _ in left:
            await call()

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return time.perf_counter() - wall, time.process_time() - cpu


async def _hit(engine: ExecutionEngine) -> float:
    """Seconds of a hit, the median of some rounds; the request is made anew each time."""
    ask = _ask(engine, QUESTION)
    await ask()
    rounds: list[float] = []
    for _ in range(20):
        began = time.process_time()
        for _ in range(200):
            await ask()
        rounds.append((time.process_time() - began) / 200)
    return median(rounds)


async def _close(stack: AsyncExitStack, bare: Any) -> None:
    await stack.aclose()
    await bare.client.close()
