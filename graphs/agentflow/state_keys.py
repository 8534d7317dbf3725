"""State keys: the template that names a node's bucket, such as `chat_{context.session_id}` (IR.md Q22, Q23).

A resolved key is never the bare text: every value is written with its length, `chat_4:s-12`, and numbers and
booleans with a letter before it, `n1:7`. So two requests whose values differ never share a bucket, whatever
braces or separators a caller puts into a value, while two nodes whose templates differ only in how they
reach a value do share one. Values are data from the request and may not be empty.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from agentflow.bounded import MAX_BITS
from agentflow.errors import PlaceholderError, PlaceholderFailed
from agentflow.expression_source import shortened
from agentflow.types import kind_of

MAX_TEMPLATE = 256
"""Characters of a key template."""
MAX_KEY = 512
"""Characters of a resolved key."""
SCOPE_VARIABLES = frozenset(
    {
        "account_id",
        "chat_id",
        "conversation_id",
        "customer_id",
        "member_id",
        "session_id",
        "thread_id",
        "user_id",
    }
)
"""The context fields that say whose state it is; one of them must be in a session key."""
_SCOPE_INPUTS = frozenset({"session_id", "user_id"})

_BRACES = re.compile(r"\{([^{}]*)\}|[{}]")


@dataclass(frozen=True, slots=True)
class Variable:
    """One `{...}` of a key: a request field, an input port, or the node's id."""

    kind: Literal["context", "input", "node"]
    name: str

    @property
    def text(self) -> str:
        return "{" + (self.name if self.kind == "input" else f"{self.kind}.{self.name}") + "}"

    @property
    def identifies_scope(self) -> bool:
        if self.kind == "input":
            return self.name in _SCOPE_INPUTS
        return self.kind == "context" and self.name in SCOPE_VARIABLES


@dataclass(frozen=True, slots=True)
class StateKey:
    """A compiled key template; `what` is what messages call it."""

    source: str
    parts: tuple[str | Variable, ...]
    what: str = "state key"

    @property
    def where(self) -> str:
        return self.what.replace(" ", ".")

    @property
    def variables(self) -> tuple[Variable, ...]:
        return tuple(part for part in self.parts if isinstance(part, Variable))

    @property
    def has_scope_variable(self) -> bool:
        """Whether the key tells sessions or users apart."""
        return any(variable.identifies_scope for variable in self.variables)

    def resolve(self, inputs: Mapping[str, Any], context: Mapping[str, Any], node_id: str) -> str:
        """The name of the bucket. Raises PlaceholderFailed for a value that is missing or cannot name one."""
        sources: Mapping[str, Mapping[str, Any]] = {
            "input": inputs,
            "context": context,
            "node": {"id": node_id},
        }
        key = "".join(part if isinstance(part, str) else self._written(part, sources[part.kind]) for part in self.parts)
        if len(key) > MAX_KEY:
            message = f"the {self.what} '{self.source}' is longer than {MAX_KEY} characters when it is filled"
            raise PlaceholderFailed(message, placeholder=self.source, where=self.where)
        return key

    def _written(self, variable: Variable, values: Mapping[str, Any]) -> str:
        if variable.name not in values:
            raise self._failed(variable, "it has no value")
        match values[variable.name]:
            case str() as text if text and text.isprintable():
                return f"{len(text)}:{text}"
            case str():
                raise self._failed(variable, "it is empty or has unprintable characters")
            case bool() as flag:
                return f"b{int(flag)}"
            case int() | float() as number if digits := _digits(number):
                return f"n{len(digits)}:{digits}"
            case value:
                raise self._failed(variable, f"it is {kind_of(value)} that cannot name a bucket")

    def _failed(self, variable: Variable, reason: str) -> PlaceholderFailed:
        return PlaceholderFailed(
            f"{variable.text} in the {self.what} '{self.source}' cannot be filled: {reason}",
            placeholder=variable.text,
            where=self.where,
        )


def compile_state_key(
    text: str, input_names: Collection[str], context_names: Collection[str], *, what: str = "state key"
) -> StateKey:
    """Compile a key template: `{name}` is an input port, else a context field; `{context.x}`; `{node.id}`.

    Raises PlaceholderError for a variable that nothing can fill; it is never taken literally.
    """
    if not text or len(text) > MAX_TEMPLATE:
        message = f"a {what} has 1 to {MAX_TEMPLATE} characters, and this one has {len(text)}"
        raise PlaceholderError(message, placeholder=shortened(text), where=what.replace(" ", "."))
    parts: list[str | Variable] = []
    end = 0
    for braces in _BRACES.finditer(text):
        parts.append(text[end : braces.start()])
        parts.append(_variable(braces[0], braces[1], input_names, context_names, what))
        end = braces.end()
    parts.append(text[end:])
    return StateKey(source=text, parts=tuple(part for part in parts if part != ""), what=what)


def _digits(number: int | float) -> str:
    """One text for equal numbers; nothing for those that no key should hold."""
    if isinstance(number, float):
        if not isfinite(number):
            return ""
        number = int(number) if number.is_integer() else number
    return repr(number) if isinstance(number, float) or number.bit_length() <= MAX_BITS else ""


def _variable(
    written: str, path: str | None, input_names: Collection[str], context_names: Collection[str], what: str
) -> Variable:
    if path is None:
        reason = "a brace stands alone; a key has no other use for braces"
    elif path == "node.id":
        return Variable("node", "id")
    elif path.startswith("context.") and path.removeprefix("context.") in context_names:
        return Variable("context", path.removeprefix("context."))
    elif path in input_names:
        return Variable("input", path)
    elif path in context_names:
        return Variable("context", path)
    else:
        known = [*sorted(input_names), *(f"context.{name}" for name in sorted(context_names)), "node.id"]
        reason = f"it is not known here; known are: {', '.join(known)}"
    message = f"{shortened(written)} in the {what} is wrong: {reason}"
    raise PlaceholderError(message, placeholder=written, where=what.replace(" ", "."))
