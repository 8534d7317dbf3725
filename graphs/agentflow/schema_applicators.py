"""The draft-07 keywords that hold schemas, and how each applies them to a value or to its parts.

A builder takes the whole schema object, because some keywords only mean something beside others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from agentflow.bounded import Meter, shown
from agentflow.errors import SchemaInvalid
from agentflow.patterns import compile_pattern
from agentflow.schema_keywords import Check, Problem, is_dict, is_list, missing, names


class Scope(Protocol):
    """The schema object that is being compiled."""

    def sub(self, schema: Any, *steps: str | int, in_place: bool = False) -> Check:
        """Compile a schema inside it; `in_place` when it applies to the same value."""
        ...


def _several(schema: dict[str, Any], keyword: str, scope: Scope) -> list[Check]:
    alternatives = schema[keyword]
    if not is_list(alternatives) or not alternatives:
        raise SchemaInvalid(f"{keyword} is an array of schemas, with at least one")
    return [scope.sub(entry, keyword, index, in_place=True) for index, entry in enumerate(alternatives)]


def _mapped(schema: dict[str, Any], keyword: str, scope: Scope) -> dict[str, Check]:
    members = schema.get(keyword, {})
    if not is_dict(members):
        raise SchemaInvalid(f"{keyword} is an object of schemas")
    return {name: scope.sub(member, keyword, name) for name, member in members.items()}


def _optional(schema: dict[str, Any], keyword: str, scope: Scope, *, in_place: bool = False) -> Check | None:
    return scope.sub(schema[keyword], keyword, in_place=in_place) if keyword in schema else None


def _all_of(schema: dict[str, Any], scope: Scope) -> Check:
    checks = _several(schema, "allOf", scope)

    def check(value: Any, meter: Meter) -> Problem | None:
        for each in checks:
            if problem := each(value, meter):
                return problem
        return None

    return check


def _any_of(schema: dict[str, Any], scope: Scope) -> Check:
    checks = _several(schema, "anyOf", scope)

    def check(value: Any, meter: Meter) -> Problem | None:
        first: Problem | None = None
        for each in checks:
            problem = each(value, meter)
            if problem is None:
                return None
            first = first or problem
        return _fits_none(first)

    return check


def _one_of(schema: dict[str, Any], scope: Scope) -> Check:
    checks = _several(schema, "oneOf", scope)

    def check(value: Any, meter: Meter) -> Problem | None:
        problems = [each(value, meter) for each in checks]
        fitting = problems.count(None)
        if fitting == 1:
            return None
        if fitting > 1:
            return Problem(f"fits {fitting} of the alternatives in oneOf instead of one")
        return _fits_none(problems[0])

    return check


def _fits_none(first: Problem | None) -> Problem:
    return Problem(f"fits none of the alternatives; for the first one: {first}")


def _not(schema: dict[str, Any], scope: Scope) -> Check:
    inner = scope.sub(schema["not"], "not", in_place=True)
    return lambda value, meter: None if inner(value, meter) else Problem("is what `not` excludes")


def _if(schema: dict[str, Any], scope: Scope) -> Check | None:
    test = _optional(schema, "if", scope, in_place=True)
    then = _optional(schema, "then", scope, in_place=True)
    otherwise = _optional(schema, "else", scope, in_place=True)
    if test is None:
        return None

    def check(value: Any, meter: Meter) -> Problem | None:
        branch = otherwise if test(value, meter) else then
        return branch(value, meter) if branch else None

    return check


def _items(schema: dict[str, Any], scope: Scope) -> Check:
    items = schema.get("items", True)
    rest = _optional(schema, "additionalItems", scope)
    if is_list(items):
        if not items:
            raise SchemaInvalid("items is a schema, or an array of schemas with at least one")
        ahead = [scope.sub(entry, "items", index) for index, entry in enumerate(items)]
    else:
        ahead, rest = [], scope.sub(items, "items")

    def check(value: Any, meter: Meter) -> Problem | None:
        if not is_list(value):
            return None
        for index, item in enumerate(value):
            each = ahead[index] if index < len(ahead) else rest
            if each and (problem := each(item, meter)):
                return problem.under(index)
        return None

    return check


def _contains(schema: dict[str, Any], scope: Scope) -> Check:
    inner = scope.sub(schema["contains"], "contains")

    def check(value: Any, meter: Meter) -> Problem | None:
        if not is_list(value) or any(inner(item, meter) is None for item in value):
            return None
        return Problem("contains no element of the kind it must contain")

    return check


def _properties(schema: dict[str, Any], scope: Scope) -> Check:
    known = _mapped(schema, "properties", scope)
    by_pattern = _mapped(schema, "patternProperties", scope)
    matched = [(compile_pattern(source), each) for source, each in by_pattern.items()]
    rest = _optional(schema, "additionalProperties", scope)
    closed = schema.get("additionalProperties") is False

    def check(value: Any, meter: Meter) -> Problem | None:
        if not is_dict(value):
            return None
        meter.spend(len(value))
        for key, member in value.items():
            checks = [known[key]] if key in known else []
            if matched:
                checks += [each for pattern, each in matched if pattern.found_in(key, meter)]
            if not checks and closed:
                return Problem(f"has the unknown key {shown(key)}")
            if not checks and rest:
                checks = [rest]
            for each in checks:
                if problem := each(member, meter):
                    return problem.under(key)
        return None

    return check


def _property_names(schema: dict[str, Any], scope: Scope) -> Check:
    inner = scope.sub(schema["propertyNames"], "propertyNames")

    def check(value: Any, meter: Meter) -> Problem | None:
        if not is_dict(value):
            return None
        for key in value:
            if problem := inner(key, meter):
                return Problem(f"has the key {shown(key)}, which {problem.text}")
        return None

    return check


def _dependencies(schema: dict[str, Any], scope: Scope) -> Check:
    members = schema["dependencies"]
    if not is_dict(members):
        raise SchemaInvalid("dependencies is an object of schemas and arrays of names")
    checks = {
        name: _needs(names(member, "dependencies"))
        if is_list(member)
        else scope.sub(member, "dependencies", name, in_place=True)
        for name, member in members.items()
    }

    def check(value: Any, meter: Meter) -> Problem | None:
        if not is_dict(value):
            return None
        for name, each in checks.items():
            if name in value and (problem := each(value, meter)):
                return problem
        return None

    return check


def _needs(wanted: list[str]) -> Check:
    return lambda value, meter: missing(value, wanted)


def _definitions(schema: dict[str, Any], scope: Scope) -> None:
    _mapped(schema, "definitions", scope)


APPLICATORS: Mapping[tuple[str, ...], Callable[[dict[str, Any], Scope], Check | None]] = {
    ("properties", "patternProperties", "additionalProperties"): _properties,
    ("propertyNames",): _property_names,
    ("dependencies",): _dependencies,
    ("items", "additionalItems"): _items,
    ("contains",): _contains,
    ("allOf",): _all_of,
    ("anyOf",): _any_of,
    ("oneOf",): _one_of,
    ("not",): _not,
    ("if", "then", "else"): _if,
    ("definitions",): _definitions,
}
"""By the keywords that each builder reads; it runs when one of them is there."""
