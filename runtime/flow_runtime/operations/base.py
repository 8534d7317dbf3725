"""What an operation is: built once for its node, then run for every request.

Whoever brings an operation of their own registers an OperationFactory under the entry point group
`agentflow.operations`. For one that only wants its arguments that is `with_resolved_args(function)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from agentflow.ir import ModelRef
from agentflow.placeholders import compile_args
from flow_runtime.models import Models
from flow_runtime.operations.resources import OperationResources
from flow_runtime.operations.settings import OperationSettings
from runtime_core.context import ExecutionContext

if TYPE_CHECKING:
    from flow_runtime.agent_tools import AgentTools


@dataclass(frozen=True, slots=True)
class OperationCall:
    """One run of an operation. `context` holds the request's fields, `deadline_s` the seconds left.

    Who asks stands in `run` alone; it is None where an operation runs outside of a flow.
    """

    node_id: str
    context: Mapping[str, Any]
    deadline_s: float | None = None
    run: ExecutionContext | None = None


@dataclass(frozen=True, slots=True)
class OperationBinding:
    """What a factory is given: the arguments as the flow has them, what placeholders may name, the models.

    `model` is the one that the node calls where the arguments say nothing else, `tools` are what its agents may call.
    """

    op: str
    args: Mapping[str, Any]
    names: frozenset[str]
    settings: OperationSettings
    resources: OperationResources
    models: Models | None = None
    model: str | ModelRef | None = None
    tools: AgentTools | None = None


class BoundOperation(Protocol):
    """An operation with its arguments compiled."""

    async def run(self, values: Mapping[str, Any], call: OperationCall) -> Any:
        """The operation's value. `values` holds the node's inputs, `context` and `prompt_output`.

        Raises OperationFailed; agentflow's PlaceholderFailed when an argument has no value.
        """
        ...


@runtime_checkable
class Preparing(Protocol):
    """An operation that can make its connections before its first run."""

    async def prepare(self) -> None: ...


OperationFactory = Callable[[OperationBinding], BoundOperation]


class Operation(Protocol):
    """An operation that needs nothing but its arguments, with every placeholder filled."""

    async def __call__(self, args: Mapping[str, Any], call: OperationCall) -> Any: ...


def with_resolved_args(operation: Operation) -> OperationFactory:
    """The factory for a plain operation."""
    return lambda binding: _WithResolvedArgs(operation, binding)


class _WithResolvedArgs:
    def __init__(self, operation: Operation, binding: OperationBinding) -> None:
        self._operation = operation
        self._args = compile_args(dict(binding.args), binding.names)

    async def run(self, values: Mapping[str, Any], call: OperationCall) -> Any:
        return await self._operation(self._args.resolve(values), call)
