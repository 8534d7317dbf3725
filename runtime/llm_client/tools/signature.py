"""The parameters of a function: which of them a model may give, as JSON Schema, and which it never sees."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from llm_client.spec import RequestContext

_ONE_BY_ONE = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_COMPOSED = ("$ref", "allOf", "anyOf", "oneOf", "if", "patternProperties")


class Injected:
    """`Annotated[Database, Injected]`: the caller of the agent gives the value; the model cannot see or set it."""


class SignatureUnsuitable(Exception):
    """Says in a sentence why a function cannot be a tool."""


@dataclass(frozen=True)
class Signature:
    """`context` and `injected` name the parameters that never come from the model; `required` those of them that
    have no default."""

    schema: dict[str, Any]
    model: type[BaseModel] | None = None
    given: tuple[str, ...] = ()
    context: frozenset[str] = frozenset()
    injected: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()

    def coerced(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Python values for arguments that fit the schema. Raises pydantic's ValidationError."""
        if self.model is None:
            return dict(arguments)
        value = self.model.model_validate(arguments)
        return {name: getattr(value, field) for name, field in zip(self.given, self.model.model_fields, strict=True)}

    def injections(self, context: RequestContext, injected: Mapping[str, Any]) -> dict[str, Any]:
        """What wins over anything that the model wrote."""
        return {name: injected[name] for name in self.injected & injected.keys()} | dict.fromkeys(self.context, context)


def signature_of(function: Callable[..., Any], descriptions: Mapping[str, str]) -> Signature:
    """Read a typed function. Raises SignatureUnsuitable."""
    hidden = _Hidden(_parameters(function), declared=())
    model = _model(hidden.visible)
    schema = _schema(model)
    for name, text in schema.setdefault("properties", {}).items():
        if name in descriptions:
            text.setdefault("description", descriptions[name])
    given = tuple(parameter.name for parameter in hidden.visible)
    return Signature(schema, model, given, hidden.context, hidden.injected, hidden.required)


def signature_with(schema: Mapping[str, Any], function: Callable[..., Any]) -> Signature:
    """A schema of the author's own. It is closed unless it says otherwise, so that a model cannot reach a
    parameter that the schema does not show. Raises SignatureUnsuitable."""
    if schema.get("type") != "object":
        raise SignatureUnsuitable("its parameters must be a JSON Schema with type: object")
    closed = dict(schema)
    if "additionalProperties" not in closed:
        if composed := [keyword for keyword in _COMPOSED if keyword in closed]:
            raise SignatureUnsuitable(f"its schema uses {composed[0]}; set additionalProperties to say what is allowed")
        closed["additionalProperties"] = False
    declared = closed.setdefault("properties", {})
    hidden = _Hidden(_parameters(function), declared=declared)
    if shown := sorted((hidden.context | hidden.injected) & declared.keys()):
        raise SignatureUnsuitable(f"its schema shows '{shown[0]}', which is injected")
    return Signature(closed, None, (), hidden.context, hidden.injected, hidden.required)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function, eval_str=True).parameters.values())
    except NameError as exc:
        raise SignatureUnsuitable(f"its annotation {exc.name!r} cannot be found where the function is defined") from exc
    except (TypeError, ValueError) as exc:
        raise SignatureUnsuitable("it has no signature; give its parameters as a JSON Schema") from exc


class _Hidden:
    """Tells the parameters that a model may give from the others."""

    def __init__(self, parameters: Iterable[inspect.Parameter], *, declared: Iterable[str]) -> None:
        self._declared = frozenset(declared)
        self._parameters = list(parameters)

    @cached_property
    def context(self) -> frozenset[str]:
        return frozenset(each.name for each in self._parameters if self._takes_context(each))

    @cached_property
    def injected(self) -> frozenset[str]:
        return frozenset(each.name for each in self._parameters if _is_injected(each.annotation))

    @property
    def required(self) -> frozenset[str]:
        return frozenset(
            each.name for each in self._parameters if each.name in self.injected and each.default is each.empty
        )

    @property
    def visible(self) -> list[inspect.Parameter]:
        return [each for each in self._parameters if each.name not in self.context | self.injected]

    def _takes_context(self, parameter: inspect.Parameter) -> bool:
        if parameter.annotation is parameter.empty:
            return parameter.name == "context" and parameter.name not in self._declared
        return any(
            isinstance(each, type) and issubclass(each, RequestContext)
            for each in (parameter.annotation, *get_args(parameter.annotation))
        )


def _is_injected(annotation: Any) -> bool:
    marks = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return any(mark is Injected or isinstance(mark, Injected) for mark in marks)


def _model(parameters: list[inspect.Parameter]) -> type[BaseModel]:
    """A model of the arguments. Its own field names are never seen, so that no parameter can clash with pydantic."""
    fields: dict[str, Any] = {}
    for index, each in enumerate(parameters):
        if each.kind not in _ONE_BY_ONE:
            raise SignatureUnsuitable(f"its parameter '{each}' cannot be given by name")
        if each.annotation is each.empty:
            raise SignatureUnsuitable(f"its parameter '{each.name}' has no type")
        default = ... if each.default is each.empty else each.default
        fields[f"p{index}"] = (Annotated[each.annotation, Field(alias=each.name)], default)
    try:
        return create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)
    except PydanticUserError as exc:
        raise SignatureUnsuitable(f"a parameter's type is none that JSON can carry: {exc.message}") from exc


class _Plain(GenerateJsonSchema):
    """JSON Schema without titles, and with draft-07 patterns only."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's own declaration

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def decimal_schema(self, schema: Any) -> JsonSchemaValue:
        return {"anyOf": [{"type": "number"}, {"type": "string"}]}


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    try:
        schema = model.model_json_schema(schema_generator=_Plain)
    except PydanticUserError as exc:
        raise SignatureUnsuitable(f"a parameter's type has no JSON Schema: {exc.message}") from exc
    schema.pop("title", None)
    return schema
