"""The samples of `agent-runtime-implementation.md` that use layer 0's engine, named after their headings.

They run as written; only the provider gains the address of a simulated model, which answers over real HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from llm_client import (
    ExecutionEngine,
    HookEvent,
    IdempotencyConflictError,
    IdempotencyTracker,
    OpenAIProvider,
    RequestContext,
    RequestSpec,
    StreamEnded,
)
from llmhub_runtime.sim import SimServer


@pytest.fixture
async def sim() -> AsyncIterator[SimServer]:
    async with SimServer() as server:
        yield server


@pytest.fixture
async def provider(sim: SimServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenAIProvider]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    async with OpenAIProvider(model="gpt-4", api_base=sim.openai_base) as provider:
        yield provider


async def test_idempotency_tracker_integration(sim: SimServer, provider: OpenAIProvider) -> None:
    seen: list[HookEvent] = []
    spec = RequestSpec.of("Hello!")

    tracker = IdempotencyTracker(request_timeout=60.0)
    engine = ExecutionEngine(
        provider=provider,
        idempotency_tracker=tracker,
        hooks=seen.append,
    )

    # Requests with same idempotency key return cached result
    result = await engine.complete(
        spec,
        idempotency_key="unique-request-123",
    )

    again = await engine.complete(spec, idempotency_key="unique-request-123")
    assert (again.content, again.cached) == (result.content, True)
    *_, last = [event async for event in engine.stream(spec, idempotency_key="unique-request-123")]
    assert isinstance(last, StreamEnded) and last.result == again
    with pytest.raises(IdempotencyConflictError):
        await engine.complete(RequestSpec.of("Bye!"), idempotency_key="unique-request-123")
    assert [event.name for event in seen if event.name.startswith("idempotency")] == [
        "idempotency.start",
        "idempotency.complete",
        "idempotency.hit",
        "idempotency.hit",
        "idempotency.conflict",
    ]
    assert len(sim.log()) == 1
    await engine.aclose()


def test_request_context_extensions() -> None:
    ctx = RequestContext(
        request_id="req-123",
        trace_id="trace-456",
        tenant_id="tenant-789",
        user_id="user-abc",
        session_id="session-def",  # NEW
        job_id="job-ghi",  # NEW
    )

    # Create child context for nested operations
    child_ctx = ctx.child()

    # Add job correlation
    job_ctx = ctx.with_job("job-xyz")

    assert (child_ctx.parent_id, child_ctx.job_id, child_ctx.request_id != "req-123") == ("req-123", "job-ghi", True)
    assert (job_ctx.job_id, job_ctx.session_id, ctx.job_id) == ("job-xyz", "session-def", "job-ghi")
    assert ctx.with_session("s").session_id == "s"
    assert RequestContext.from_dict(ctx.to_dict()) == ctx


async def test_basic_setup(sim: SimServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layer 0 of it; what is built makes no call and needs no key."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    provider = OpenAIProvider(model="gpt-4")
    engine = ExecutionEngine(provider=provider)
    assert (provider.target.provider, provider.target.model) == ("openai", "gpt-4")
    await engine.aclose()
