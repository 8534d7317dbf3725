"""What a JSON Schema asks for, with every reference, `allOf`, `anyOf`, `oneOf` and `if` worked in.

`Shapes.of(schema)` lists the alternatives as shapes: dictionaries of keywords that hold together and
contain no choice any more. A value of any one of them satisfies the schema (the caller checks the
"exactly one" of `oneOf`, and which way an `if` went). Shapes are computed once per schema object, so
recursive schemas cost nothing extra.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from llmhub_runtime.sim.errors import SimBadRequest

Shape = Mapping[str, Any]

ALL_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
_MAX_SHAPES = 64


def _both(left: Any, right: Any) -> Any:
    """The schema that asks for both."""
    if left is True or right is True:
        return right if left is True else left
    return {"allOf": [left, right]}


def _joined(left: tuple[Any, ...], right: tuple[Any, ...]) -> tuple[Any, ...]:
    return left + tuple(item for item in right if item not in left)


def _types(left: frozenset[str], right: frozenset[str]) -> frozenset[str]:
    """What both allow; "number" allows integers without naming them."""
    common = left & right
    mixed = ("number" in left and "integer" in right) or ("integer" in left and "number" in right)
    return common | {"integer"} if mixed and "number" not in common else common


def _values(left: tuple[Any, ...], right: tuple[Any, ...]) -> tuple[Any, ...]:
    allowed = {json_key(value) for value in right}
    return tuple(value for value in left if json_key(value) in allowed)


def _prefixes(left: list[Any], right: list[Any]) -> list[Any]:
    return [_both(a, b) for a, b in zip(left, right, strict=False)]


_MERGED: dict[str, Callable[[Any, Any], Any]] = {
    "types": _types,
    "values": _values,
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
    **dict.fromkeys(("multipleOf", "pattern", "contains", "required"), _joined),
    "uniqueItems": lambda a, b: a or b,
    "format": lambda a, b: a,
    "propertyNames": _both,
    "dependentRequired": lambda a, b: {k: (*a.get(k, ()), *b.get(k, ())) for k in {**a, **b}},
}
_WRAPPED = {"multipleOf", "pattern", "contains"}


def json_key(value: Any) -> str:
    """Equal for values that JSON Schema calls equal (1 and 1.0 are, 1 and true are not)."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


