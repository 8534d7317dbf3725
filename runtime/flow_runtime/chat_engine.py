"""A node's models as the engine of an Agent. On whose behalf they are called, they know themselves."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from agentflow.ir import ModelRef
from flow_runtime.models import Models
from llm_client.cancellation import CancellationToken
from llm_client.events import StreamEnded, StreamEvent
from llm_client.results import CompletionResult
from llm_client.spec import RequestContext, RequestSpec
from runtime_core.call_log.records import Usage


class ChatEngine:
    """Asks one model, or with `model` None the role of each request."""

    def __init__(self, models: Models, model: str | ModelRef | None = None) -> None:
        self._models = models
        self._model = model

    async def complete(
        self,
        spec: RequestSpec,
        *,
        context: RequestContext | None = None,
        cancellation: CancellationToken | None = None,
    ) -> CompletionResult:
        model = self._model or spec.role
        assert model is not None
        answer = await self._models.chat(model, spec.messages, spec.params, tools=spec.tools)
        return CompletionResult(
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
