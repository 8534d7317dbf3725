"""Several operators on the same input at the same time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from agent_runtime.orchestration.children import Children
from agent_runtime.orchestration.context import OperatorContext
from agent_runtime.orchestration.operators import Operator, Runnable, named
from agent_runtime.orchestration.results import OperatorResult

Aggregate = Callable[[Mapping[str, OperatorResult]], Any]
OnError = Literal["fail", "collect"]


def contents(results: Mapping[str, OperatorResult]) -> dict[str, Any]:
    """The answers by name, of those that have one."""
    return {name: result.content for name, result in results.items() if result.success}


class ParallelOperator(Operator):
    """Parallel execution with aggregation (source: agent-runtime, Built-in Patterns).

    `aggregate` makes the answer of the results by name; left out, the answer is the answers by name. With
    `on_error="fail"` the first failure calls the others off; with `collect` it is enough that one succeeds, and
    `aggregate` sees the failures too.
    """

    def __init__(
        self,
        operators: Sequence[Runnable],
        *,
        aggregate: Aggregate = contents,
        on_error: OnError = "fail",
        name: str = "parallel",
    ) -> None:
        super().__init__()
        self._name = name
        self._operators = named(operators, "branch")
        self._aggregate = aggregate
        self._on_error: OnError = on_error

    @property
    def name(self) -> str:
        return self._name

    async def execute(self, input_data: dict[str, Any], context: OperatorContext) -> OperatorResult:
        calls = [(name, operator, input_data) for name, operator in self._operators.items()]
        results = await Children(context).all(calls, stop_on_failure=self._on_error == "fail")
        parts = dict(zip(self._operators, results, strict=True))
        if (failure := failure_of(parts, self._on_error)) is not None:
            return failure
        made = self._aggregate(parts)
        return (made if isinstance(made, OperatorResult) else OperatorResult(made)).over(parts)


def failure_of(parts: Mapping[str, OperatorResult], on_error: OnError) -> OperatorResult | None:
    """The failure of the whole: its first own one where one is enough, the first of all where none succeeded."""
    failures = {name: result for name, result in parts.items() if not result.success}
    if not failures or (on_error == "collect" and len(failures) < len(parts)):
        return None
    # those that were only called off say nothing about why
    name = next((name for name, result in failures.items() if result.code != "cancelled"), next(iter(failures)))
    return failures[name].failing(name, parts)
