"""Compiled flows: how long compiling takes, and what the generated module costs beside the flow file."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import flow_runtime
from agentflow import from_mapping, loads, plan
from agentflow.compile import MODULE, compile_plan
from benchmarks import flows
from benchmarks.harness import Figure, median_ratio, paired, pairs_for, timed
from flow_runtime import LocalFlow, LocalSettings

REQUEST = {"x": {"k": 1}}
NODES = 1_000

Call = Callable[[], Awaitable[Any]]


def measure(short: bool) -> Iterator[Figure]:
    pairs = pairs_for(short)
    loaded = loads(flows.wide_yaml(NODES))
    cost = timed(lambda: compile_plan(plan(loaded.flow), places=loaded.source_of), clock=time.process_time)
    yield Figure("compile.time", f"compile {NODES:,} nodes, CPU", min(cost() for _ in range(pairs)), "s", target=2.0)
    flow = from_mapping(flows.diamond("diamond", flows.TRIVIAL)).flow
    settings = LocalSettings(store="memory:")
    with TemporaryDirectory(prefix="af-") as folder, asyncio.Runner() as runner:
        module = _imported(Path(folder), compile_plan(plan(flow), target="local")[MODULE])
        runs = 20 if short else 100

        def repeated(call: Call) -> Callable[[], None]:
            async def repeat() -> None:
                for _ in range(runs):
                    report = await call()
                    assert report.error is None, report.error

            return lambda: runner.run(repeat())

        ours = repeated(lambda: module.run(REQUEST, settings=settings))
        live = repeated(lambda: flow_runtime.run(flow, REQUEST, settings=settings))
        ratio = median_ratio(paired(timed(ours), timed(live), pairs=pairs))
        yield Figure("compile.run", "8 nodes, the generated run() / flow_runtime.run", ratio, target=1.0)
        agent = runner.run(module.DiamondAgent(settings=settings).__aenter__())
        opened = runner.run(LocalFlow(flow, settings=settings).__aenter__())
        ours, live = repeated(lambda: agent.run(REQUEST)), repeated(lambda: opened.run(REQUEST))
        ratio = median_ratio(paired(timed(ours), timed(live), pairs=pairs))
        yield Figure("compile.opened", "the same, both kept open", ratio, target=None)


def _imported(folder: Path, text: str) -> ModuleType:
    path = folder / MODULE
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("agentflow_compiled_diamond", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module
