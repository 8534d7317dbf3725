"""Watching the nodes of a run: what arrives at each, and what the models say to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from agentflow.ir import ModelRef
from flow_runtime.call import NodeCall
from flow_runtime.dispatch import Body
from flow_runtime.errors import NodeTimeout
from flow_runtime.models import ModelAnswer, Models, name_of
from runtime_core.outcome import NodeOutcome


@dataclass(slots=True)
class Seen:
    """One call of a node. `answers` are what the models said during it, in the form of a flow test's script."""

    node: str
    inputs: Mapping[str, Any]
    answers: defaultdict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))


# A node that calls others as tools is told of their answers, too: alone, it will have them called again.
_listening: ContextVar[tuple[Seen, ...]] = ContextVar("agentflow_listening", default=())


class WatchedBody:
    """A body that notes each of its calls."""

    def __init__(self, node: str, body: Body, seen: list[Seen]) -> None:
        self._node = node
        self._body = body
        self._seen = seen

    async def run(self, inputs: Mapping[str, Any], call: NodeCall) -> NodeOutcome:
        mine = Seen(self._node, inputs)
        self._seen.append(mine)
        token = _listening.set((*_listening.get(), mine))
        try:
            return await self._body.run(inputs, call)
        finally:
            _listening.reset(token)


class ListenedModels:
    """Models whose answers every node that is being watched is told of."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def chat(
        self,
        model: str | ModelRef,
        messages: Sequence[Mapping[str, Any]],
        params: Mapping[str, Any],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> ModelAnswer:
        said: Any = {"error": "error"}
        try:
            answer = await self._models.chat(model, messages, params, tools=tools)
            calls = [{"name": call.name, "arguments": call.arguments} for call in answer.tool_calls]
            said = {"tool_calls": calls} if calls else answer.text
        except NodeTimeout:
            said = {"error": "timeout"}
            raise
        finally:
            for each in _listening.get():
                each.answers[name_of(model)].append(said)
        return answer

    @property
    def judge(self) -> str | None:
        """Who judges answers, of models that know it."""
        return getattr(self._models, "judge", None)

    async def embed(self, role: str, texts: Sequence[str]) -> list[list[float]]:
        return await self._models.embed(role, texts)
