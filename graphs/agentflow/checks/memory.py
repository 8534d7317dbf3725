"""What prompts remember and what their answers must fulfil."""

from __future__ import annotations

from collections.abc import Iterable

from agentflow.checks.scope import CONTEXT, Findings, Scope, at_node
from agentflow.errors import ExpressionError
from agentflow.expressions import compile_expression
from agentflow.ir import Node, Prompt
from agentflow.memory import remembers
from agentflow.tools import tool_nodes

VALUE = "value"
"""What the check of a requirement calls the answer."""
SESSION_FIELD = "session_id"


def check_memory(scope: Scope) -> Findings:
    """Findings about memory and requirements of all prompts."""
    tools = tool_nodes(scope.flow)
    for name, node in scope.flow.nodes.items():
        if (kind := remembers(node)) != "none":
            if kind == "session" and not scope.is_subflow and SESSION_FIELD not in scope.fields:
                message = f"'{name}' remembers the session, and the request has no field '{SESSION_FIELD}'"
                hint = f"list {SESSION_FIELD} under context.requires or context.optional"
                yield at_node("no-session", message, hint, node=name, at=("prompt", "memory") if node.prompt else ())
            if name in tools:
                message = f"a prompt calls '{name}' as a tool, and a tool remembers nothing"
                yield at_node("tool-memory", message, "remove its memory", node=name, at=("prompt", "memory"))
        if node.prompt is not None:
            yield from _requirements(name, node, node.prompt)


def _requirements(name: str, node: Node, prompt: Prompt) -> Findings:
    names = check_names(port.name for port in node.inputs)
    for index, requirement in enumerate(prompt.requirements):
        if requirement.check is None:
            continue
        try:
            compile_expression(requirement.check, names)
        except ExpressionError as exc:
            hint = f"it sees: {', '.join(sorted(names))}"
            at = ("prompt", "requirements", index, "check")
            yield at_node("bad-expression", str(exc), hint, node=name, at=at)


def check_names(inputs: Iterable[str]) -> frozenset[str]:
    """What the check of a requirement may read: the answer as `value`, the request's fields, the input ports."""
    return frozenset({VALUE, CONTEXT, *inputs})
