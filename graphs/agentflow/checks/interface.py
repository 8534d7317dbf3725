"""What callers see of a flow: fields without contradictions, defaults that fit, schemas that compile."""

from __future__ import annotations

from collections.abc import Iterator

from agentflow.checks.scope import Findings, Scope
from agentflow.errors import SchemaInvalid
from agentflow.findings import Finding, PathStep
from agentflow.ir import Flow, InputField, JsonSchema
from agentflow.schemas import compile_schema
from agentflow.types import mismatch


def check_fields(scope: Scope) -> Findings:
    """Findings about `context` and `inputs`."""
    flow = scope.flow
    required = set(flow.context.requires)
    for index, name in enumerate(flow.context.optional):
        if name in required:
            message = f"the request field '{name}' is both required and optional"
            yield _contradiction(message, "remove it from one of the two lists", ("context", "optional", index))
    for name, field in flow.inputs.items():
        if field.has_default:
            if name in required:
                message = f"the request field '{name}' is required, so its default is never used"
                hint = "remove the default, or remove the field from context.requires"
                yield _contradiction(message, hint, ("inputs", name, "default"))
            if problem := _default_problem(field):
                hint = "change the default or the type; without a default, list the field under context.optional"
                yield Finding("bad-default", f"the default of '{name}' does not fit: {problem}", hint, ("inputs", name))


def check_schemas(scope: Scope) -> Findings:
    """Every JSON Schema of the flow is one that can be checked safely."""
    for path, schema in _schemas(scope.flow):
        try:
            compile_schema(schema)
        except SchemaInvalid as exc:
            yield Finding("bad-schema", str(exc), "only safe JSON Schema keywords may be used", path)


def check_deployment(scope: Scope) -> Findings:
    """The flow can go where it says."""
    if scope.flow.deployment.target == "lambda":
        yield Finding(
            code="lambda-target",
            message="flows do not run on lambda",
            hint="use ray, kserve or local",
            path=("deployment", "target"),
        )


def _contradiction(message: str, hint: str, path: tuple[PathStep, ...]) -> Finding:
    return Finding("contradictory-field", message, hint, path)


def _default_problem(field: InputField) -> str | None:
    if field.type is not None and (problem := mismatch(field.default, field.type)):
        return problem
    try:
        return compile_schema(field.json_schema).check(field.default) if field.json_schema is not None else None
    except SchemaInvalid:
        return None


def _schemas(flow: Flow) -> Iterator[tuple[tuple[PathStep, ...], JsonSchema]]:
    for kind, fields in (("inputs", flow.inputs), ("outputs", flow.outputs)):
        for name, field in fields.items():
            if field.json_schema is not None:
                yield (kind, name, "schema"), field.json_schema
    for name, node in flow.nodes.items():
        for kind, ports in (("inputs", node.inputs), ("outputs", node.outputs)):
            for index, port in enumerate(ports):
                if port.json_schema is not None:
                    yield ("nodes", name, kind, index, "schema"), port.json_schema
        if node.error is not None and node.error.json_schema is not None:
            yield ("nodes", name, "error", "schema"), node.error.json_schema
        if node.prompt is not None and node.prompt.output_schema is not None:
            yield ("nodes", name, "prompt", "output_schema"), node.prompt.output_schema
        for index, tool in enumerate(node.prompt.tools if node.prompt else ()):
            if tool.parameters is not None:
                yield ("nodes", name, "prompt", "tools", index, "parameters"), tool.parameters
