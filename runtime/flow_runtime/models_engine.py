"""A node's models as an engine: for an Agent with tools, and for what asks through mellea.

On whose behalf they are called, the models know themselves.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Protocol

from agentflow.ir import ModelRef
from flow_runtime.models import ModelAnswer, Models
from llm_client.cancellation import CancellationToken
from llm_client.events import StreamEnded, StreamEvent
from llm_client.results import CompletionResult, EmbeddingResult
from llm_client.spec import EmbeddingSpec, RequestContext, RequestSpec
from runtime_core.call_log.records import Usage

JUDGE = "judge"
"""The role under which an answer is judged here; every other call is the node's own model's."""


class Ask(Protocol):
    """Answers the node's own calls in place of its model, such as a loop between the model and its tools."""

    async def __call__(self, messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> ModelAnswer: ...


class ModelsEngine:
    """`model` answers, or the role of each request where it is None; `judge` judges, or `model` where there is none."""

    def __init__(
        self,
        models: Models,
        model: str | ModelRef | None,
        *,
        judge: str | None = None,
        ask: Ask | None = None,
    ) -> None:
        self._models = models
        self._model = model
        self._judge = judge or model
        self._ask = ask

    async def complete(
        self,
        spec: RequestSpec,
        *,
        context: RequestContext | None = None,
        cancellation: CancellationToken | None = None,
    ) -> CompletionResult:
        judges = spec.role == JUDGE and self._model is not None
        if self._ask is not None and not judges:
            answer = await self._ask(spec.messages, spec.params)
        else:
            model = self._judge if judges else self._model or spec.role
            assert model is not None
            answer = await self._models.chat(model, spec.messages, spec.params, tools=spec.tools)
        return CompletionResult.model_construct(
            content=answer.text,
            finish_reason=answer.finish_reason or "",
            tool_calls=answer.tool_calls,
            usage=Usage(input=answer.usage.get("input", 0), output=answer.usage.get("output", 0)),
        )

    async def stream(
        self,
        spec: RequestSpec,
        *,
        context: RequestContext | None = None,
        cancellation: CancellationToken | None = None,
    ) -> AsyncGenerator[StreamEvent]:
        yield StreamEnded(result=await self.complete(spec, context=context, cancellation=cancellation))

    async def embed(self, spec: EmbeddingSpec, *, context: RequestContext | None = None) -> EmbeddingResult:
        vectors = await self._models.embed(spec.role or "", spec.inputs)
        return EmbeddingResult(vectors=tuple(tuple(vector) for vector in vectors))
