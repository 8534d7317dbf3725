"""The samples of `agent-runtime-implementation.md` that use layer 0's Agent, named after their headings.

They run as written; only the provider gains the address of a simulated model, which answers over real HTTP.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llm_client import Agent, ExecutionEngine, OpenAIProvider, RequestContext
from llm_client.agent.middleware import Budget, Logging, Retry, Telemetry, Timeout, default_middleware
from llm_client.tools import tool
from llmhub_runtime.sim import SimServer, parse_script


@pytest.fixture
async def sim() -> AsyncIterator[SimServer]:
    async with SimServer() as server:
        yield server


@pytest.fixture
async def engine(sim: SimServer) -> AsyncIterator[ExecutionEngine]:
    provider = OpenAIProvider(model="gpt-4", api_base=sim.openai_base, env_key=None)
    async with provider, ExecutionEngine(provider=provider) as engine:
        yield engine


def answer_after_tools(sim: SimServer, *names: str) -> None:
    calls = [{"name": name, "arguments": {}} for name in names]
    rules = [{"match": {"times": 1}, "reply": {"tool_calls": calls}}, {"reply": {"answer": "Hello to you."}}]
    sim.set_script(parse_script({"rules": rules}))


async def test_agent_middleware_integration(sim: SimServer, engine: ExecutionEngine, caplog: pytest.LogCaptureFixture):
    attempts: list[str] = []

    @tool
    async def tool1() -> str:
        attempts.append("tool1")
        if len(attempts) == 1:
            raise ConnectionError("not the first time")
        return "one"

    @tool
    def tool2(context: RequestContext) -> str:
        return f"{context.tenant_id} {context.session_id} {context.job_id}"

    request_context = RequestContext(tenant_id="tenant-789", session_id="session-def", job_id="job-ghi")
    answer_after_tools(sim, "tool1", "tool2")

    agent = Agent(
        engine=engine,
        tools=[tool1, tool2],
        use_middleware=True,  # Enable default middleware chain
    )

    # Run with context
    with caplog.at_level(logging.INFO, logger="llm_client"):
        result = await agent.run(
            "Hello!",
            context=request_context,
        )

    assert result.content == "Hello to you."
    told = [message["content"] for message in result.messages if message["role"] == "tool"]
    assert told == ["one", "tenant-789 session-def job-ghi"]
    assert attempts == ["tool1", "tool1"], "the retry middleware tried it again"
    assert request_context.trace_id in caplog.text, "the logging middleware wrote a line"


def test_the_default_middleware_chain_includes_what_the_document_lists():
    assert {type(link) for link in default_middleware()} == {Logging, Timeout, Retry, Budget, Telemetry}


async def test_simple_agent_execution(engine: ExecutionEngine):
    agent = Agent(engine=engine)
    result = await agent.run("Write a poem about Python")
    assert "Write a poem about Python" in result.content


async def test_with_human_in_the_loop_a_tool_takes_the_context_as_an_argument(sim: SimServer, engine: ExecutionEngine):
    jobs: list[Any] = []

    # In the agent's tool
    async def deploy_changes(context):  # type: ignore[no-untyped-def]
        jobs.append(context.job_id)

    answer_after_tools(sim, "deploy_changes")
    await Agent(engine=engine, tools=[deploy_changes]).run("Deploy.", context=RequestContext(job_id="job-1"))
    assert jobs == ["job-1"]


async def test_operator_pattern_reads_the_content(engine: ExecutionEngine):
    agent, input_data = Agent(engine=engine), {"text": "a long text"}
    result = await agent.run(f"Summarize: {input_data['text']}")
    assert "Summarize: a long text" in result.content
