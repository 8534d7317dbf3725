"""What a node says about itself: its id, its ports, the request fields it reads, its replicas."""

from __future__ import annotations

from collections.abc import Iterator

from agentflow.checks.scope import CONTEXT, PROMPT_OUTPUT, Findings, Scope, at_node, unknown_field
from agentflow.findings import Finding, PathStep
from agentflow.ir import Flow, Node
from agentflow.settings import node_settings


def check_nodes(scope: Scope) -> Findings:
    """Findings about each node on its own."""
    for name, node in scope.flow.nodes.items():
        yield from _identity(name, node)
        yield from _doubled_ports(name, node)
        yield from _reserved_names(name, node)
        yield from _context_fields(scope, name, node)
        yield from _retries(scope, name, node)


def check_replicas(scope: Scope) -> Findings:
    """Nowhere may the fewest replicas be more than the most."""
    for path, low, high in _replica_bounds(scope.flow):
        if low is not None and high is not None and low > high:
            message = f"min_replicas is {low}, but max_replicas is only {high}"
            yield Finding("bad-replicas", message, "raise the one or lower the other", path)


def _identity(name: str, node: Node) -> Findings:
    if node.id is not None and node.id != name:
        message = f"the node's id is '{node.id}' but its key is '{name}'"
        yield at_node("node-id-mismatch", message, "remove the id; the key is enough", node=name, at=("id",))
    if node.type == "transform" and node.prompt is None and node.transform is None:
        hint = "give it a prompt, a transform or both"
        yield at_node("empty-node", f"node '{name}' does nothing: it has neither prompt nor transform", hint, node=name)


def _doubled_ports(name: str, node: Node) -> Findings:
    """Port names are unique among the inputs, and among the outputs with the error port."""
    outputs: list[tuple[tuple[PathStep, ...], str]] = [
        (("outputs", index, "name"), port.name) for index, port in enumerate(node.outputs)
    ]
    if node.error is not None:
        outputs.append((("error", "name"), node.error.name))
    inputs = [(("inputs", index, "name"), port.name) for index, port in enumerate(node.inputs)]
    for side in (inputs, outputs):
        seen: set[str] = set()
        for path, port in side:
            if port in seen:
                message = f"node '{name}' has two ports named '{port}' on this side"
                yield at_node("duplicate-port", message, "rename one of them", node=name, at=path)
            seen.add(port)


def _reserved_names(name: str, node: Node) -> Findings:
    """A port that nothing in the node could read, because its name means something else there."""
    reserved = {CONTEXT: "the request's fields"} | ({PROMPT_OUTPUT: "the model's answer"} if node.prompt else {})
    for index, port in enumerate(node.inputs):
        if port.name in reserved:
            message = f"the input port '{port.name}' has the name of {reserved[port.name]}"
            yield at_node("reserved-name", message, "rename the port", node=name, at=("inputs", index, "name"))


def _context_fields(scope: Scope, name: str, node: Node) -> Findings:
    for index, field in enumerate(node.runtime.requires_context):
        if field not in scope.fields:
            yield unknown_field(scope, field, ("nodes", name, "runtime", "requires_context", index))


def _retries(scope: Scope, name: str, node: Node) -> Findings:
    """`retries` counts attempts in all, so a node that says how to retry may still have only one."""
    said = [
        key for key in ("retry_on", "backoff", "max_backoff_ms", "jitter") if getattr(node.runtime, key) is not None
    ]
    if said and node_settings(scope.flow, node, context_names=scope.fields).attempts == 1:
        message = f"node '{name}' says how to try again with '{said[0]}', but has only one attempt"
        hint = "set retries, which counts all attempts, to 2 or more"
        yield at_node("unused-retry", message, hint, node=name, at=("runtime", said[0]), severity="warning")


def _replica_bounds(flow: Flow) -> Iterator[tuple[tuple[PathStep, ...], int | None, int | None]]:
    for name, node in flow.nodes.items():
        if (scaling := node.runtime.autoscaling) is not None:
            yield (
                ("nodes", name, "runtime", "autoscaling", "min_replicas"),
                scaling.min_replicas,
                scaling.max_replicas,
            )
    if flow.deployment.ray is not None and (scaling := flow.deployment.ray.autoscaling) is not None:
        yield ("deployment", "ray", "autoscaling", "min_replicas"), scaling.min_replicas, scaling.max_replicas
    if (kserve := flow.deployment.kserve) is not None:
        yield ("deployment", "kserve", "min_replicas"), kserve.min_replicas, kserve.max_replicas
