"""The prompt layer: a model to ask, a template that renders, a fallback that can stand in."""

from __future__ import annotations

import json

from agentflow.checks.scope import CONTEXT, Findings, Scope, at_node, listed, unknown_field
from agentflow.errors import PlaceholderError, SchemaInvalid, TemplateError
from agentflow.feature_use import slot_call
from agentflow.findings import Finding, PathStep
from agentflow.ir import Fallback, ModelRef, Node, OperationSpec, Prompt
from agentflow.placeholders import compile_args
from agentflow.schemas import compile_schema
from agentflow.settings import model_of
from agentflow.templates import compile_template
from agentflow.tree import shortened
from agentflow.types import PortType

_TEXTS = frozenset({PortType.STRING, PortType.DOCUMENT})


def check_prompts(scope: Scope) -> Findings:
    """Findings about the prompts of all nodes, and about the flow's default role."""
    yield from _role(scope, scope.flow.defaults.role, ("defaults", "role"))
    for name, node in scope.flow.nodes.items():
        if node.prompt is not None:
            yield from _template(name, node, node.prompt)
            yield from _images(scope, name, node, node.prompt)
            yield from _model(scope, name, node.prompt)
            if node.prompt.fallback is not None:
                yield from _fallback(scope, name, node.prompt, node.prompt.fallback)
        if (slot := slot_call(node)) is not None:
            yield from _slot(scope, name, node, slot)


def _template(name: str, node: Node, prompt: Prompt) -> Findings:
    try:
        compile_template(prompt.template, {port.name for port in node.inputs} | {CONTEXT})
    except TemplateError as exc:
        hint = "a template reads input ports and context, with if, for and filters; it calls nothing"
        yield at_node("bad-template", str(exc), hint, node=name, at=("prompt", "template"))


def _images(scope: Scope, name: str, node: Node, prompt: Prompt) -> Findings:
    names = {port.name for port in node.inputs} | {CONTEXT}
    for index, image in enumerate(prompt.images):
        at = ("prompt", "images", index)
        try:
            found = compile_args([image], names).placeholders
        except PlaceholderError as exc:
            yield at_node("bad-image", str(exc), "write one placeholder, such as ${photo}", node=name, at=at)
            continue
        used = found[0] if found else None
        if used is None or not used.whole:
            message = f"the image '{shortened(image)}' is not a placeholder"
            yield at_node("bad-image", message, "write one placeholder, such as ${photo}", node=name, at=at)
        elif used.path[0] == CONTEXT and used.path[1] not in scope.fields:
            yield unknown_field(scope, used.path[1], ("nodes", name, *at))
        elif (port := _port_type(node, used.path)) is not None and port not in _TEXTS:
            message = f"the image {used.text} is {port}, not text with a URL"
            yield at_node("bad-image", message, "an image is a string: a data: URL or an http(s) URL", node=name, at=at)


def _port_type(node: Node, path: tuple[str, ...]) -> PortType | None:
    """The type of a port that is named whole; what is inside a value is known only at run time."""
    name, *inside = path
    types = {port.name: port.type for port in node.inputs}
    is_element = node.for_each is not None and node.for_each.input == name
    return None if inside or is_element else types.get(name)


def _model(scope: Scope, name: str, prompt: Prompt) -> Findings:
    if prompt.role is not None and prompt.model is not None:
        message = f"the prompt of '{name}' names both a role and a model"
        yield at_node("role-and-model", message, "keep one of the two", node=name, at=("prompt", "model"))
    has_default = scope.flow.defaults.role is not None or scope.has_default_role
    if prompt.role is None and prompt.model is None and not has_default:
        message = f"the prompt of '{name}' names no model"
        hint = "give the prompt a role or a model, or the flow a defaults.role"
        yield at_node("no-model", message, hint, node=name, at=("prompt",))
    yield from _role(scope, prompt.role, ("nodes", name, "prompt", "role"))
    yield from _provider(scope, prompt.model, ("nodes", name, "prompt", "model", "provider"))


def _slot(scope: Scope, name: str, node: Node, slot: OperationSpec) -> Findings:
    at = ("transform", "spec", "args", "role")
    role = slot.args.get("role")
    if isinstance(role, str):
        yield from _role(scope, role, ("nodes", name, *at))
    elif model_of(scope.flow, node) is None and not scope.has_default_role:
        message = f"the slot of '{name}' names no model"
        yield at_node("no-model", message, "give it a role, or the flow a defaults.role", node=name, at=at)


def _fallback(scope: Scope, name: str, prompt: Prompt, fallback: Fallback) -> Findings:
    if fallback.role is not None and fallback.model is not None:
        message = f"the fallback of '{name}' names both a role and a model"
        yield at_node("role-and-model", message, "keep one of the two", node=name, at=("prompt", "fallback", "model"))
    if fallback.role is None and fallback.model is None and fallback.static_response is None:
        message = f"the fallback of '{name}' has nothing to fall back to"
        hint = "give it a role, a model or a static_response"
        yield at_node("empty-fallback", message, hint, node=name, at=("prompt", "fallback"))
    if not fallback.on:
        message = f"the fallback of '{name}' is for no kind of failure"
        hint = "list timeout, error or validation_fail under on"
        yield at_node("empty-fallback", message, hint, node=name, at=("prompt", "fallback", "on"))
    yield from _role(scope, fallback.role, ("nodes", name, "prompt", "fallback", "role"))
    yield from _provider(scope, fallback.model, ("nodes", name, "prompt", "fallback", "model", "provider"))
    problem = _static_problem(prompt, fallback.static_response)
    if problem:
        hint = "with an output_schema, the text must be JSON that fits it"
        yield at_node("bad-static-response", problem, hint, node=name, at=("prompt", "fallback", "static_response"))


def _static_problem(prompt: Prompt, text: str | None) -> str | None:
    """Why the static text could never be the answer; a schema that is itself wrong has its own finding."""
    if text is None or prompt.output_schema is None:
        return None
    try:
        value = json.loads(text)
        problem = compile_schema(prompt.output_schema).check(value)
    except SchemaInvalid:
        return None
    except (ValueError, RecursionError) as exc:
        return f"the static response is not JSON: {exc}"
    return f"the static response does not fit output_schema: {problem}" if problem else None


def _role(scope: Scope, role: str | None, path: tuple[PathStep, ...]) -> Findings:
    if role is not None and scope.roles is not None and role not in scope.roles:
        hint = f"the roles are: {listed(sorted(scope.roles))}"
        yield Finding("unknown-role", f"llmhub has no role '{role}'", hint, path)


def _provider(scope: Scope, model: ModelRef | None, path: tuple[PathStep, ...]) -> Findings:
    if model is not None and scope.providers is not None and model.provider not in scope.providers:
        hint = f"the providers are: {listed(sorted(scope.providers))}"
        yield Finding("unknown-provider", f"llmhub has no provider '{model.provider}'", hint, path)
