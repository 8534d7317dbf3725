"""YAML as kubectl reads it, with bounds: a key that stands twice is an error, and so is a depth that nobody writes."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

MAX_DEPTH = 100
MAX_VALUES = 500_000
_FAST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_FAST):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_documents(text: str) -> list[Any]:
    """Every document in a text. Raises yaml.YAMLError."""
    depth = 0
    for event in yaml.parse(text, Loader=_FAST):  # the loader itself goes down by recursion
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"it is nested more than {MAX_DEPTH} deep")
    try:
        documents = [each for each in yaml.load_all(text, Loader=_Loader) if each is not None]
    except TypeError as exc:
        raise yaml.YAMLError(f"a key is no plain value: {exc}") from exc
    _bound(documents)
    return documents


def _bound(documents: list[Any]) -> None:
    """Aliases may make much of little. Raises yaml.YAMLError."""
    waiting, values = list(documents), 0
    while waiting:
        value = waiting.pop()
        inner: list[Any] = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        values += 1 + len(inner)
        if values > MAX_VALUES:
            raise yaml.YAMLError(f"with its aliases written out it has more than {MAX_VALUES} values")
        waiting += inner


def read_document(text: str) -> Any:
    """The only document in a text. Raises yaml.YAMLError."""
    documents = read_documents(text)
    if len(documents) != 1:
        raise yaml.YAMLError(f"it has {len(documents)} documents")
    return documents[0]
