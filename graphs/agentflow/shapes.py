"""The first question about a flow: has its data the shape of the language? `checks` asks the second."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agentflow.field_help import help_for
from agentflow.findings import MAX_FINDINGS, Finding, PathStep, first_of
from agentflow.ir import Flow
from agentflow.tree import shortened

MAX_SUGGESTIONS = 50
"""Looking for the nearest key costs time; after this many typos in one file nobody reads the hints."""

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "tuple_type": "a list",
}

_PATTERNS = {
    "^[a-z][a-z0-9_]*$": "a node id: small letters, digits and _, beginning with a letter",
    "^[A-Za-z_][A-Za-z0-9_]*$": "a name: letters, digits and _, not beginning with a digit",
    "^[a-zA-Z0-9_-]{1,64}$": "a tool name: letters, digits, _ and -, at most 64",
    "^[A-Za-z][A-Za-z0-9._-]*$": "a flow name: letters, digits, dot, _ and -, beginning with a letter",
    r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$": "package.module:function",
    r"^\d+(\.\d+)?([KMGT]i?)?$": "an amount of memory, such as 512Mi or 2G",
}


def parse_flow(data: Any) -> tuple[Flow | None, tuple[Finding, ...]]:
    """The flow in `data`, or what is wrong with its shape. Keys count only as files spell them (`from`)."""
    try:
        return Flow.model_validate(data, by_alias=True, by_name=False), ()
    except ValidationError as exc:
        return None, tuple(first_of(_Translator().findings(exc.errors(include_url=False))))


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where an error is: the path as the file has it, and the model that owns its last key."""

    path: tuple[PathStep, ...]
    owner: type[BaseModel] | None

    @property
    def name(self) -> str:
        last = self.path[-1] if self.path else "the flow"
        return f"element {last}" if isinstance(last, int) else f"'{shortened(last)}'" if self.path else last


class _Translator:
    def __init__(self) -> None:
        self._suggested: dict[tuple[type[BaseModel], str], str] = {}

    def findings(self, details: Sequence[ErrorDetails]) -> Iterator[Finding]:
        by_path: dict[tuple[PathStep, ...], list[tuple[_Spot, ErrorDetails]]] = {}
        for detail in details:
            spot = _locate(detail["loc"])
            if len(by_path) > MAX_FINDINGS and spot.path not in by_path:
                break
            by_path.setdefault(spot.path, []).append((spot, detail))
        for group in by_path.values():
            yield self._finding(*_one_of(group))

    def _finding(self, spot: _Spot, detail: ErrorDetails, wanted: str | None) -> Finding:
        if wanted is not None:
            return _wrong_type(spot, detail["input"], wanted)
        context: dict[str, Any] = detail.get("ctx", {})
        match detail["type"]:
            case "missing":
                return _missing(spot)
            case "union_tag_not_found":
                return _missing(_Spot((*spot.path, "mode"), None))
            case "extra_forbidden":
                hint = self._nearest(spot)
                return Finding("unknown-key", f"unknown key {spot.name}", hint, spot.path)
            case "literal_error" | "enum":
                return _not_listed(spot, detail["input"], _listed(context["expected"]))
            case "union_tag_invalid":
                return _not_listed(_Spot((*spot.path, "mode"), None), context["tag"], _listed(context["expected_tags"]))
            case kind:
                problem = _bound(kind, context, _described(detail["input"])) or detail["msg"]
                return Finding("bad-value", f"{spot.name} {problem}", _help(spot), spot.path)

    def _nearest(self, spot: _Spot) -> str:
        if spot.owner is None:
            return ""
        query = (spot.owner, str(spot.path[-1]))
        if query not in self._suggested and len(self._suggested) < MAX_SUGGESTIONS:
            self._suggested[query] = _suggestion(query[1], _keys(spot.owner))
        return self._suggested.get(query, "")


