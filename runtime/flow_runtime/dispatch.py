"""Calling nodes where they run; here, node bodies of this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from flow_runtime.call import NodeCall
from runtime_core.outcome import NodeOutcome


class Body(Protocol):
    """A node that is ready to run."""

    async def run(self, inputs: Mapping[str, Any], call: NodeCall) -> NodeOutcome: ...


class Dispatcher(Protocol):
    """Brings a call to the place where its node runs.

    Raises NodeLostError when that process died, DispatchRefusedError when it did not take the call.
    """

    async def call(self, node: str, inputs: Mapping[str, Any], call: NodeCall) -> NodeOutcome: ...


class LocalDispatch:
    """Calls node bodies of this process."""

    def __init__(self, bodies: Mapping[str, Body]) -> None:
        self._bodies = bodies

    async def call(self, node: str, inputs: Mapping[str, Any], call: NodeCall) -> NodeOutcome:
        return await self._bodies[node].run(inputs, call)