class Shapes:
    """The shapes of every schema inside one root document."""

    def __init__(self, root: Any) -> None:
        self._root = root
        # The schema is kept beside its shapes: an id is only good while its object lives.
        self._known: dict[int, tuple[Any, tuple[Shape, ...]]] = {}
        self._busy: set[int] = set()

    def of(self, schema: Any) -> tuple[Shape, ...]:
        """All alternatives; empty when nothing can satisfy the schema."""
        key = id(schema)
        if key in self._known:
            return self._known[key][1]
        if key in self._busy:
            return ()
        self._busy.add(key)
        try:
            shapes = self._expand(schema)
        finally:
            self._busy.discard(key)
        if not self._busy:
            self._known[key] = (schema, shapes)
        return shapes

    def _expand(self, schema: Any) -> tuple[Shape, ...]:
        if schema is True:
            return ({"types": ALL_TYPES},)
        if schema is False:
            return ()
        if not isinstance(schema, dict):
            raise SimBadRequest(f"A schema must be an object, true or false, not {json.dumps(schema)[:60]}.")
        found: list[Shape] = [_own(schema)]
        parts = [self._target(schema["$ref"])] if "$ref" in schema else []
        for part in (*parts, *schema.get("allOf", ())):
            found = self._conjunction(found, self.of(part))
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                branches = [shape for branch in schema[keyword] for shape in self.of(branch)]
                found = self._conjunction(found, branches)
        if "if" in schema:
            taken = {"allOf": [schema["if"], schema.get("then", True)]}
            found = self._conjunction(found, (*self.of(taken), *self.of(schema.get("else", True))))
        return tuple(found)

    def _conjunction(self, left: list[Shape], right: Any) -> list[Shape]:
        merged = (self._merge(a, b) for a in left for b in right)
        return [shape for shape in merged if shape["types"] and shape.get("values") != ()][:_MAX_SHAPES]

    def _merge(self, left: Shape, right: Shape) -> Shape:
        merged = {**left, **right}
        for keyword, both in _MERGED.items():
            if keyword in left and keyword in right:
                merged[keyword] = both(left[keyword], right[keyword])
        merged.update(_merged_properties(left, right))
        merged.update(_merged_items(left, right))
        return merged

    def _target(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise SimBadRequest(f"The schema refers to {reference!r}; only references inside it (#/...) are followed.")
        if reference != "#" and not reference.startswith("#/"):
            return self._anchor(reference)
        node = self._root
        for step in reference[2:].split("/") if reference != "#" else ():
            name = step.replace("~1", "/").replace("~0", "~")
            try:
                node = node[int(name)] if isinstance(node, list) else node[name]
            except (KeyError, IndexError, ValueError, TypeError):
                raise SimBadRequest(f"The schema refers to {reference}, which it does not define.") from None
        return node

    def _anchor(self, reference: str) -> Any:
        pending = [self._root]
        while pending:
            node = pending.pop()
            if isinstance(node, dict):
                if node.get("$anchor") == reference[1:]:
                    return node
                pending.extend(node.values())
            elif isinstance(node, list):
                pending.extend(node)
        raise SimBadRequest(f"The schema refers to {reference}, which it does not define.")


def _own(schema: Mapping[str, Any]) -> Shape:
    """The keywords of one schema object by themselves, in the form that merges."""
    shape: dict[str, Any] = {"types": _declared_types(schema)}
    for keyword in (
        *_MERGED,
        "properties",
        "patternProperties",
        "additionalProperties",
        "items",
        "prefixItems",
    ):
        if keyword in schema:
            shape[keyword] = (schema[keyword],) if keyword in _WRAPPED else schema[keyword]
    if "contains" in schema:
        shape["contains"] = ((schema["contains"], schema.get("minContains", 1)),)
    if "required" in schema:
        shape["required"] = tuple(schema["required"])
    if isinstance(schema.get("items"), list):
        shape["prefixItems"] = schema["items"]
        shape["items"] = schema.get("additionalItems", True)
    if "enum" in schema:
        shape["values"] = tuple(schema["enum"])
    if "const" in schema:
        shape["values"] = (schema["const"],)
    return shape


def _declared_types(schema: Mapping[str, Any]) -> frozenset[str]:
    declared = schema.get("type", ALL_TYPES)
    types = frozenset([declared] if isinstance(declared, str) else declared)
    unknown = types - ALL_TYPES
    if unknown:
        raise SimBadRequest(f"The schema names the type {min(map(str, unknown))!r}, which JSON Schema lacks.")
    return types


def _merged_properties(left: Shape, right: Shape) -> dict[str, Any]:
    """`properties` of both; what one side does not name must pass its `additionalProperties`."""
    merged: dict[str, Any] = {}
    mine, theirs = left.get("properties", {}), right.get("properties", {})
    if mine or theirs:
        merged["properties"] = {
            name: _both(mine.get(name, _others(left)), theirs.get(name, _others(right))) for name in {**mine, **theirs}
        }
    if "additionalProperties" in left and "additionalProperties" in right:
        merged["additionalProperties"] = _both(left["additionalProperties"], right["additionalProperties"])
    patterns = [side["patternProperties"] for side in (left, right) if "patternProperties" in side]
    if len(patterns) == 2:
        merged["patternProperties"] = {**patterns[0], **patterns[1]}
    return merged


def _others(shape: Shape) -> Any:
    """What a property has to be that the shape does not name (pattern properties are checked afterwards)."""
    return True if "patternProperties" in shape else shape.get("additionalProperties", True)


def _merged_items(left: Shape, right: Shape) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    mine, theirs = left.get("prefixItems", []), right.get("prefixItems", [])
    if mine or theirs:
        size = max(len(mine), len(theirs))
        padded = [[*p, *[s.get("items", True)] * (size - len(p))] for p, s in ((mine, left), (theirs, right))]
        merged["prefixItems"] = _prefixes(*padded)
    if "items" in left and "items" in right:
        merged["items"] = _both(left["items"], right["items"])
    return merged
