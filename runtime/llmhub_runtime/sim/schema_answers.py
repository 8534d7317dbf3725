"""An instance of a JSON Schema, the same every time for the same schema and seed.

Built, not searched: references, `allOf`, `anyOf` and `oneOf` are worked in first (schema_merge), then one
alternative is written out, with readable texts. While an answer is small, optional properties and a few
list items are included; beyond that, and in recursive schemas, only what is required.
What building cannot guarantee (`not`, `if`, "exactly one" of `oneOf`, ...) is checked with jsonschema, and
another attempt is made. A `pattern` that is too hard to build falls back to a readable text.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import JsonValue

from llmhub_runtime.sim.errors import SimBadRequest
from llmhub_runtime.sim.patterns import text_matching
from llmhub_runtime.sim.schema_fit import Fit, is_listed, item_of, kinds_of, property_of
from llmhub_runtime.sim.schema_merge import Shape, Shapes, json_key
from llmhub_runtime.sim.schema_values import number, text

_ATTEMPTS = 16
_MAX_VALUES = 10_000
_LAVISH_VALUES = 200
_LAVISH_DEPTH = 6
_LAVISH_ITEMS = 2
_CHECKED = frozenset(
    {"not", "if", "then", "else", "oneOf", "contains", "maxContains", "patternProperties", "propertyNames"}
    | {"dependentSchemas", "dependentRequired", "dependencies", "unevaluatedProperties", "unevaluatedItems"}
)
_T = TypeVar("_T")


class _Unsatisfiable(Exception):
    """This branch has no value; another one may."""


def schema_answer(schema: Mapping[str, Any] | bool, *, seed: str, words: Sequence[str] = ()) -> JsonValue:
    """An instance of `schema`. Raises SimBadRequest when there is none or the schema is not one."""
    try:
        return _answer(schema, seed, words)
    except _Unsatisfiable as exc:
        raise SimBadRequest(f"The simulated model found no value for the schema: {exc}.") from exc
    except RecursionError as exc:
        raise SimBadRequest("The schema is nested too deeply.") from exc
    except (TypeError, ValueError, AttributeError, KeyError, ArithmeticError) as exc:
        raise SimBadRequest(f"The schema is not a valid JSON Schema ({type(exc).__name__}: {exc}).") from exc


def _answer(schema: Mapping[str, Any] | bool, seed: str, words: Sequence[str]) -> JsonValue:
    shapes = Shapes(schema)
    check = _checker(schema) if _says(schema, _CHECKED) else None
    for attempt in range(_ATTEMPTS):
        writer = _Writer(shapes, random.Random(f"{seed}/{attempt}"), words, again=attempt > 0)
        value = writer.write(schema)
        if writer.unsure and check is None:
            check = _checker(schema)
        if check is None or check(value):
            return value
    raise SimBadRequest("The simulated model could not build a value for this schema; script an exact answer for it.")


def _checker(schema: Any) -> Callable[[JsonValue], bool]:
    from jsonschema import validators
    from referencing import Registry

    kind: Any = validators.validator_for(schema, default=validators.Draft202012Validator)
    # `pattern` is left out: running an expression from outside may take for ever.
    patternless: Any = validators.extend(kind, {"pattern": lambda *_: None})
    return patternless(schema, registry=Registry()).is_valid


def _says(schema: Any, keywords: frozenset[str]) -> bool:
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if not keywords.isdisjoint(node):
                return True
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return False


class _Writer:
    """Writes one instance. Afterwards `unsure` says whether it still has to be checked."""

    def __init__(self, shapes: Shapes, rng: random.Random, words: Sequence[str], *, again: bool) -> None:
        self._fit = Fit(shapes)
        self._rng = rng
        self._words = words
        self._again = again
        self._made = 0
        self.unsure = False

    def write(self, schema: Any) -> JsonValue:
        return self._value(schema, name="", depth=0, turn=None)

    def _value(self, schema: Any, *, name: str, depth: int, turn: int | None) -> JsonValue:
        self._made += 1
        if self._made > _MAX_VALUES:
            raise SimBadRequest(f"The schema asks for more than {_MAX_VALUES} values.")
        reason = _Unsatisfiable(f"{name or 'a value'} cannot be satisfied")
        for shape in self._ordered(schema, depth):
            for kind in self._kinds(shape):
                try:
                    return self._of_kind(kind, shape, name=name, depth=depth, turn=turn)
                except _Unsatisfiable as exc:
                    reason = exc
        raise reason

    def _ordered(self, schema: Any, depth: int) -> list[Shape]:
        """The alternatives that can be finished: useful ones first, or, in a big answer, the shallowest."""
        shapes = self._fit.finishable(schema, depth)
        if len(shapes) < 2:
            return shapes
        if not self._lavish(depth):
            return sorted(shapes, key=self._fit.height)
        start = self._rng.randrange(len(shapes))
        return sorted(shapes[start:] + shapes[:start], key=_is_null)

    def _kinds(self, shape: Shape) -> list[str]:
        kinds = ["listed"] if "values" in shape else kinds_of(shape)
        if self._again:
            # The first choice did not do.
            self._rng.shuffle(kinds)
        return kinds

    def _lavish(self, depth: int) -> bool:
        return depth < _LAVISH_DEPTH and self._made < _LAVISH_VALUES

    def _of_kind(self, kind: str, shape: Shape, *, name: str, depth: int, turn: int | None) -> JsonValue:
        match kind:
            case "listed":
                return self._listed(shape, turn)
            case "object":
                return self._object(shape, depth=depth, turn=turn)
            case "array":
                return self._array(shape, depth=depth, turn=turn or 0)
            case "string":
                return _found(text(shape, name=name, words=self._words, rng=self._rng, turn=turn), name)
            case "integer" | "number":
                return _found(number(shape, whole=kind == "integer", rng=self._rng, turn=turn), name)
            case "boolean":
                return bool(self._rng.getrandbits(1) if turn is None else turn % 2)
            case _:
                return None

    def _listed(self, shape: Shape, turn: int | None) -> JsonValue:
        fitting = [value for value in shape["values"] if is_listed(value, shape)]
        if not fitting:
            raise _Unsatisfiable("no listed value has the right type")
        self.unsure = self.unsure or len(shape) > 2
        return self._rng.choice(fitting) if turn is None else fitting[turn % len(fitting)]

    def _object(self, shape: Shape, *, depth: int, turn: int | None) -> JsonValue:
        known = shape.get("properties", {})
        required = _required(shape)
        least, most = shape.get("minProperties", 0), shape.get("maxProperties", sys.maxsize)
        if len(required) > most or least > most:
            raise _Unsatisfiable("more properties are required than allowed")
        wanted = most if self._lavish(depth) else least
        made: dict[str, JsonValue] = {}
        for name in required:
            made[name] = self._value(property_of(shape, name), name=name, depth=depth + 1, turn=turn)
        for name in known:
            if len(made) < wanted and name not in made:
                self._add(made, name, known[name], depth=depth, turn=turn)
        for index in range(least):
            if len(made) < least:
                name, schema = self._new_property(shape, index)
                self._add(made, name, schema, depth=depth, turn=turn)
        if len(made) < least:
            raise _Unsatisfiable("too few properties are possible")
        return {name: made[name] for name in (*known, *made) if name in made}

    def _add(self, made: dict[str, JsonValue], name: str, schema: Any, *, depth: int, turn: int | None) -> None:
        """Add a property that need not be there, unless nothing satisfies it."""
        if name in made or not self._fit.finishable(schema, depth + 1):
            return
        try:
            made[name] = self._value(schema, name=name, depth=depth + 1, turn=turn)
        except _Unsatisfiable:
            return

    def _new_property(self, shape: Shape, index: int) -> tuple[str, Any]:
        for pattern, schema in shape.get("patternProperties", {}).items():
            built = text_matching(pattern, rng=self._rng, shortest=index + 1)
            if built is not None:
                return built, schema
        names = shape.get("propertyNames", True)
        name = f"extra_{index + 1}" if names is True else self._value(names, name="", depth=_LAVISH_DEPTH, turn=index)
        return str(name), shape.get("additionalProperties", True)

    def _array(self, shape: Shape, *, depth: int, turn: int) -> JsonValue:
        demands = [schema for schema, count in shape.get("contains", ()) for _ in range(count)]
        least, most = max(shape.get("minItems", 0), len(demands)), shape.get("maxItems", sys.maxsize)
        if least > most:
            raise _Unsatisfiable("more items are asked for than allowed")
        usual = max(_LAVISH_ITEMS, len(shape.get("prefixItems", ()))) if self._lavish(depth) else 0
        made: list[JsonValue] = []
        for index in range(min(max(least, usual), most)):
            schema = item_of(shape, index)
            if index < len(demands):
                schema = {"allOf": [schema, demands[index]]}
            try:
                made.append(self._item(schema, shape, made, depth=depth + 1, turn=turn))
            except _Unsatisfiable:
                if index < least:
                    raise
                break
        return made

    def _item(self, schema: Any, shape: Shape, made: list[JsonValue], *, depth: int, turn: int) -> JsonValue:
        if not self._fit.finishable(schema, depth):
            raise _Unsatisfiable("an item of a list cannot be satisfied")
        taken = {json_key(value) for value in made} if shape.get("uniqueItems") else frozenset[str]()
        for attempt in range(2 * len(taken) + 8 if taken else 1):
            value = self._value(schema, name="", depth=depth, turn=turn + len(made) + attempt)
            if json_key(value) not in taken:
                return value
        raise _Unsatisfiable("a list has too few different items")


def _required(shape: Shape) -> list[str]:
    names = list(dict.fromkeys(shape.get("required", ())))
    for name in names:
        names.extend(other for other in shape.get("dependentRequired", {}).get(name, ()) if other not in names)
    return names


def _is_null(shape: Shape) -> bool:
    return shape["types"] == {"null"} or shape.get("values") == (None,)


def _found(value: _T | None, name: str) -> _T:
    if value is None:
        raise _Unsatisfiable(f"no value of {name or 'the answer'} lies within its limits")
    return value
