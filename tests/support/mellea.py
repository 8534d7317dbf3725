"""An engine under a test's own hand, and backends over the simulated model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from llm_client.events import StreamEnded, StreamEvent, TextDelta
from llm_client.results import CompletionResult, EmbeddingResult
from llm_client.spec import EmbeddingSpec, RequestContext, RequestSpec
from mellea_runtime import RoleBackend
from support.engine import Rig, rig

Answer = str | Exception | Callable[[RequestSpec], Any]


@dataclass
class HandEngine:
    """Answers from a list in turn, the last one for ever; waits for `gate` where there is one."""

    answers: list[Answer] = field(default_factory=lambda: ["ok"])
    gate: asyncio.Event | None = None
    asked: list[RequestSpec] = field(default_factory=list)
    contexts: list[RequestContext | None] = field(default_factory=list)
    cancelled: int = 0

    async def complete(self, spec: RequestSpec, *, context: RequestContext | None = None) -> CompletionResult:
        self.contexts.append(context)
        self.asked.append(spec)
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if self.gate is not None:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if callable(answer):
            answer = answer(spec)
        if isinstance(answer, Exception):
            raise answer
        return (
            answer if isinstance(answer, CompletionResult) else CompletionResult(content=answer, finish_reason="stop")
        )

    async def stream(self, spec: RequestSpec, *, context: RequestContext | None = None) -> AsyncGenerator[StreamEvent]:
        result = await self.complete(spec, context=context)
        for piece in re.findall(r"\s*\S+", result.content):
            yield TextDelta(text=piece)
        yield StreamEnded(result=result)

    async def embed(self, spec: EmbeddingSpec, *, context: RequestContext | None = None) -> EmbeddingResult:
        return EmbeddingResult(vectors=tuple((float(len(text)),) for text in spec.inputs))

    def texts(self) -> list[str]:
        """The last message of every request."""
        return [str(spec.messages[-1]["content"]) for spec in self.asked]


@asynccontextmanager
async def sim_backend(**options: Any) -> AsyncIterator[tuple[RoleBackend, Rig]]:
    """A backend of the role `chat`, and the rig behind it."""
    async with rig() as behind:
        yield RoleBackend(behind.engine, "chat", home=asyncio.get_running_loop(), **options), behind


def bodies(behind: Rig) -> list[Any]:
    """What the simulated model was sent."""
    return [entry.request for entry in behind.sent()]
