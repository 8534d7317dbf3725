"""One operator over many items, and one that makes a whole of what came of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_runtime.errors import OrchestrationError
from agent_runtime.orchestration.children import Children
from agent_runtime.orchestration.context import OperatorContext
from agent_runtime.orchestration.operators import Operator, Runnable, as_operator
from agent_runtime.orchestration.parallel import OnError, failure_of
from agent_runtime.orchestration.results import TEXT, OperatorResult, text_of

ITEMS = "items"


class MapReduceOperator(Operator):
    """Map-reduce pattern (source: agent-runtime, Built-in Patterns).

    The items are the input's list `items`; an input without one has its `text` as the only item. Each child is given
    the input with `item`, `index` and the item as `text`, and the fields of an item that is an object. The reducer is
    given the input with `results`, the answers in order, and all of them as `text`. With `on_error="collect"` items
    that fail are left out, as long as one succeeds.
    """

    def __init__(
        self,
        *,
        map_operator: Runnable,
        reduce_operator: Runnable,
        on_error: OnError = "fail",
        name: str = "map_reduce",
    ) -> None:
        super().__init__()
        self._name = name
        self._map = as_operator(map_operator, "map")
        self._reduce = as_operator(reduce_operator, "reduce")
        self._on_error: OnError = on_error

    @property
    def name(self) -> str:
        return self._name

    async def execute(self, input_data: dict[str, Any], context: OperatorContext) -> OperatorResult:
        items = items_of(input_data)
        children = Children(context)
        children.expect(len(items) + 1)
        rest = {name: value for name, value in input_data.items() if name != ITEMS}
        names = [f"{self._map.name}[{index}]" for index in range(len(items))]
        inputs = [for_item(rest, item, index) for index, item in enumerate(items)]
        calls = [(name, self._map, given) for name, given in zip(names, inputs, strict=True)]
        results = await children.all(calls, stop_on_failure=self._on_error == "fail")
        parts = dict(zip(names, results, strict=True))
        if (failure := failure_of(parts, self._on_error)) is not None:
            return failure
        answers = [result.content for result in results if result.success]
        given = {**rest, "results": answers, TEXT: "\n\n".join(map(text_of, answers))}
        reduced = parts[self._reduce.name] = await children.run(self._reduce.name, self._reduce, given)
        return reduced.over(parts) if reduced.success else reduced.failing(self._reduce.name, parts)


def items_of(given: Mapping[str, Any]) -> list[Any]:
    """Raises OrchestrationError for an input that has none."""
    items = given.get(ITEMS, [given[TEXT]] if TEXT in given else None)
    if not isinstance(items, list | tuple):
        raise OrchestrationError(f"Map-reduce needs a list in the field '{ITEMS}' of its input, or a '{TEXT}'.")
    return list(items)


def for_item(rest: Mapping[str, Any], item: Any, index: int) -> dict[str, Any]:
    """The input of one item's operator."""
    fields = dict(item) if isinstance(item, Mapping) else {}
    return {**rest, **fields, "item": item, "index": index, TEXT: fields.get(TEXT, text_of(item))}
