"""JSON Schema, draft-07, for ports and model answers: checked once, compiled to functions, and safe to run.

Schemas come from flow files and values from models and callers, so neither may hang us: references stay
inside the schema and may not loop, patterns run in linear time, and one check does a bounded amount of work.
`format` describes and checks nothing, as draft-07 allows. A problem is one sentence with a JSON path, and
repeats no text of the value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from math import isfinite
from typing import Any
from urllib.parse import unquote

from agentflow.bounded import Meter, shown
from agentflow.errors import LimitExceeded, SchemaInvalid, SchemaMismatch
from agentflow.schema_applicators import APPLICATORS
from agentflow.schema_keywords import ASSERTIONS, NOT_DRAFT_7, Check, Problem, is_dict, is_list
from agentflow.types import kind_of

MAX_DEPTH = 64
"""Levels of nesting in a schema, and references that may follow each other without going into the value."""
MAX_EXPANSION = 1_000
"""Schemas that may apply to one and the same value."""
MAX_NODES = 10_000
"""Objects, arrays and scalars of one schema."""
MAX_WORK = 450_000
"""Units of work of one check (see `bounded`): some 40 ms at worst."""

_EXPANDS = "its references and alternatives expand to too many schemas for one value"


@dataclass(frozen=True, slots=True)
class Schema:
    """A compiled schema; it pickles as its source."""

    source: Any
    _run: Check = field(repr=False, compare=False)

    def check(self, value: Any) -> str | None:
        """The first problem of a JSON value, such as `$.confidence is 1.7, more than the maximum 1`."""
        try:
            problem = self._run(value, Meter(MAX_WORK))
        except LimitExceeded as exc:
            return f"$ is too large to be checked: {exc}"
        except RecursionError:
            return "$ is nested too deeply to be checked"
        return None if problem is None else str(problem)

    def require(self, value: Any) -> None:
        """Raises SchemaMismatch with the first problem."""
        if problem := self.check(value):
            raise SchemaMismatch(f"the value does not fit its schema: {problem}", problem=problem)

    def __reduce__(self) -> tuple[Any, ...]:
        return compile_schema, (self.source,)


def compile_schema(schema: Any) -> Schema:
    """Compile a draft-07 schema (an object, or true or false). Raises SchemaInvalid."""
    source = _Copier().copy(schema, ())
    return Schema(source, _Compiler(source).compile())


Path = tuple[str | int, ...]


def _invalid(path: Path, reason: str) -> SchemaInvalid:
    where = ".".join(map(str, path))
    return SchemaInvalid(f"the schema is wrong at {where or 'its top'}: {reason}", path=where)


class _Copier:
    """A copy that nobody else can change, refused when it is not JSON or too large."""

    def __init__(self) -> None:
        self._nodes = 0

    def copy(self, value: Any, path: Path) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _invalid((), f"it has more than {MAX_NODES} parts")
        if len(path) > MAX_DEPTH:
            raise _invalid((), f"it is nested deeper than {MAX_DEPTH} levels")
        if is_dict(value):
            return {self._key(key, path): self.copy(item, (*path, key)) for key, item in value.items()}
        if is_list(value):
            return [self.copy(item, (*path, index)) for index, item in enumerate(value)]
        if value is None or isinstance(value, (str, int)) or (isinstance(value, float) and isfinite(value)):
            return value
        raise _invalid(path, f"{kind_of(value)} is not JSON")

    def _key(self, key: Any, path: Path) -> str:
        if isinstance(key, str):
            return key
        raise _invalid(path, f"the key {shown(key)} is not a string")


class _Compiler:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._checks: dict[int, Check] = {}
        self._in_place: dict[int, list[int]] = {}
        self._referenced: list[tuple[dict[str, Any], Path]] = []

    def compile(self) -> Check:
        run = self.schema(self._root, ())
        while self._referenced:
            self.schema(*self._referenced.pop())
        self._check_expansion()
        return run

    def schema(self, schema: Any, path: Path) -> Check:
        """Compile one schema, once. Schemas are told apart by identity; the root keeps them alive."""
        if schema is True:
            return _accept
        if schema is False:
            return _refuse
        if not is_dict(schema):
            raise _invalid(path, f"a schema is an object, true or false, not {kind_of(schema)}")
        if id(schema) not in self._checks:
            self._checks[id(schema)] = self._compiled(schema, path)
        return self._checks[id(schema)]

    def _compiled(self, schema: dict[str, Any], path: Path) -> Check:
        if "$ref" in schema:
            return self._reference(schema, path)
        for keyword in NOT_DRAFT_7.keys() & schema.keys():
            raise _invalid((*path, keyword), f"it is not part of draft-07; {NOT_DRAFT_7[keyword]}")
        scope = _Scope(self, schema, path)
        checks: list[Check | None] = [
            _built((*path, keyword), lambda build=build, value=schema[keyword]: build(value))
            for keyword, build in ASSERTIONS.items()
            if keyword in schema
        ]
        checks += [
            _built((*path, present[0]), lambda build=build: build(schema, scope))
            for keywords, build in APPLICATORS.items()
            if (present := [keyword for keyword in keywords if keyword in schema])
        ]
        return _all([check for check in checks if check])

    def applied(self, parent: dict[str, Any], child: Any) -> None:
        """Note that `child` applies to the same value as `parent`."""
        children = self._in_place.setdefault(id(parent), [])
        children.append(id(child))
        if len(children) > MAX_EXPANSION:
            raise _invalid((), _EXPANDS)

    def _reference(self, schema: dict[str, Any], path: Path) -> Check:
        """Beside `$ref`, draft-07 ignores every other keyword."""
        target, target_path = self._resolved(schema["$ref"], (*path, "$ref"))
        if not is_dict(target):
            return self.schema(target, target_path)
        self.applied(schema, target)
        self._referenced.append((target, target_path))
        checks, key = self._checks, id(target)

        def run(value: Any, meter: Meter) -> Problem | None:
            meter.spend(8)
            return checks[key](value, meter)

        return run

    def _resolved(self, reference: Any, path: Path) -> tuple[Any, Path]:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise _invalid(path, "a reference stays inside its schema, such as #/definitions/name")
        target: Any = self._root
        steps = tuple(_unescaped(step) for step in reference.split("/")[1:])
        for step in steps:
            if is_dict(target) and step in target:
                target = target[step]
            elif is_list(target) and step.isdecimal() and len(step) < 6 and int(step) < len(target):
                target = target[int(step)]
            else:
                raise _invalid(path, f"the schema has no {shown(reference)}")
        return target, steps

    def _check_expansion(self) -> None:
        """Follow what applies to one and the same value: it must end, and soon."""
        depths: dict[int, int] = {}
        sizes: dict[int, int] = {}
        try:
            for key in TopologicalSorter(self._in_place).static_order():
                below = self._in_place.get(key, [])
                depths[key] = 1 + max((depths[child] for child in below), default=0)
                sizes[key] = 1 + sum(sizes[child] for child in below)
        except CycleError as exc:
            raise _invalid((), "its references form a loop that never goes into the value") from exc
        if max(depths.values(), default=0) > MAX_DEPTH or max(sizes.values(), default=0) > MAX_EXPANSION:
            raise _invalid((), _EXPANDS)


class _Scope:
    def __init__(self, compiler: _Compiler, schema: dict[str, Any], path: Path) -> None:
        self._compiler = compiler
        self._schema = schema
        self._path = path

    def sub(self, schema: Any, *steps: str | int, in_place: bool = False) -> Check:
        if in_place:
            self._compiler.applied(self._schema, schema)
        return self._compiler.schema(schema, (*self._path, *steps))


def _built(path: Path, build: Callable[[], Check | None]) -> Check | None:
    try:
        return build()
    except SchemaInvalid as exc:
        if exc.path:
            raise
        raise _invalid(path, exc.message) from exc


def _all(checks: list[Check]) -> Check:
    def run(value: Any, meter: Meter) -> Problem | None:
        meter.spend(4)
        for check in checks:
            if problem := check(value, meter):
                return problem
        return None

    return run


def _accept(value: Any, meter: Meter) -> Problem | None:
    return None


def _refuse(value: Any, meter: Meter) -> Problem | None:
    return Problem("is not allowed here")


def _unescaped(step: str) -> str:
    return unquote(step).replace("~1", "/").replace("~0", "~")
