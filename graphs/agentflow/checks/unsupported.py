"""Parts of the language that are read but not run yet. Silence here would be a wrong answer at run time."""

from __future__ import annotations

from collections.abc import Iterator

from agentflow.checks.scope import Findings, Scope
from agentflow.findings import Finding, PathStep
from agentflow.ir import Deployment, Flow, Node, Runtime, State

Uses = Iterator[tuple[tuple[PathStep, ...], str]]


def check_unsupported(scope: Scope) -> Findings:
    """One finding per field that the flow uses and that does nothing yet."""
    flow = scope.flow
    for path, what in _flow(flow):
        yield _unsupported(path, what)
    for name, node in flow.nodes.items():
        for path, what in _node(node):
            yield _unsupported(("nodes", name, *path), what)


def _unsupported(path: tuple[PathStep, ...], what: str) -> Finding:
    return Finding("not-supported-yet", f"{what} is not supported yet", "remove it for now", path)


def _flow(flow: Flow) -> Uses:
    if flow.durability != "none":
        yield ("durability",), f"'durability: {flow.durability}'"
    yield from _deployment(flow.deployment)


def _deployment(deployment: Deployment) -> Uses:
    if deployment.ray is not None and deployment.ray.placement == "auto":
        yield ("deployment", "ray", "placement"), "'placement: auto'"


def _node(node: Node) -> Uses:
    yield from _runtime(node.runtime)
    if node.state is not None:
        yield from _state(node.state)


def _runtime(runtime: Runtime) -> Uses:
    if runtime.placement == "auto":
        yield ("runtime", "placement"), "'placement: auto'"


def _state(state: State) -> Uses:
    if state.backend in ("redis", "hopsworks"):
        yield ("state", "backend"), f"'backend: {state.backend}'"
