"""Entries of the table with every node in a deployment of its own, many entries in one application.

The node deployments are those that the builder makes. No entry has a predictor's replica, which would cost more
than its nodes: the test process runs the graph, with the predictor's own dispatch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from agentflow.ir import Flow
from agentflow.planning import plan
from agentflow_serve import app
from agentflow_serve.args import AppArgs
from agentflow_serve.dispatch import ServeDispatch
from agentflow_serve.predictor import PredictorSpec
from agentflow_serve.session_ledger import SharedState
from flow_runtime.local import LocalDispatch
from flow_runtime.runner import FlowRunner
from flow_runtime.state import StateBackends
from runtime_core.clock import SystemClock
from runtime_core.ids import RandomIds
from support.applications import bound
from support.surroundings import Surroundings
from support.table import Case


@asynccontextmanager
async def deployed(
    cases: Sequence[Case], around: Surroundings, folder: Path, *, name: str
) -> AsyncIterator[dict[str, FlowRunner]]:
    """The runners of some entries, by id, while their nodes are deployed as the application `name`."""
    built = {case.id: _built(case, around, folder) for case in cases}
    nodes = [node for _, targets in built.values() for node in targets.values()]
    await asyncio.to_thread(serve.run, _together(nodes), name=name, route_prefix=None)
    try:
        yield {case: _runner(name, spec, list(targets)) for case, (spec, targets) in built.items()}
    finally:
        await asyncio.to_thread(serve.delete, name)


def _built(case: Case, around: Surroundings, folder: Path) -> tuple[PredictorSpec, dict[str, Application]]:
    args = AppArgs(
        flow=around.document(case),
        llmhub=around.llmhub if case.asks else None,
        store=f"sqlite:///{folder / 'state.sqlite'}",
        placement="per_node",
        allow_hosts=around.allow_hosts,
    )
    _, (spec, nodes, _) = bound(app(args))
    return spec, nodes


def _together(nodes: list[Application]) -> Application:
    """An application needs one deployment that is bound to all others. Ray pickles a local class by value."""

    class Together:
        def __init__(self, nodes: list[Any]) -> None:
            self.nodes = nodes

    make: Any = serve.deployment(Together, name="together", ray_actor_options={"num_cpus": 0.01})
    return make.bind(nodes)


def _runner(application: str, spec: PredictorSpec, nodes: list[str]) -> FlowRunner:
    """The run loop of a flow, as the predictor has it."""
    planned = plan(Flow.model_validate(spec.flow))
    handles = {node: serve.get_deployment_handle(f"{planned.name}.{node}", application) for node in nodes}
    return FlowRunner(
        planned,
        ServeDispatch(handles, LocalDispatch({})),
        clock=SystemClock(),
        ids=RandomIds(),
        state=StateBackends({"memory": SharedState(application)}),
    )
