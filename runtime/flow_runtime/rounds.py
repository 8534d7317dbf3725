"""`loop`: a node's work again on its own outputs, until an expression over them holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agentflow.errors import CastError, ExpressionFailed
from agentflow.expressions import compile_expression
from agentflow.failure import Failure
from agentflow.ir import Node
from agentflow.types import cast
from flow_runtime.call import NodeCall, Run
from runtime_core.outcome import NodeOutcome
from runtime_core.sessions.records import SessionRecord


class Rounds:
    """Runs `run_round` until `until` holds; an output feeds the input of its name in the next round.

    Every round has its own attempts, timeouts and fallbacks. A failed round, an `until` that fails and rounds
    that are used up fail the node. The `attempts` of the outcome are those of all rounds.
    """

    def __init__(self, node: Node, run_round: Run) -> None:
        assert node.loop is not None
        self._spec = node.loop
        self._until = compile_expression(node.loop.until, {*(port.name for port in node.outputs), "context"})
        # with for_each a declared type is that of the whole array, while a round sees one element
        types = {port.name: port.type if node.for_each is None else None for port in node.outputs}
        self._fed = [(port.name, types[port.name], port.type) for port in node.inputs if port.name in types]
        self._run_round = run_round

    async def run(self, inputs: Mapping[str, Any], call: NodeCall) -> NodeOutcome:
        attempts = 0
        records: tuple[SessionRecord, ...] = ()
        for number in range(1, self._spec.max_rounds + 1):
            outcome = await self._run_round(inputs, call)
            attempts += outcome.attempts
            records += outcome.records
            if (failure := outcome.failure) is not None:
                if number > 1:
                    failure = replace(failure, reason=f"in round {number}: {failure.reason}", attempts=attempts)
                return NodeOutcome(failure=failure, attempts=attempts)
            outputs = outcome.outputs or {}
            try:
                if self._until.evaluate({"context": call.fields, **outputs}):
                    return replace(outcome, attempts=attempts, records=records)
                inputs = {**inputs, **{name: cast(outputs[name], out, into) for name, out, into in self._fed}}
            except (ExpressionFailed, CastError) as exc:
                return _failed(f"in round {number}: {exc}", attempts)
        rounds = self._spec.max_rounds
        return _failed(f"`{self._until.source}` did not hold within {rounds} rounds (max_rounds: {rounds})", attempts)


def _failed(reason: str, attempts: int) -> NodeOutcome:
    return NodeOutcome(failure=Failure(reason=reason, attempts=attempts), attempts=attempts)
