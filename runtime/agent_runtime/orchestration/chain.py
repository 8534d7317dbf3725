"""One operator after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_runtime.orchestration.children import Children
from agent_runtime.orchestration.context import OperatorContext
from agent_runtime.orchestration.operators import Operator, Runnable, named
from agent_runtime.orchestration.results import OperatorResult, following


class ChainOperator(Operator):
    """Sequential execution (source: agent-runtime, Built-in Patterns).

    The next operator is given the first input, over it the `data` of the one before, and its answer as `text`. The
    chain ends with the first failure.
    """

    def __init__(self, operators: Sequence[Runnable], *, name: str = "chain") -> None:
        super().__init__()
        self._name = name
        self._operators = named(operators, "step")

    @property
    def name(self) -> str:
        return self._name

    async def execute(self, input_data: dict[str, Any], context: OperatorContext) -> OperatorResult:
        children = Children(context)
        children.expect(len(self._operators))
        done: dict[str, OperatorResult] = {}
        given = dict(input_data)
        result = OperatorResult()
        for name, operator in self._operators.items():
            result = done[name] = await children.run(name, operator, given)
            if not result.success:
                return result.failing(name, done)
            given = following(given, {name: result})
        return result.over(done)
