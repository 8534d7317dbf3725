"""State buckets: keys that keep sessions apart, and code that can reach the bucket."""

from __future__ import annotations

from agentflow.checks.scope import Findings, Scope, at_node
from agentflow.code_transform import CodeError, code_kind
from agentflow.errors import PlaceholderError
from agentflow.ir import Code, Node, State
from agentflow.placeholders import compile_state_key


def check_state(scope: Scope) -> Findings:
    """Findings about the state of all nodes (IR.md rule 8, Q22, Q43)."""
    for name, node in scope.flow.nodes.items():
        if node.state is not None:
            yield from _key(scope, name, node, node.state)
            yield from _lifetime(name, node.state)
            yield from _use(name, node)


def _key(scope: Scope, name: str, node: Node, state: State) -> Findings:
    at = ("state", "key")
    try:
        key = compile_state_key(state.key, {port.name for port in node.inputs}, scope.fields)
    except PlaceholderError as exc:
        hint = "a key may hold {port}, {field}, {context.field} and {node.id}"
        yield at_node("bad-state-key", str(exc), hint, node=name, at=at)
        return
    if state.scope == "session" and not key.has_scope_variable:
        message = f"the session state of '{name}' has the same key for everybody: '{state.key}'"
        hint = "put {context.session_id} or {context.user_id} into the key"
        yield at_node("shared-state-key", message, hint, node=name, at=at)


def _lifetime(name: str, state: State) -> Findings:
    if state.scope == "request" and state.ttl_seconds is not None:
        message = "ttl_seconds is for session state; request state ends with the run"
        yield at_node("ttl-without-session", message, "remove it", node=name, at=("state", "ttl_seconds"))


def _use(name: str, node: Node) -> Findings:
    match node.transform:
        case Code(spec=str() as source):
            if _is_sync(source):
                message = f"the transform of '{name}' is a plain def, which gets no state"
                hint = "make it async def transform(inputs, context, state)"
                yield at_node("unused-state", message, hint, node=name, at=("state",), severity="warning")
        case Code():
            pass
        case _:
            message = f"node '{name}' has state, but only code can use it"
            hint = "remove the state, or give the node a code transform"
            yield at_node("unused-state", message, hint, node=name, at=("state",), severity="warning")


def _is_sync(source: str) -> bool:
    try:
        return code_kind(source) == "sync"
    except CodeError:
        return False
