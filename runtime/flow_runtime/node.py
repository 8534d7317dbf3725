"""A node's body: what one node does with its inputs, wherever it runs.

Local runs, Serve replicas and generated code share it. From the inside out: one attempt (`work`, `subflow`), all
attempts with their fallbacks (`_turn`), a loop of turns (`rounds`), a cache in front of it (`cached`), all of that
once per element (`for_each`). What leaves is an outcome and never an exception.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agentflow.ir import Node
from agentflow.settings import NodeSettings
from flow_runtime.asking import asking
from flow_runtime.attempts import Attempted, attempt, once
from flow_runtime.call import NodeCall, Run
from flow_runtime.parts import NodeParts
from flow_runtime.work import STATIC, NodeWork, Produced, PromptSource
from runtime_core.outcome import NodeOutcome

if TYPE_CHECKING:
    from agentflow.planning import Plan
    from flow_runtime.subflow import SubflowWork

__all__ = ["NodeBody", "NodeParts"]

DEADLINE_GRACE_S = 1.0
"""The run loop ends a run at its deadline and says so; a node stops by itself a little later, in case nobody did."""


class NodeBody:
    """One node of a flow. Use as an async context manager: entering it starts what the node needs to be ready.

    Raises a FlowRuntimeError for a node that cannot run here: a prompt without models, code that is not allowed.
    """

    def __init__(self, node_id: str, node: Node, settings: NodeSettings, parts: NodeParts) -> None:
        self.id = node_id
        self._node = node
        self._settings = settings
        self._parts = parts
        self._work = self._work_of(node)
        self._slots = asyncio.Semaphore(settings.concurrency) if settings.concurrency else None
        self._run = self._layers()

    # What only some nodes need is imported for those: a replica runs one node.
    def _work_of(self, node: Node) -> NodeWork | SubflowWork:
        if node.type == "subflow":
            from flow_runtime.subflow import SubflowWork

            return SubflowWork(self.id, node, self._parts, NodeBody)
        return NodeWork(self.id, node, self._settings, self._parts)

    def _layers(self) -> Run:
        run: Run = self._turn
        if self._node.loop is not None:
            from flow_runtime.rounds import Rounds

            run = Rounds(self._node, run).run
        if self._node.runtime.cache is not None:
            from flow_runtime.cached import Cached

            run = Cached(self.id, self._node, self._settings, self._parts, run).run
        if self._node.for_each is not None:
            from flow_runtime.for_each import EachElement

            run = EachElement(self.id, self._node, run).run
        return run

    async def __aenter__(self) -> NodeBody:
        await self._work.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._work.__aexit__(*exc_info)

    async def run(self, inputs: Mapping[str, Any], call: NodeCall) -> NodeOutcome:
        """Run the node once. `inputs` holds every input port, None for an unfed optional one."""
        with asking(self.id, call, self._parts.operation_resources) as asked:
            outcome = await self._run(inputs, call)
        return replace(outcome, use=asked.use) if asked.use.calls else outcome

    async def _turn(self, inputs: Mapping[str, Any], call: NodeCall) -> NodeOutcome:
        """All attempts at one set of inputs; `concurrency` bounds how many turns a process is in."""
        if self._slots is None:
            done = await self._attempts(inputs, call)
        else:
            async with self._slots:
                done = await self._attempts(inputs, call)
        made: Produced = done.value or Produced()
        return NodeOutcome(outputs=made.outputs, failure=done.failure, attempts=done.attempts, records=made.records)

    async def _attempts(self, inputs: Mapping[str, Any], call: NodeCall) -> Attempted:
        clock, draw = self._parts.clock, self._parts.draw

        def remaining_s() -> float | None:
            left = call.context.remaining_s(clock.now())
            return None if left is None else left + DEADLINE_GRACE_S

        def body(source: PromptSource) -> Callable[[float], Awaitable[Produced]]:
            return lambda timeout_s: self._work.produce(source, inputs, call, timeout_s)

        primary = self._settings.model
        done = await attempt(body(primary), self._settings, clock=clock, draw=draw, remaining_s=remaining_s)
        for source in self._fallbacks(done):
            done = await once(body(source), self._settings, number=done.attempts + 1, remaining_s=remaining_s)
            if done.failure is None:
                break
        return done

    def _fallbacks(self, done: Attempted) -> tuple[PromptSource, ...]:
        """The fallback model once, then the static text, if the last failure is of a kind that asks for them."""
        fallback = self._node.prompt.fallback if self._node.prompt else None
        if fallback is None or done.failure is None or not done.failure.is_of(fallback.on):
            return ()
        model = fallback.role or fallback.model
        static = (STATIC,) if fallback.static_response is not None else ()
        return (model, *static) if model is not None else static


def body_of(planned: Plan, node: str, parts: NodeParts) -> NodeBody:
    """The body of one planned node."""
    return NodeBody(node, planned.node(node), planned.settings[node], parts)
