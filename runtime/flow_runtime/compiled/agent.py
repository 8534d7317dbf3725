"""A compiled flow that runs in this process: the scheduler decides, the class's methods do the nodes' work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from agentflow.failure import Failure
from agentflow.planning import Plan
from flow_runtime.call import NodeCall
from flow_runtime.compiled.context import Context, Inputs, Outputs
from flow_runtime.compiled.declare import DeclaredNode, FlowFacts, declared_in, planned
from flow_runtime.dispatch import Body
from flow_runtime.errors import NodeFailure
from flow_runtime.governed import governed_models, under_policy
from flow_runtime.local import LocalFlow, LocalSettings
from flow_runtime.models import Models
from flow_runtime.runner import FlowRunner
from runtime_core.loop import Observer
from runtime_core.outcome import NodeOutcome
from runtime_core.report import RunReport

if TYPE_CHECKING:
    from llmhub_runtime.hub import LLMHub

logger = logging.getLogger(__name__)

METHOD = "node_"
"""In front of every node's id, so that no node can take the name of anything else of the class."""


class LocalAgent:
    """Base of compiled flows. Use as an async context manager, or let the first call open it and `aclose` it.

    `hub` answers the prompts and stays its owner's to close; `models` takes its place in tests.
    """

    flow: ClassVar[FlowFacts]
    _declared: ClassVar[dict[str, DeclaredNode]] = {}
    _plan: ClassVar[Plan | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if (declared := declared_in(cls)) or "flow" in vars(cls):
            cls._declared = {**cls._declared, **declared}
            cls._plan = None

    def __init__(
        self, *, hub: LLMHub | None = None, models: Models | None = None, settings: LocalSettings | None = None
    ) -> None:
        self._hub = hub
        self._models = models
        self._settings = self._governed = settings or LocalSettings()
        self.bodies: dict[str, Body] = {}
        self._stack = AsyncExitStack()
        self._runner: FlowRunner | None = None
        self._opening: asyncio.Lock | None = None

    @classmethod
    def plan(cls) -> Plan:
        """The flow, planned; made once."""
        if cls._plan is None:
            cls._plan = planned(cls.flow, cls._declared)
        return cls._plan

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def open(self) -> FlowRunner:
        """Start what the nodes need: models, stores, sandboxes. Raises what LocalFlow and the hub raise."""
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._runner is None:
                async with AsyncExitStack() as stack:
                    self._governed = await under_policy(stack, self._settings)
                    runner = await stack.enter_async_context(
                        LocalFlow(
                            self.plan(),
                            models=await self._opened_models(stack),
                            settings=self._governed,
                            through=self.through,
                        )
                    )
                    self._stack = stack.pop_all()
                    self._runner = runner
            return self._runner

    @property
    def is_open(self) -> bool:
        return self._runner is not None

    async def aclose(self) -> None:
        """Stop it again."""
        self._runner = self._opening = None
        self.bodies.clear()
        await self._stack.aclose()

    async def run(self, request: Mapping[str, Any], **options: Any) -> RunReport:
        """One request through the flow; `options` are those of `FlowRunner.run`."""
        return await (self._runner or await self.open()).run(request, **options)

    async def body(self, node: str, inputs: Inputs, ctx: Context) -> Outputs:
        """A node's declared work: its attempts with their timeouts and fallbacks, cache, loop, elements.

        Raises NodeFailure when all of that has failed.
        """
        if node not in self.bodies:
            await self.open()
        outcome = await self.bodies[node].run(inputs, ctx.call)
        ctx.add(outcome)
        if (failed := outcome.failure) is not None:
            raise NodeFailure(
                failed.reason,
                kind=failed.kind,
                attempts=failed.attempts,
                retry_after=failed.retry_after,
                refused=failed.refused,
            )
        return outcome.outputs or {}

    def through(self, node: str, body: Body) -> Body:
        """A node as the scheduler calls it: the method of this class, around the body."""
        self.bodies[node] = body
        return _MethodBody(node, getattr(self, METHOD + node))

    async def _opened_models(self, stack: AsyncExitStack) -> Models | None:
        if self._hub is None:
            return self._models
        return await stack.enter_async_context(governed_models(self.plan().flow, self._hub, self._governed))


class _MethodBody:
    """Turns what a method raises into the failure that its error port carries."""

    def __init__(self, node: str, method: Callable[[Inputs, Context], Awaitable[Outputs]]) -> None:
        self._node = node
        self._method = method

    async def run(self, inputs: Mapping[str, Any], call: NodeCall) -> NodeOutcome:
        ctx = Context(call=call)
        try:
            outputs = await self._method(inputs, ctx)
            if not isinstance(outputs, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"a method returns the outputs by port, not {type(outputs).__name__}")
        except NodeFailure as exc:
            logger.debug("node '%s' failed", self._node, exc_info=True)
            failure = Failure(str(exc), exc.kind, exc.attempts, exc.retry_after, exc.refused)
        except Exception as exc:
            # Only a method that was changed by hand gets here: a body's own failures are all NodeFailures.
            logger.exception("the method of node '%s' failed", self._node)
            failure = Failure(f"{type(exc).__name__}: {exc}", attempts=max(ctx.outcome.attempts, 1))
        else:
            return replace(ctx.outcome, outputs=outputs, failure=None)
        return replace(ctx.outcome, outputs=None, failure=failure)


async def run_agent(
    agent: type[LocalAgent],
    request: Mapping[str, Any],
    *,
    hub: LLMHub | None = None,
    settings: LocalSettings | None = None,
    deadline_s: float | None = None,
    observe: Observer | None = None,
) -> RunReport:
    """One request through a compiled flow, as `flow_runtime.run` sends one through a flow file."""
    async with agent(hub=hub, settings=settings) as opened:
        return await opened.run(request, deadline_s=deadline_s, observe=observe)
