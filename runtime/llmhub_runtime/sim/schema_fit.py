"""Which alternatives of a schema can be finished, and how deep their smallest values are.

Recursive schemas make this a real question: a list node whose `next` is required never ends, unless
one alternative of `next` does.
"""

from __future__ import annotations

from typing import Any

from llmhub_runtime.sim.schema_merge import ALL_TYPES, Shape, Shapes
from llmhub_runtime.sim.schema_values import within_limits

_MAX_DEPTH = 64
_PREFERENCE = ("string", "object", "array", "integer", "number", "boolean", "null")
_TYPE_OF_KEYWORD = {
    **dict.fromkeys(("properties", "required", "additionalProperties", "minProperties", "patternProperties"), "object"),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"), "array"),
    **dict.fromkeys(("pattern", "minLength", "maxLength", "format"), "string"),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), "number"),
}


class Fit:
    """Answers for one root schema, remembered."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._known: dict[tuple[int, int], bool] = {}

    def finishable(self, schema: Any, depth: int) -> list[Shape]:
        """The alternatives that have a value when they start `depth` containers below the root."""
        return [shape for shape in self._shapes.of(schema) if self._fits(shape, _MAX_DEPTH - depth)]

    def height(self, shape: Shape) -> int:
        """How many containers deep the smallest value is."""
        return next((levels for levels in range(_MAX_DEPTH) if self._fits(shape, levels)), _MAX_DEPTH)

    def _fits(self, shape: Shape, levels: int) -> bool:
        if levels < 0:
            return False
        key = (id(shape), levels)
        if key not in self._known:
            self._known[key] = "values" in shape or any(
                self._kind_fits(kind, shape, levels) for kind in kinds_of(shape)
            )
        return self._known[key]

    def _kind_fits(self, kind: str, shape: Shape, levels: int) -> bool:
        if kind == "object":
            inner = [property_of(shape, name) for name in shape.get("required", ())]
        elif kind == "array":
            # Beyond the prefix all items are alike, so one of them stands for the rest.
            count = min(shape.get("minItems", 0), len(shape.get("prefixItems", ())) + 1)
            inner = [item_of(shape, index) for index in range(count)]
        else:
            return True
        return all(any(self._fits(part, levels - 1) for part in self._shapes.of(schema)) for schema in inner)


def kinds_of(shape: Shape) -> list[str]:
    """The types to try: what the keywords speak about first, null last."""
    types = shape["types"]
    hinted = [kind for keyword, kind in _TYPE_OF_KEYWORD.items() if keyword in shape] if types == ALL_TYPES else []
    return list(dict.fromkeys([*hinted, *(kind for kind in _PREFERENCE if kind in types)]))


def property_of(shape: Shape, name: str) -> Any:
    """The schema of one property."""
    return shape.get("properties", {}).get(name, shape.get("additionalProperties", True))


def item_of(shape: Shape, index: int) -> Any:
    """The schema of one list item."""
    prefix = shape.get("prefixItems", ())
    return prefix[index] if index < len(prefix) else shape.get("items", True)


def is_listed(value: Any, shape: Shape) -> bool:
    """Whether a value of `enum` or `const` also has the right type and lies within the limits."""
    types = shape["types"]
    match value:
        case None:
            return "null" in types
        case bool():
            return "boolean" in types
        case int() | float():
            whole = value == int(value)
            return ("number" in types or (whole and "integer" in types)) and within_limits(value, shape)
        case str():
            return "string" in types and shape.get("minLength", 0) <= len(value) <= shape.get("maxLength", len(value))
        case list():
            return "array" in types
        case _:
            return "object" in types
