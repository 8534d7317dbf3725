"""What a code transform sees as `context`: the request's fields, the trace id and the time of the event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn


class FlowContext:
    """The request's fields: `context.user_id`, `context["user_id"]` or `context.get("user_id", default)`.

    Immutable. Apart from `get` and `to_dict` every name is free for a field, so that a field called `items`
    is the field and not a method. `trace_id` and `event_time` fill in what `fields` does not have.
    """

    __slots__ = ("_fields",)
    _fields: dict[str, Any]

    def __init__(
        self, fields: Mapping[str, Any], *, trace_id: str | None = None, event_time: str | None = None
    ) -> None:
        own = {name: copy_json(value) for name, value in fields.items()}
        for name, value in (("trace_id", trace_id), ("event_time", event_time)):
            if value is not None:
                own.setdefault(name, value)
        object.__setattr__(self, "_fields", own)

    def get(self, name: str, default: Any = None) -> Any:
        """The field, or `default` when the request has none of that name."""
        return self._fields.get(name, default)

    def to_dict(self) -> dict[str, Any]:
        """All fields, as a copy."""
        return {name: copy_json(value) for name, value in self._fields.items()}

    def __getattr__(self, name: str) -> Any:
        if name == "_fields" or name.startswith("__"):
            raise AttributeError(name)
        try:
            return self._fields[name]
        except KeyError:
            raise AttributeError(_absent(name)) from None

    def __getitem__(self, name: str) -> Any:
        try:
            return self._fields[name]
        except KeyError:
            raise KeyError(_absent(name)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FlowContext) and self._fields == other._fields

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"the context is read-only; '{name}' cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"the context is read-only; '{name}' cannot be deleted")

    def __reduce__(self) -> tuple[type[FlowContext], tuple[dict[str, Any]]]:
        return FlowContext, (self._fields,)

    def __repr__(self) -> str:
        # names only: the values are the caller's data
        return f"FlowContext({', '.join(sorted(self._fields))})"


def copy_json(value: Any) -> Any:
    """A deep copy of JSON data. Anything else, such as a model's handle, is passed on as it is."""
    if isinstance(value, dict):
        return {key: copy_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copy_json(item) for item in value]
    return value


def _absent(name: str) -> str:
    return f"the request has no field '{name}'; use context.get('{name}') for a field that may be missing"
