"""What nodes do: operations that exist, with the arguments they take, and code that can be called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from agentflow.checks.scope import CONTEXT, PROMPT_OUTPUT, Findings, Scope, at_node, unknown_field
from agentflow.code_transform import CodeError, code_kind
from agentflow.errors import ExpressionError, PlaceholderError
from agentflow.expressions import compile_expression
from agentflow.findings import PathStep
from agentflow.ir import Code, Declarative, Node, OperationSpec
from agentflow.operations import OperationSpecification
from agentflow.placeholders import compile_args

_SPEC = ("transform", "spec")
_ARGS = ("transform", "spec", "args")
EXPRESSION = "expression"
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


def check_transforms(scope: Scope) -> Findings:
    """Findings about the transforms of all nodes."""
    for name, node in scope.flow.nodes.items():
        match node.transform:
            case Declarative(spec=spec):
                yield from _operation(scope, name, node, spec)
            case Code():
                yield from _code(name, node.transform)
            case None:
                pass


def _operation(scope: Scope, name: str, node: Node, spec: OperationSpec) -> Findings:
    known = scope.operations.get(spec.op)
    if known is None:
        hint = _operation_hint(spec.op, scope.operations)
        yield at_node("unknown-operation", f"there is no operation '{spec.op}'", hint, node=name, at=(*_SPEC, "op"))
    else:
        yield from _arguments(name, spec, known)
    yield from _placeholders(scope, name, node, spec, known)


def _operation_hint(wanted: str, operations: Mapping[str, OperationSpecification]) -> str:
    if wanted == "llm.generate":
        return "a model call is not an operation: give the node a prompt"
    nearest = get_close_matches(wanted, operations, n=1)
    question = f"did you mean '{nearest[0]}'? " if nearest else ""
    return f"{question}the operations are: {', '.join(operations)}"


def _arguments(name: str, spec: OperationSpec, known: OperationSpecification) -> Findings:
    for argument, is_required in known.args.items():
        if is_required and argument not in spec.args:
            message = f"'{spec.op}' needs the argument '{argument}'"
            yield at_node("missing-argument", message, f"it {known.summary}", node=name, at=(*_ARGS, argument))
    for argument, value in spec.args.items():
        if argument not in known.args:
            nearest = get_close_matches(argument, known.args, n=1)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"its arguments are: {', '.join(known.args)}"
            message = f"'{spec.op}' takes no argument '{argument}'"
            yield at_node("unknown-argument", message, hint, node=name, at=(*_ARGS, argument))
        elif (problem := _bad_argument(argument, value)) is not None:
            message = f"the argument '{argument}' of '{spec.op}' must be {problem}"
            yield at_node("bad-argument", message, node=name, at=(*_ARGS, argument))
    if known.expression_names and isinstance(expression := spec.args.get(EXPRESSION), str):
        yield from _expression(name, expression, known)


def _bad_argument(argument: str, value: Any) -> str | None:
    """What a written-out value should be instead; placeholders are known only at run time."""
    match argument, value:
        case "timeout_ms", int() if not isinstance(value, bool) and value > 0:
            return None
        case "timeout_ms" | "headers", str() if "${" in value:
            return None
        case "timeout_ms", _:
            return "a positive whole number of milliseconds"
        case "headers", _ if not isinstance(value, Mapping):
            return "a mapping of header names to values"
        case "url", _ if not _is_address(value):
            return "text that begins with http://, https:// or a placeholder"
        case "timeout_seconds", _ if not _is_seconds(value):
            return "a positive number of seconds"
        case "scope", _ if not isinstance(value, str) or "${" in value:
            return "a constant: who is asked must not depend on what a request says"
        case "expression", _ if not isinstance(value, str):
            return "an expression, as text"
        case "input", _ if not isinstance(value, str | list):
            return "a placeholder for an array, such as ${items}"
        case "module" | "slot" | "role", _ if not isinstance(value, str) or "${" in value:
            return "plain text without placeholders"
        case "args", _ if not isinstance(value, Mapping):
            return "a mapping of the slot's parameters to values"
        case _:
            return None


def _is_seconds(value: Any) -> bool:
    if isinstance(value, str):
        return "${" in value
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://", "${"))


def _expression(name: str, source: str, known: OperationSpecification) -> Findings:
    try:
        compile_expression(source, known.expression_names)
    except ExpressionError as exc:
        hint = f"it sees: {', '.join(sorted(known.expression_names))}"
        yield at_node("bad-expression", str(exc), hint, node=name, at=(*_ARGS, EXPRESSION))


def _placeholders(
    scope: Scope, name: str, node: Node, spec: OperationSpec, known: OperationSpecification | None
) -> Findings:
    names = {port.name for port in node.inputs} | {CONTEXT} | ({PROMPT_OUTPUT} if node.prompt else set[str]())
    for argument, value in spec.args.items():
        if argument == EXPRESSION and known is not None and known.expression_names:
            continue
        try:
            used = compile_args({argument: value}, names)
        except PlaceholderError as exc:
            at = (*_ARGS, *_steps(exc.where or argument))
            yield at_node("bad-placeholder", str(exc), "write $${ for a plain ${", node=name, at=at)
            continue
        for entry in used.placeholders:
            if entry.path[0] == CONTEXT and entry.path[1] not in scope.fields:
                yield unknown_field(scope, entry.path[1], ("nodes", name, *_ARGS, *_steps(entry.where)))


def _steps(where: str) -> tuple[PathStep, ...]:
    """`body.items[0]` as a path."""
    return tuple(int(index) if index else key for index, key in _STEP.findall(where))


def _code(name: str, code: Code) -> Findings:
    if (code.spec is None) == (code.module is None):
        which = "neither spec nor module" if code.spec is None else "both spec and module"
        hint = "write the code under spec, or name installed code as module: package.module:function"
        yield at_node("code-source", f"the code of '{name}' has {which}", hint, node=name, at=("transform",))
    if code.module is not None and not _is_reference(code.module):
        message = f"'{code.module}' is not package.module:function"
        yield at_node("bad-code", message, node=name, at=("transform", "module"))
    if code.spec is not None:
        try:
            code_kind(code.spec)
        except CodeError as exc:
            yield at_node("bad-code", str(exc), node=name, at=_SPEC)


def _is_reference(module: str) -> bool:
    path, _, function = module.partition(":")
    return all(part.isidentifier() for part in (*path.split("."), function))
