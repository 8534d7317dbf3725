"""Flow tests: names that tell them apart, scripts that a model could follow, nodes that are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from agentflow.agent_use import agent_tools
from agentflow.checks.scope import Findings, Scope, listed
from agentflow.feature_use import embedders_of
from agentflow.findings import Finding, PathStep
from agentflow.ir import FlowTest
from agentflow.settings import models_of, needs_judge, roles_of
from agentflow.subflows import all_nodes

JUDGE = "judge"
"""Who judges answers in a test; without a script of this name it is the prompt's own role."""


def check_tests(scope: Scope) -> Findings:
    """Findings about `tests`."""
    names: set[str] = set()
    asked = roles_of(scope.flow) | embedders_of(scope.flow.nodes.values(), None)
    asked |= {f"{model.provider}/{model.name}" for model in models_of(scope.flow)}
    if needs_judge(scope.flow):
        asked |= {JUDGE}
    has_tools = any(
        (node.prompt and node.prompt.tools) or agent_tools(node) for node in all_nodes(scope.flow.nodes.values())
    )
    for index, test in enumerate(scope.flow.tests):
        at = ("tests", index)
        if test.name in names:
            message = f"there are two tests named '{test.name}'"
            yield Finding("duplicate-test", message, "rename one of them", (*at, "name"))
        names.add(test.name)
        yield from _scripts(test, at, has_tools=has_tools)
        if not scope.has_default_role:
            yield from _roles(test, at, asked)
        for key in ("skipped", "failed"):
            for position, node in enumerate(getattr(test.expect, key) or ()):
                if node not in scope.flow.nodes:
                    hint = f"the flow has: {listed(scope.flow.nodes)}"
                    path = (*at, "expect", key, position)
                    yield Finding("unknown-node", f"'{node}' names no node of this flow", hint, path)


def _roles(test: FlowTest, at: tuple[PathStep, ...], asked: frozenset[str]) -> Findings:
    named = [("models", name) for name in test.models] + [("calls", name) for name in test.expect.calls]
    for key, name in named:
        if name not in asked:
            path = (*at, "models", name) if key == "models" else (*at, "expect", "calls", name)
            hint = f"its prompts ask: {listed(sorted(asked)) or 'nobody'}"
            yield Finding("bad-script", f"no prompt of this flow asks '{name}'", hint, path)


def _scripts(test: FlowTest, at: tuple[PathStep, ...], *, has_tools: bool) -> Findings:
    for role, script in test.models.items():
        answers = cast("list[Any]", script) if isinstance(script, list) else [script]
        if not answers:
            message = f"the script of '{role}' is a list without answers"
            yield Finding("bad-script", message, "list one answer per call", (*at, "models", role))
        for answer in answers:
            if (kind := scripted_error(answer)) is not None and kind not in ("timeout", "error"):
                message = f"the script of '{role}' has an error that is neither timeout nor error"
                yield Finding("bad-script", message, "write {error: timeout} or {error: error}", (*at, "models", role))
            if has_tools and (calls := scripted_tool_calls(answer)) is not None and not _are_calls(calls):
                message = f"the script of '{role}' has tool_calls that are none"
                hint = "write {tool_calls: [{name: look, arguments: {id: a}}]}"
                yield Finding("bad-script", message, hint, (*at, "models", role))


def scripted_error(answer: Any) -> Any:
    """What stands under `error` in an answer that is nothing else; None for every other answer."""
    return cast("Mapping[str, Any]", answer)["error"] if isinstance(answer, dict) and set(answer) == {"error"} else None  # pyright: ignore[reportUnknownArgumentType]


def scripted_tool_calls(answer: Any) -> Any:
    """What stands under `tool_calls` in an answer that is nothing else; None for every other answer."""
    fields = cast("dict[str, Any]", answer) if isinstance(answer, dict) else dict[str, Any]()
    return fields["tool_calls"] if fields.keys() == {"tool_calls"} else None


def _are_calls(calls: Any) -> bool:
    listed = cast("list[Any]", calls) if isinstance(calls, list) else []
    return bool(listed) and all(map(_is_call, listed))


def _is_call(call: Any) -> bool:
    if not isinstance(call, dict):
        return False
    fields = cast("dict[str, Any]", call)
    return (
        isinstance(fields.get("name"), str)
        and isinstance(fields.get("arguments", {}), dict | str)
        and fields.keys() <= {"name", "arguments"}
    )
