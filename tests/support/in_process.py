"""Entries of the table in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from flow_runtime import LocalFlow, LocalSettings
from flow_runtime.hub_models import local_models
from flow_runtime.runner import FlowRunner
from llmhub_runtime import LLMHub, parse_runtime_config
from support.surroundings import Surroundings
from support.table import Case


@asynccontextmanager
async def local_runner(case: Case, around: Surroundings, folder: Path) -> AsyncIterator[FlowRunner]:
    """The runner of an entry, its models ready and at the beginning of their script. `folder` takes its store."""
    flow = around.flow(case)
    around.prepare(case)
    settings = LocalSettings(store=f"sqlite:///{folder / 'state.sqlite'}", allow_hosts=around.allow_hosts)
    async with AsyncExitStack() as stack:
        models = None
        if case.asks:
            hub = await stack.enter_async_context(LLMHub(config_obj=parse_runtime_config(around.llmhub)))
            models = await stack.enter_async_context(local_models(flow, hub))
        yield await stack.enter_async_context(LocalFlow(flow, models=models, settings=settings))
