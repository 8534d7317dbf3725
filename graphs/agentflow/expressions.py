"""The expression language of conditions, `until`, `check` and transform.filter/map/reduce (IR.md Q9, Q33).

A subset of Python expressions over named values: comparisons, `and or not`, `+ - * / // %`, subscripts and
slices, literals, `a if c else b`, and calls of `abs bool float int len max min str`. The fields of `context`
are read by dot or subscript; nothing else has attributes. A source is parsed, checked against that list and
turned into closures; no Python code is ever compiled from it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentflow.bounded import Meter
from agentflow.errors import ExpressionFailed, LimitExceeded
from agentflow.expression_nodes import Builder, Run
from agentflow.expression_source import parse, shortened

MAX_WORK = 300_000
"""Units of work of one evaluation (see `bounded`): at most some 30 ms."""
MAX_RESULT = 600_000
"""Units that an array or object which an expression builds may weigh, with what it takes in."""

_FAULTS = (
    ArithmeticError,
    AttributeError,
    LimitExceeded,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression; it pickles as its source.

    `names` are the values that it uses, `context_fields` the fields of `context` that it reads.
    """

    source: str
    names: frozenset[str]
    context_fields: frozenset[str]
    known_names: tuple[str, ...] = field(repr=False)
    _run: Run = field(repr=False, compare=False)
    _builds: bool = field(repr=False, compare=False)

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The value of the expression over `values`; `values["context"]` is a mapping.

        Raises ExpressionFailed, which names whatever is missing or does not fit.
        """
        meter = Meter(MAX_WORK)
        try:
            result = self._run(values, meter)
            if self._builds:
                Meter(MAX_RESULT).weigh(result)
        except _FAULTS as exc:
            cause = _cause(exc)
            message = f"the expression `{shortened(self.source)}` failed: {cause}"
            raise ExpressionFailed(message, source=self.source, cause=cause) from exc
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return compile_expression, (self.source, self.known_names)


def compile_expression(source: str, names: Collection[str]) -> Expression:
    """Compile `source`, which may use the values in `names`. Raises ExpressionError."""
    builder = Builder(source, frozenset(names))
    run = builder.build(parse(source))
    return Expression(
        source=source,
        names=frozenset(builder.used),
        context_fields=frozenset(builder.context_fields),
        known_names=tuple(sorted(names)),
        _run=run,
        _builds=builder.builds,
    )


def _cause(exc: BaseException) -> str:
    match exc:
        case ZeroDivisionError():
            return "it divides by zero"
        case OverflowError():
            return "a number is too large"
        case RecursionError():
            return "a value is nested too deeply"
        case MemoryError():
            return "it needs too much memory"
        case _:
            return shortened(str(exc)) or type(exc).__name__
