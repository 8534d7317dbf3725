"""The samples of `agent-runtime-implementation.md` on the kernel and on orchestration, named after their headings.

They run as written; only the provider gains the address of a simulated model, which answers over real HTTP. The
human-in-the-loop one is corrected as CONTRACTS.md says: it re-reads the action after waiting, and takes `context`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import (
    ActionSpec,
    BudgetExceededError,
    BudgetSpec,
    ChainOperator,
    DebateOperator,
    ExecutionContext,
    ExecutionGraph,
    ExecutionRequest,
    GraphEdge,
    GraphExecutor,
    GraphNode,
    MapReduceOperator,
    Operator,
    OperatorContext,
    OperatorResult,
    OrchestrationConfig,
    ParallelOperator,
    PlannerExecutorOperator,
    RuntimeEventType,
    RuntimeKernel,
    SqliteActionStore,
    SqliteJobStore,
)
from llm_client import Agent, ExecutionEngine, OpenAIProvider, RequestContext
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


@pytest.fixture
def agent(engine: ExecutionEngine) -> Agent:
    return Agent(engine=engine)


@pytest.fixture
async def kernel(engine: ExecutionEngine, agent: Agent) -> AsyncIterator[RuntimeKernel]:
    async with RuntimeKernel.create(engine=engine, agent=agent) as kernel:
        yield kernel


@pytest.fixture
def context() -> OperatorContext:
    return OperatorContext(execution=ExecutionContext(scope_id="tenant-123"))


def reply(sim: SimServer, *rules: dict[str, Any]) -> None:
    sim.set_script(parse_script({"rules": list(rules)}))


class SummarizerOperator(Operator):
    @property
    def name(self) -> str:
        return "summarizer"

    async def execute(
        self,
        input_data: dict,
        context: OperatorContext,
    ) -> OperatorResult:
        result = await self.agent.run(f"Summarize: {input_data['text']}")
        return OperatorResult(
            content=result.content,
            success=True,
        )


class Named(SummarizerOperator):
    """An operator like the sample's, with a name of its own, that says so before the text."""

    def __init__(self, name: str, agent: Agent) -> None:
        super().__init__(agent)
        self._own_name = name

    @property
    def name(self) -> str:
        return self._own_name

    async def execute(self, input_data: dict, context: OperatorContext) -> OperatorResult:
        result = await self.agent.run(f"{self.name}: {input_data.get('text', input_data)}")
        return OperatorResult(content=result.content)


async def test_runtime_kernel(kernel: RuntimeKernel, sim: SimServer):
    reply(sim, {"reply": {"answer": "It goes up."}})

    # Execute a job
    handle = await kernel.execute(
        ExecutionRequest(
            prompt="Analyze this data...",
            scope_id="tenant-123",
            principal_id="user-456",
        )
    )

    # Stream events
    seen: list[RuntimeEventType] = []
    async for event in handle.events():
        assert (event.scope_id, event.job_id) == ("tenant-123", handle.job_id)
        assert "data" in event.model_dump()
        seen.append(event.type)

    # Get final result
    result = await handle.result()

    assert result.content == "It goes up."
    assert (seen[0], seen[-1]) == (RuntimeEventType.JOB_CREATED, RuntimeEventType.JOB_COMPLETED)


async def test_basic_setup(sim: SimServer):
    reply(sim, {"reply": {"answer": "Hello yourself."}})

    # Layer 0: Set up LLM client
    provider = OpenAIProvider(model="gpt-4", api_base=sim.openai_base, env_key=None)
    engine = ExecutionEngine(provider=provider)
    agent = Agent(engine=engine, use_middleware=True)

    # Layer 1: Set up runtime
    kernel = RuntimeKernel.create(
        engine=engine,
        agent=agent,
    )

    # Execute
    handle = await kernel.execute(
        ExecutionRequest(
            prompt="Hello, world!",
        )
    )
    result = await handle.result()

    assert result.content == "Hello yourself."
    await kernel.aclose()
    await engine.aclose()
    await provider.aclose()


