"""One link around a tool call, and how links become a chain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from llm_client.spec import RequestContext
from llm_client.tools import Tool


@dataclass(frozen=True, slots=True)
class ToolInvocation:
    """A call that will be made: the tool is in the list, and the arguments fit its schema.

    `context` is a child of the run's. `number` counts the calls of the run from 1, `attempt` the tries of this one.
    """

    tool: Tool
    call_id: str
    arguments: Mapping[str, Any]
    context: RequestContext
    turn: int = 1
    number: int = 1
    attempt: int = 1
    injected: Mapping[str, Any] = field(default_factory=dict[str, Any])


Next = Callable[[ToolInvocation], Awaitable[str]]


class Middleware(Protocol):
    """Calls `next`, once, again, or not at all, and returns what the model will read.

    A ToolError or a CallRefused (a policy's, a budget's) is told to the model; any other error ends the run.
    Arguments that it changed are checked again. It serves parallel calls of many runs.
    """

    async def __call__(self, call: ToolInvocation, next: Next) -> str: ...


def chained(middleware: Sequence[Middleware]) -> Next:
    """The tool's own call with `middleware` around it, the first one outermost."""
    chain: Next = _call
    for link in reversed(middleware):
        chain = _linked(link, chain)
    return chain


def _linked(link: Middleware, chain: Next) -> Next:
    async def call_link(call: ToolInvocation) -> str:
        return await link(call, chain)

    return call_link


async def _call(call: ToolInvocation) -> str:
    return await call.tool.call(call.arguments, call.context, injected=call.injected)