def _one_of(group: list[tuple[_Spot, ErrorDetails]]) -> tuple[_Spot, ErrorDetails, str | None]:
    """One error for one value. Where a value fits none of several types, the error says all of them."""
    for spot, detail in group:
        if detail["type"] not in _WANTED:
            return spot, detail, None
    wanted = " or ".join(dict.fromkeys(_WANTED[detail["type"]] for _, detail in group))
    return *group[0], wanted


def _missing(spot: _Spot) -> Finding:
    return Finding("missing-key", f"the key {spot.name} is missing", _help(spot), spot.path)


def _wrong_type(spot: _Spot, value: Any, wanted: str) -> Finding:
    hint = _help(spot)
    if wanted == "text" and isinstance(value, int | float):
        hint = "put it in quotes"
    elif isinstance(value, str) and wanted in ("a number", "a whole number", "true or false"):
        hint = "take the quotes away, if it has any"
    return Finding("wrong-type", f"{spot.name} must be {wanted}, not {_described(value)}", hint, spot.path)


def _not_listed(spot: _Spot, value: Any, allowed: list[str]) -> Finding:
    hint = f'write "{value}" in quotes' if str(value) in allowed else f"use one of: {', '.join(allowed)}"
    return Finding("bad-value", f"{spot.name} cannot be {_described(value)}", hint, spot.path)


def _listed(expected: str) -> list[str]:
    words = expected.replace(" or ", ", ").replace("'", "").split(", ")
    return [word for word in words if word != "lambda"]


def _bound(kind: str, context: dict[str, Any], value: str) -> str | None:
    match kind:
        case "greater_than_equal":
            return f"must be at least {context['ge']:g}, not {value}"
        case "greater_than":
            return f"must be more than {context['gt']:g}, not {value}"
        case "string_too_short":
            return "must not be empty"
        case "string_too_long":
            return f"must have at most {context['max_length']} characters"
        case "string_pattern_mismatch":
            return f"has {value}, which is not {_PATTERNS.get(context['pattern'], context['pattern'])}"
        case _:
            return None


def _described(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {shortened(value)}"
        case str():
            return f"'{shortened(value)}'"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return f"a {type(value).__name__}"


def _help(spot: _Spot) -> str:
    return help_for(spot.owner, str(spot.path[-1])) if spot.owner and spot.path else ""


def _suggestion(key: str, known: list[str]) -> str:
    nearest = get_close_matches(key, known, n=1)
    return f"did you mean '{nearest[0]}'?" if nearest else f"known keys: {', '.join(known)}"


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _locate(loc: Sequence[PathStep]) -> _Spot:
    """Follow pydantic's location through the models; it names union members too, which files do not."""
    path: list[PathStep] = []
    owner: type[BaseModel] | None = None
    kind: Any = Flow
    for step in loc:
        members = _members(kind)
        if step == "[key]":
            break
        if len(members) > 1:
            kind = next((member for member in members if step in _tags(member)), Any)
            continue
        kind, owner = members[0], None
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            owner, kind = kind, _field_type(kind, step)
        else:
            kind = _element_type(kind)
        path.append(step)
    return _Spot(tuple(path), owner)


def _members(kind: Any) -> list[Any]:
    """The types that `kind` may be, without None and without annotations."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [member for part in get_args(kind) if part is not type(None) for member in _members(part)]
    return [kind]


def _tags(member: Any) -> tuple[Any, ...]:
    if member is Flow:
        return ("flow",)
    if isinstance(member, type) and issubclass(member, BaseModel) and "mode" in member.model_fields:
        literal = member.model_fields["mode"].annotation
        return get_args(literal) if get_origin(literal) is Literal else ()
    return ()


def _element_type(kind: Any) -> Any:
    if get_origin(kind) is dict:
        return get_args(kind)[1]
    return get_args(kind)[0] if get_origin(kind) is tuple else Any


def _field_type(model: type[BaseModel], key: PathStep) -> Any:
    for name, field in model.model_fields.items():
        if (field.alias or name) == key:
            return field.annotation
    return Any