async def test_with_persistent_storage(engine: ExecutionEngine, agent: Agent, sim: SimServer, tmp_path: Path):
    reply(sim, {"match": {"times": 1}, "reply": {"answer": "Once."}}, {"reply": {"answer": "Twice."}})
    request = ExecutionRequest(prompt="Hello", idempotency_key="one")

    # Create stores
    job_store = SqliteJobStore(tmp_path / "runtime.sqlite")
    action_store = SqliteActionStore(tmp_path / "runtime.sqlite")
    async with job_store, action_store:
        for _ in range(2):
            # Create kernel with persistence
            kernel = RuntimeKernel(
                engine=engine,
                agent=agent,
                job_store=job_store,
                action_store=action_store,
            )
            async with kernel:
                result = await (await kernel.execute(request)).result()
                assert result.content == "Once.", "the second kernel finds what the first one did"


def test_budget_spec():
    budgets = BudgetSpec(
        max_tokens=100000,  # Total tokens
        max_cost=10.0,  # Maximum cost in dollars  # pyright: ignore[reportArgumentType]
        max_tool_calls=100,  # Maximum tool invocations
        max_turns=20,  # Maximum conversation turns
        max_runtime_seconds=300.0,  # Maximum execution time
    )
    assert budgets.max_cost == Decimal("10.0")


def test_orchestration_config():
    written = OrchestrationConfig(
        max_child_jobs=10,  # Max child jobs per parent
        max_depth=5,  # Max nesting depth
        timeout_seconds=300.0,  # Default timeout
        inherit_budgets=True,  # Child inherits parent budgets
        propagate_cancellation=True,  # Cancel children on parent cancel
        parallel_execution=True,  # Run children in parallel
        max_parallel=5,  # Max concurrent children
    )
    assert written == OrchestrationConfig(), "the sample shows the defaults"


async def test_operator_pattern(agent: Agent, sim: SimServer, context: OperatorContext):
    reply(sim, {"reply": {"answer": "Short."}})
    result = await SummarizerOperator(agent).execute({"text": "A long story."}, context)
    assert (result.content, result.success) == ("Short.", True)
    [sent] = [entry for entry in sim.log() if entry.kind == "chat"]
    assert "Summarize: A long story." in str(sent)


async def test_built_in_patterns(agent: Agent, context: OperatorContext):
    input_data = {"text": "x"}
    op1, op2, op3 = (Named(name, agent) for name in ("op1", "op2", "op3"))

    chain = ChainOperator([op1, op2, op3])
    result = await chain.execute(input_data, context)
    assert result.success
    assert list(result.parts) == ["op1", "op2", "op3"]

    parallel = ParallelOperator([op1, op2, op3])
    result = await parallel.execute(input_data, context)
    assert list(result.content) == ["op1", "op2", "op3"]

    analyzer, synthesizer = op1, op2
    map_reduce = MapReduceOperator(
        map_operator=analyzer,
        reduce_operator=synthesizer,
    )
    result = await map_reduce.execute({"items": ["a", "b"]}, context)
    assert list(result.parts) == ["op1[0]", "op1[1]", "op2"]

    planner_agent = executor_agent = agent
    planner_executor = PlannerExecutorOperator(
        planner=planner_agent,
        executor=executor_agent,
    )
    assert (await planner_executor.execute(input_data, context)).success

    agent1 = agent2 = moderator = agent
    debate = DebateOperator(
        debaters=[agent1, agent2],
        moderator=moderator,
        max_rounds=3,
    )
    result = await debate.execute(input_data, context)
    assert result.success
    assert len(result.parts) == 9


async def test_graph_execution(agent: Agent, context: OperatorContext):
    input_data = {"text": "x"}
    planner_op, executor_op, reviewer_op = (Named(name, agent) for name in ("plan", "do", "review"))

    graph = ExecutionGraph()

    # Add nodes
    graph.add_node(GraphNode("planner", planner_op))
    graph.add_node(GraphNode("executor", executor_op))
    graph.add_node(GraphNode("reviewer", reviewer_op))

    # Add edges (data flow)
    graph.add_edge(GraphEdge("planner", "executor"))
    graph.add_edge(GraphEdge("executor", "reviewer"))

    # Execute
    executor = GraphExecutor(graph)
    results = await executor.execute(input_data, context)

    assert results.success
    assert list(results) == ["planner", "executor", "reviewer"]
    assert results["reviewer"].content


