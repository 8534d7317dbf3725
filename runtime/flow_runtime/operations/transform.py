"""transform.filter, transform.map and transform.reduce: an expression over each element of an array (Q33)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

from agentflow.errors import ExpressionFailed
from agentflow.expressions import Expression, compile_expression
from agentflow.operations import OPERATIONS
from agentflow.placeholders import compile_args
from agentflow.types import is_array, kind_of
from flow_runtime.errors import OperationFailed
from flow_runtime.operations.base import OperationBinding, OperationCall, OperationFactory

MOST_ITEMS = 100_000
SLICE_S = 0.005
"""How long an array is worked on before others on the event loop have a turn."""


class _PerItem:
    """What the three have in common: the compiled arguments and the way through the array."""

    def __init__(self, binding: OperationBinding) -> None:
        self.op = binding.op
        names = OPERATIONS[binding.op].expression_names
        self.expression: Expression = compile_expression(binding.args["expression"], names)
        others = {name: value for name, value in binding.args.items() if name != "expression"}
        self.args = compile_args(others, binding.names)

    async def items(self, array: Any) -> AsyncIterator[tuple[int, Any]]:
        """The elements with their positions, with pauses for others."""
        if not is_array(array):
            text = f"{self.op} needs an array as its input, but it is {kind_of(array)}"
            raise OperationFailed(text, op=self.op)
        if len(array) > MOST_ITEMS:
            text = f"{self.op} takes at most {MOST_ITEMS} elements, but its input has {len(array)}"
            raise OperationFailed(text, op=self.op)
        now = asyncio.get_running_loop().time
        pause_at = now() + SLICE_S
        for position, item in enumerate(array):
            if now() >= pause_at:
                await asyncio.sleep(0)
                pause_at = now() + SLICE_S
            yield position, item

    def evaluate(self, values: Mapping[str, Any], position: int) -> Any:
        try:
            return self.expression.evaluate(values)
        except ExpressionFailed as exc:
            raise OperationFailed(f"{self.op} failed at element {position}: {exc}", op=self.op) from exc


class Filter(_PerItem):
    """The elements for which the expression holds."""

    async def run(self, values: Mapping[str, Any], call: OperationCall) -> list[Any]:
        array = self.args.resolve(values)["input"]
        return [
            item
            async for position, item in self.items(array)
            if self.evaluate({"item": item, "context": call.context}, position)
        ]


class Map(_PerItem):
    """The expression's value for every element."""

    async def run(self, values: Mapping[str, Any], call: OperationCall) -> list[Any]:
        array = self.args.resolve(values)["input"]
        return [
            self.evaluate({"item": item, "context": call.context}, position)
            async for position, item in self.items(array)
        ]


class Reduce(_PerItem):
    """The last `acc`: it starts as `initial`, and every element makes it the expression's value."""

    async def run(self, values: Mapping[str, Any], call: OperationCall) -> Any:
        args = self.args.resolve(values)
        acc = args["initial"]
        async for position, item in self.items(args["input"]):
            acc = self.evaluate({"item": item, "acc": acc, "context": call.context}, position)
        return acc


FACTORIES: Mapping[str, OperationFactory] = MappingProxyType(
    {"transform.filter": Filter, "transform.map": Map, "transform.reduce": Reduce}
)
