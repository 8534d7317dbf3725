"""`for_each`: a node's work once per element of an array input, several at a time, in the order of the input.

Every element has its own attempts, timeouts and fallbacks. Cancelling the node cancels every element.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentflow.failure import Failure
from agentflow.ir import Node
from agentflow.types import kind_of
from flow_runtime.bindings import OutputBinder
from flow_runtime.call import NodeCall, Run
from flow_runtime.errors import OutputInvalid
from runtime_core.outcome import NodeOutcome


class EachElement:
    """Runs `run_one` per element and makes one outcome of it all.

    Every output is an array; its schema is about the whole of it. A failed element fails the node and cancels
    those that still run (`fail`), leaves no trace (`skip`), or has its failure payload in its place in every
    output (`collect`). An input without a value counts as an empty array, which makes empty arrays.
    """

    def __init__(self, node_id: str, node: Node, run_one: Run) -> None:
        assert node.for_each is not None
        self._id = node_id
        self._spec = node.for_each
        self._ports = tuple(port.name for port in node.outputs)
        self._binder = OutputBinder(node_id, node.outputs)
        self._run_one = run_one

    async def run(self, inputs: Mapping[str, Any], call: NodeCall) -> NodeOutcome:
        name = self._spec.input
        elements = inputs[name] if inputs[name] is not None else []
        if not isinstance(elements, list):
            reason = f"for_each needs an array at its input '{name}', and it got {kind_of(elements)}"
            return NodeOutcome(failure=Failure(reason=reason), attempts=0)

        async def run_one(index: int) -> NodeOutcome:
            return await self._run_one({**inputs, name: elements[index]}, call)

        stops = self._spec.on_item_error == "fail"
        done = await run_each(len(elements), run_one, max_parallel=self._spec.max_parallel, stops=stops)
        return self._joined([(index, outcome) for index, outcome in enumerate(done) if outcome is not None])

    def _joined(self, done: Sequence[tuple[int, NodeOutcome]]) -> NodeOutcome:
        attempts = sum(outcome.attempts for _, outcome in done)
        outputs: dict[str, list[Any]] = {port: [] for port in self._ports}
        for index, outcome in done:
            failure = outcome.failure
            if failure is not None and self._spec.on_item_error == "fail":
                failure = replace(failure, reason=f"{self._spec.input}[{index}]: {failure.reason}")
                return NodeOutcome(failure=failure, attempts=attempts)
            if failure is not None and self._spec.on_item_error == "skip":
                continue
            for port, values in outputs.items():
                values.append((outcome.outputs or {}).get(port) if failure is None else failure.payload(self._id))
        try:
            records = tuple(record for _, outcome in done for record in outcome.records)
            return NodeOutcome(outputs=self._binder.check(outputs), attempts=attempts, records=records)
        except OutputInvalid as exc:
            failure = Failure(reason=str(exc), kind="validation_fail", attempts=attempts)
            return NodeOutcome(failure=failure, attempts=attempts)


class _Stopped(Exception):
    """An element failed and the others need not go on."""


async def run_each(
    count: int, run_one: Callable[[int], Awaitable[NodeOutcome]], *, max_parallel: int, stops: bool
) -> list[NodeOutcome | None]:
    """The outcomes of `run_one(0)` to `run_one(count - 1)`, at most `max_parallel` at a time.

    With `stops` the first failure cancels the others; whatever did not end then is None.
    """
    outcomes: list[NodeOutcome | None] = [None] * count
    left = iter(range(count))

    async def work() -> None:
        for index in left:
            outcome = outcomes[index] = await run_one(index)
            if stops and outcome.failure is not None:
                raise _Stopped

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(max_parallel, count)):
                group.create_task(work())
    except* _Stopped:
        pass
    return outcomes