async def test_simple_agent_execution(sim: SimServer, capsys: pytest.CaptureFixture[str]):
    reply(sim, {"reply": {"answer": "Indent, and all is well."}})

    provider = OpenAIProvider(model="gpt-4", api_base=sim.openai_base, env_key=None)
    engine = ExecutionEngine(provider=provider)
    agent = Agent(engine=engine)

    kernel = RuntimeKernel.create(engine=engine, agent=agent)

    handle = await kernel.execute(
        ExecutionRequest(
            prompt="Write a poem about Python",
        )
    )

    result = await handle.result()
    print(result.content)

    assert capsys.readouterr().out == "Indent, and all is well.\n"
    await kernel.aclose()
    await engine.aclose()
    await provider.aclose()


async def test_with_budget_enforcement(kernel: RuntimeKernel):
    handle = await kernel.execute(
        ExecutionRequest(
            prompt="Analyze this document...",
            scope_id="tenant-123",
            budgets=BudgetSpec(
                max_tokens=10000,
                max_cost=1.0,  # pyright: ignore[reportArgumentType]
            ),
        )
    )
    assert (await handle.result()).content
    spent = await kernel.execute(ExecutionRequest(prompt="Again", budgets=BudgetSpec(max_tokens=0)))
    with pytest.raises(BudgetExceededError):
        await spent.result()


async def test_with_human_in_the_loop(engine: ExecutionEngine, sim: SimServer):
    deployed: list[str | None] = []
    calls = [{"name": "deploy_changes", "arguments": {}}]
    reply(sim, {"match": {"times": 1}, "reply": {"tool_calls": calls}}, {"reply": {"answer": "Deployed."}})

    # In the agent's tool
    @tool
    async def deploy_changes(context: RequestContext) -> str:
        action_manager = kernel.actions
        # Request approval
        action = await action_manager.require_action(
            ActionSpec(
                job_id=context.job_id,
                type="confirm",
                payload={"message": "Deploy to production?"},
            )
        )

        # Wait for resolution
        action = await action_manager.wait_for_resolution(action.action_id)

        # Proceed if approved
        resolution = action.resolution
        if resolution is not None and resolution.get("approved"):
            deployed.append(context.job_id)
        return "done"

    async with RuntimeKernel.create(engine=engine, agent=Agent(engine=engine, tools=[deploy_changes])) as kernel:
        handle = await kernel.execute(ExecutionRequest(prompt="Deploy, please."))
        async for event in handle.events():
            if event.type is RuntimeEventType.JOB_WAITING_ACTION:
                assert event.action_id is not None
                await kernel.actions.resolve(action_id=event.action_id, resolution={"approved": True})
        assert (await handle.result()).content == "Deployed."
        assert deployed == [handle.job_id]


async def test_multi_agent_research(agent: Agent, sim: SimServer, context: OperatorContext):
    class ResearcherOperator(SummarizerOperator):
        name = "researcher"  # pyright: ignore[reportAssignmentType]

    class SynthesizerOperator(SummarizerOperator):
        name = "synthesizer"  # pyright: ignore[reportAssignmentType]

    class PlannerOperator(SummarizerOperator):
        name = "planner"  # pyright: ignore[reportAssignmentType]

        async def execute(self, input_data: dict, context: OperatorContext) -> OperatorResult:
            result = await self.agent.run(f"Plan research into: {input_data['topic']}")
            return OperatorResult(content=result.content)

    reply(
        sim,
        {"match": {"contains": "Plan research"}, "reply": {"answer": "1. reasoning\n2. tools"}},
        {"reply": {"answer": "Found."}},
    )

    # Create operators
    researcher = ResearcherOperator(agent)
    summarizer = SummarizerOperator(agent)
    synthesizer = SynthesizerOperator(agent)

    # Build workflow
    workflow = PlannerExecutorOperator(
        planner=PlannerOperator(agent),
        executor=MapReduceOperator(
            map_operator=researcher,
            reduce_operator=summarizer,
        ),
        synthesizer=synthesizer,
    )

    result = await workflow.execute(
        {"topic": "Recent advances in AI"},
        context,
    )

    assert result.content == "Found."
    assert list(result.parts) == ["planner", "step[0]", "step[1]", "synthesizer"]
    prompts = [str(entry) for entry in sim.log() if entry.kind == "chat"]
    assert len(prompts) == 6
    assert any("Summarize: reasoning" in prompt for prompt in prompts)
