"""What operators give back, and what the next one is given because of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from runtime_core.report import NO_USE, ModelUse

TEXT = "text"
"""The field of an input that an agent reads."""


@dataclass(frozen=True, slots=True)
class OperatorResult:
    """What became of an operator (source: agent-runtime, Operator Pattern).

    `content` is its answer, mostly text; `data` are fields that the next operator's input gains. Without `success`,
    `error` is a sentence and `code` a stable word for it; `cause` is the exception where there was one. `parts` are
    the results of the operators that it ran, by name. `use` is what its model calls took, those of its parts included.
    """

    content: Any = None
    success: bool = True
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    error: str | None = None
    code: str | None = None
    parts: Mapping[str, OperatorResult] = field(default_factory=dict[str, "OperatorResult"], repr=False)
    use: ModelUse = NO_USE
    cause: BaseException | None = field(default=None, repr=False, compare=False)

    @classmethod
    def failed(
        cls,
        error: str,
        *,
        code: str = "operator_failed",
        cause: BaseException | None = None,
    ) -> OperatorResult:
        return cls(success=False, error=error, code=code, cause=cause)

    def over(self, parts: Mapping[str, OperatorResult]) -> OperatorResult:
        """The same result, of an operator that ran these parts."""
        return replace(self, parts=parts, use=sum((part.use for part in parts.values()), NO_USE))

    def failing(self, name: str, parts: Mapping[str, OperatorResult]) -> OperatorResult:
        """The failure of an operator because its part `name` failed in this way."""
        error, code = f"'{name}' failed: {self.error or 'it said nothing'}", self.code or "operator_failed"
        return OperatorResult.failed(error, code=code, cause=self.cause).over(parts)


def text_of(value: Any) -> str:
    """A value for a model to read: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def following(first: Mapping[str, Any], before: Mapping[str, OperatorResult]) -> dict[str, Any]:
    """The input of an operator that runs after others.

    The fields of the first input, over them the `data` of those before it in their order; `text` is what they
    answered, `results` their answers by name. The answer of one that failed is its error.
    """
    given = dict(first)
    for result in before.values():
        given |= result.data
    if before:
        answers = {name: result.content if result.success else result.error for name, result in before.items()}
        given["results"] = answers
        given[TEXT] = "\n\n".join(map(text_of, answers.values()))
    return given


def reading(given: Mapping[str, Any]) -> str:
    """What an agent is told of an input: its `text`, else a line for every field."""
    if (text := given.get(TEXT)) is not None:
        return text_of(text)
    return "\n".join(f"{name}: {text_of(value)}" for name, value in given.items())
