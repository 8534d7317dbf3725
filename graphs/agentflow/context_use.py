"""Which request fields a node's outcome may depend on, beside its inputs."""

from __future__ import annotations

from agentflow.expressions import compile_expression
from agentflow.ir import Code, Declarative, Node
from agentflow.operations import OPERATIONS
from agentflow.placeholders import compile_args
from agentflow.templates import compile_template
from agentflow.wiring import BUILT_IN_FIELDS

CONTEXT = "context"


def context_fields(node: Node) -> frozenset[str] | None:
    """The fields that a node of a checked flow reads as `context`; None if it may read any.

    `trace_id` and `event_time` are left out: they differ in every run.
    """
    names = {port.name for port in node.inputs} | {CONTEXT, "prompt_output"}
    found: set[str] = set()
    if node.loop is not None:
        outputs = {port.name for port in node.outputs}
        found |= compile_expression(node.loop.until, outputs | {CONTEXT}).context_fields
    if node.prompt is not None:
        if CONTEXT in compile_template(node.prompt.template, names).names:
            return None
        found |= compile_args(list(node.prompt.images), names).context_fields
    match node.transform:
        case Declarative(spec=spec) if (known := OPERATIONS.get(spec.op)) is not None:
            args = dict(spec.args)
            if known.expression_names:
                found |= compile_expression(args.pop("expression"), known.expression_names).context_fields
            found |= compile_args(args, names).context_fields
        case Declarative() | Code():
            return None
        case None:
            pass  # a subflow reads its own request, which is made of the inputs
    return frozenset(found - BUILT_IN_FIELDS)
