"""The patterns that join operators, and the limits that hold for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime import (
    BudgetExceededError,
    BudgetSpec,
    ChainOperator,
    DebateOperator,
    ExecutionContext,
    LimitReached,
    MapReduceOperator,
    Operator,
    OperatorContext,
    OperatorEvent,
    OperatorResult,
    OrchestrationConfig,
    OrchestrationError,
    ParallelOperator,
    PlannerExecutorOperator,
    PolicyDenied,
)
from agent_runtime.orchestration.operators import FunctionOperator
from agent_runtime.orchestration.plans import steps_of
from llm_client import Agent, CallCancelled, CallUnavailable, CancellationToken, CompletionResult, RequestSpec
from runtime_core.clock import ManualClock
from support.scripted_engine import ScriptedEngine, asks_for
from support.waiting import until

Given = dict[str, Any]


def says(name: str, answer: Any = None, **data: Any) -> Operator:
    """Answers with its name around the text that it is given."""

    async def say(given: Given, context: OperatorContext) -> OperatorResult:
        return OperatorResult(content=f"{name}({given.get('text', '')})" if answer is None else answer, data=data)

    return FunctionOperator(say, name=name)


def fails(name: str = "bad", error: Exception | None = None) -> Operator:
    async def fail(given: Given, context: OperatorContext) -> OperatorResult:
        if error is not None:
            raise error
        return OperatorResult.failed("no luck", code="unlucky")

    return FunctionOperator(fail, name=name)


class Gauge:
    """An operator that waits to be let go, and knows how many of it ran at once."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.running = self.most = self.finished = 0

    async def __call__(self, given: Given, context: OperatorContext) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.open.wait()
            self.finished += 1
        finally:
            self.running -= 1
        return "done"

    def operator(self, name: str) -> Operator:
        return FunctionOperator(self.__call__, name=name)


def context(**changes: Any) -> OperatorContext:
    budgets = changes.pop("budgets", None)
    config = OrchestrationConfig(**changes.pop("config", {}))
    return OperatorContext(execution=ExecutionContext(budgets=budgets), config=config, **changes)


# What each pattern does


async def test_a_chain_hands_on_the_answer_as_text_and_the_data_as_fields():
    seen: Given = {}

    async def last(given: Given, context: OperatorContext) -> str:
        seen.update(given)
        return "end"

    chain = ChainOperator([says("a", score=3), says("b"), last])
    result = await chain.execute({"text": "x", "topic": "t"}, context())
    assert (result.success, result.content) == (True, "end")
    assert seen == {"text": "b(a(x))", "topic": "t", "score": 3, "results": {"b": "b(a(x))"}}
    assert list(result.parts) == ["a", "b", "last"]


async def test_a_chain_ends_at_its_first_failure_and_names_it():
    late = Gauge()
    result = await ChainOperator([says("a"), fails(), late.operator("late")]).execute({"text": "x"}, context())
    assert (result.success, result.error, result.code) == (False, "'bad' failed: no luck", "unlucky")
    assert late.most == 0


async def test_parallel_operators_see_the_same_input_and_answer_by_name():
    result = await ParallelOperator([says("a"), says("b"), says("a")]).execute({"text": "x"}, context())
    assert result.content == {"a": "a(x)", "b": "b(x)", "a-3": "a(x)"}


async def test_parallel_answers_can_be_aggregated():
    def longest(results: Mapping[str, OperatorResult]) -> str:
        return max((result.content for result in results.values()), key=len)

    parallel = ParallelOperator([says("a"), says("longer")], aggregate=longest)
    assert (await parallel.execute({"text": "x"}, context())).content == "longer(x)"


async def test_the_first_failure_of_parallel_operators_calls_the_others_off():
    slow = Gauge()
    result = await ParallelOperator([slow.operator("slow"), fails()]).execute({}, context())
    assert (result.error, slow.running, slow.finished) == ("'bad' failed: no luck", 0, 0)
    assert result.parts["slow"].code == "cancelled"


async def test_collecting_is_content_with_one_that_succeeds():
    result = await ParallelOperator([fails(), says("a")], on_error="collect").execute({"text": "x"}, context())
    assert (result.success, result.content) == (True, {"a": "a(x)"})
    nothing = await ParallelOperator([fails()], on_error="collect").execute({}, context())
    assert not nothing.success


async def test_map_reduce_gives_every_item_an_operator_and_the_answers_to_the_reducer_in_order():
    async def reduce(given: Given, context: OperatorContext) -> str:
        assert "items" not in given
        return f"{given['topic']}: {given['results']} = {given['text']!r}"

    pattern = MapReduceOperator(map_operator=says("map"), reduce_operator=reduce)
    result = await pattern.execute({"topic": "t", "items": ["a", {"text": "b"}]}, context())
    assert result.content == "t: ['map(a)', 'map(b)'] = 'map(a)\\n\\nmap(b)'"


async def test_map_reduce_of_a_text_alone_has_one_item_and_of_nothing_is_an_error():
    pattern = MapReduceOperator(map_operator=says("map"), reduce_operator=says("reduce"))
    assert (await pattern.execute({"text": "x"}, context())).content == "reduce(map(x))"
    with pytest.raises(OrchestrationError, match="items"):
        await pattern.execute({"topic": "x"}, context())


async def test_map_reduce_may_leave_out_the_items_that_fail():
    async def odd(given: Given, context: OperatorContext) -> str:
        if given["item"] % 2 == 0:
            raise ValueError("even")
        return str(given["item"])

    loose = MapReduceOperator(map_operator=odd, reduce_operator=says("sum"), on_error="collect")
    assert (await loose.execute({"items": [1, 2, 3]}, context())).content == "sum(1\n\n3)"
    strict = MapReduceOperator(map_operator=odd, reduce_operator=says("sum"))
    assert (await strict.execute({"items": [1, 2, 3]}, context())).error == "'map[1]' failed: ValueError: even"


async def test_a_plan_is_executed_step_by_step_and_summed_up():
    before: list[list[str]] = []

    async def step(given: Given, context: OperatorContext) -> str:
        before.append(given["previous"])
        return f"did {given['text']}"

    pattern = PlannerExecutorOperator(
        planner=says("plan", answer="1. look\n2. leap"), executor=step, synthesizer=says("sum")
    )
    result = await pattern.execute({"text": "go"}, context())
    assert result.content == "sum(look\ndid look\n\nleap\ndid leap)"
    assert before == [[], ["did look"]]
    bare = PlannerExecutorOperator(planner=says("plan", answer=["a", "b"]), executor=says("do"), parallel=True)
    assert (await bare.execute({}, context())).content == ["do(a)", "do(b)"]


@pytest.mark.parametrize(
    ("plan", "steps"),
    [
        (OperatorResult(data={"steps": [{"text": "a"}, "b"]}), [{"text": "a"}, "b"]),
        (OperatorResult(content=["a", "", "b"]), ["a", "b"]),
        (OperatorResult(content='{"steps": ["a"]}'), ["a"]),
        (OperatorResult(content='Here you are:\n```json\n["a", "b"]\n```'), ["a", "b"]),
        (OperatorResult(content="The plan:\n1. a b\n 2) c\n- d\nGood luck!"), ["a b", "c", "d"]),
        (OperatorResult(content="just do it"), ["just do it"]),
        (OperatorResult(content=""), []),
        (OperatorResult(content=None), []),
        (OperatorResult(content="[" * 50_000), ["[" * 50_000]),
    ],
)
def test_a_plan_is_read_in_every_form_that_models_write(plan: OperatorResult, steps: list[Any]):
    assert steps_of(plan) == steps


@given(st.text(alphabet='1.- *`[]{}":\nab', max_size=200))
def test_whatever_a_model_writes_is_read_as_steps(text: str):
    assert all(step not in ("", None) for step in steps_of(OperatorResult(content=text)))


async def test_debaters_hear_each_other_and_the_moderator_ends_it():
    def moderates(text: str) -> str:
        if "Give your verdict" in text or "give your verdict" in text:
            return "at the end"
        return "VERDICT: early" if text.count("[round") >= 4 else "go on"

    debaters = ScriptedEngine(lambda text: f"heard {text.count('[round')}")
    moderator = Agent(engine=ScriptedEngine(moderates))
    agents = [Agent(engine=debaters), Agent(engine=debaters)]
    early = DebateOperator(debaters=agents, moderator=moderator, max_rounds=3)
    result = await early.execute({"text": "cats or dogs"}, context())
    assert result.content == "early"
    assert [name for name in result.parts if name.startswith("debater-1")] == ["debater-1[1]", "debater-1[2]"]
    assert result.parts["debater-2[2]"].content == "heard 2"
    short = DebateOperator(debaters=agents, moderator=moderator, max_rounds=1)
    assert (await short.execute({"text": "cats or dogs"}, context())).content == "at the end"
    alone = DebateOperator(debaters=agents, max_rounds=1)
    assert (await alone.execute({"text": "x"}, context())).content == {"debater-1": "heard 0", "debater-2": "heard 0"}


# What may not happen


async def test_no_more_children_run_at_a_time_than_allowed():
    for config, most in (({"max_parallel": 2}, 2), ({"parallel_execution": False}, 1), ({}, 5)):
        gauge = Gauge()
        running = asyncio.create_task(
            ParallelOperator([gauge.operator(f"g{n}") for n in range(6)]).execute({}, context(config=config))
        )
        await until(lambda gauge=gauge, most=most: gauge.running == most)
        gauge.open.set()
        assert (await running).success
        assert gauge.most == most


async def test_too_many_children_are_refused_before_the_first_one_starts():
    gauge = Gauge()
    pattern = MapReduceOperator(map_operator=gauge.operator("map"), reduce_operator=says("reduce"))
    with pytest.raises(LimitReached, match="max_child_jobs is 10") as refused:
        await pattern.execute({"items": list(range(10))}, context())
    assert (refused.value.limit, refused.value.allowed, gauge.most) == ("max_child_jobs", 10, 0)


async def test_operators_may_be_nested_only_so_deep():
    operator = says("leaf")
    for level in range(3):
        operator = ChainOperator([operator], name=f"level{level}")
    assert (await operator.execute({"text": "x"}, context(config={"max_depth": 3}))).content == "leaf(x)"
    result = await operator.execute({"text": "x"}, context(config={"max_depth": 2}))
    assert (result.success, result.code) == (False, "limit_reached")
    assert "max_depth is 2" in (result.error or "")


async def test_a_child_that_takes_too_long_fails_and_its_siblings_do_not():
    forever = Gauge()
    parallel = ParallelOperator([forever.operator("slow"), says("a")], on_error="collect")
    result = await parallel.execute({"text": "x"}, context(config={"timeout_seconds": 0.02}))
    assert result.content == {"a": "a(x)"}
    assert (result.parts["slow"].code, forever.running) == ("timeout", 0)


async def test_no_child_outlasts_the_deadline_or_the_runtime_that_is_left():
    clock = ManualClock()
    late = ExecutionContext(deadline=clock.now() + timedelta(seconds=0.02))
    result = await ChainOperator([Gauge().operator("slow")]).execute({}, OperatorContext(execution=late, clock=clock))
    assert result.code == "timeout"
    short = context(budgets=BudgetSpec(max_runtime_seconds=0.02))
    assert (await ChainOperator([Gauge().operator("slow")]).execute({}, short)).code == "timeout"


def agent(engine: ScriptedEngine, **options: Any) -> Agent:
    return Agent(engine=engine, **options)


@pytest.mark.parametrize(
    ("budgets", "calls", "limit"),
    [
        (BudgetSpec(max_tokens=30), 2, "max_tokens"),
        (BudgetSpec(max_cost="0.0003"), 3, "max_cost"),  # pyright: ignore[reportArgumentType]
        (BudgetSpec(max_turns=1), 1, "max_turns"),
        (BudgetSpec(max_tokens=0), 0, "max_tokens"),
    ],
)
async def test_children_live_on_what_is_left_of_their_parents_budget(budgets: BudgetSpec, calls: int, limit: str):
    engine = ScriptedEngine()
    chain = ChainOperator([ChainOperator([agent(engine), agent(engine)], name="inner"), agent(engine), agent(engine)])
    result = await chain.execute({"text": "x"}, context(budgets=budgets))
    assert not result.success
    assert isinstance(result.cause, BudgetExceededError)
    assert (result.cause.limit, len(engine.asked)) == (limit, calls)


async def test_children_side_by_side_share_one_budget_and_what_they_took_is_in_the_result():
    engine = ScriptedEngine()
    parallel = ParallelOperator([agent(engine) for _ in range(4)], on_error="collect")
    outer = ChainOperator([parallel])
    result = await outer.execute({"text": "x"}, context(budgets=BudgetSpec(max_turns=3)))
    assert len(engine.asked) == 3
    assert (result.success, result.use.calls) == (True, 3)
    use = result.parts["parallel"].use
    assert (use.calls, use.input_tokens, use.output_tokens, use.cost_micro) == (3, 30, 15, 300)


async def test_without_inheritance_children_have_no_budget_of_their_parents():
    engine = ScriptedEngine()
    chain = ChainOperator([agent(engine), agent(engine)])
    loose = context(budgets=BudgetSpec(max_turns=1), config={"inherit_budgets": False})
    assert (await chain.execute({"text": "x"}, loose)).success


async def test_a_tool_call_over_the_budget_is_told_to_the_model():
    made: list[int] = []

    async def look() -> str:
        made.append(1)
        return "seen"

    answers = iter([asks_for("look", times=3), "that is all"])
    engine = ScriptedEngine(lambda text: next(answers))
    chain = ChainOperator([agent(engine, tools=[look])])
    result = await chain.execute({"text": "x"}, context(budgets=BudgetSpec(max_tool_calls=2)))
    assert (result.content, len(made)) == ("that is all", 2)


async def test_an_answer_may_not_be_longer_than_the_tokens_that_are_left():
    engine = ScriptedEngine()
    chain = ChainOperator([agent(engine, params={"max_tokens": 500})] * 2)
    await chain.execute({"text": "x"}, context(budgets=BudgetSpec(max_tokens=100)))
    assert [spec.params["max_tokens"] for spec, _ in engine.asked] == [100, 85]


async def test_money_cannot_be_counted_for_a_model_without_a_price():
    engine = ScriptedEngine(lambda text: CompletionResult(content="a", finish_reason="stop"))
    chain = ChainOperator([agent(engine), agent(engine)])
    result = await chain.execute({"text": "x"}, context(budgets=BudgetSpec(max_cost=1)))  # pyright: ignore
    assert len(engine.asked) == 1
    assert "price is not known" in (result.error or "")


class Forbids:
    async def admit_model(self, spec: RequestSpec, target: object, execution: ExecutionContext) -> int | None:
        if spec.role == "expensive":
            raise PolicyDenied("No.", rule="models")
        return 7 if spec.role == "short" else None

    async def admit_tool(self, name: str, arguments: Mapping[str, Any], execution: ExecutionContext) -> None:
        raise PolicyDenied(f"The tool {name} is not for {execution.scope_id}.")


async def test_what_an_overseer_denies_reaches_no_model_and_keeps_its_type():
    engine = ScriptedEngine()
    result = await ChainOperator([agent(engine, role="expensive")]).execute({"text": "x"}, context(overseer=Forbids()))
    assert isinstance(result.cause, PolicyDenied)
    assert (result.cause.rule, engine.asked) == ("models", [])


async def test_a_denied_tool_call_is_told_to_the_model_and_not_made():
    async def look() -> str:
        raise AssertionError("denied")

    answers = iter([asks_for("look"), "well then"])
    engine = ScriptedEngine(lambda text: next(answers))
    result = await ChainOperator([agent(engine, tools=[look])]).execute({"text": "x"}, context(overseer=Forbids()))
    assert result.content == "well then"
    assert "is not for default" in str(engine.asked[-1][0].messages[-1]["content"])


async def test_a_cancelled_token_ends_everything_that_runs_and_starts_nothing_more():
    engine, token = ScriptedEngine(gate=asyncio.Event()), CancellationToken()
    work = ChainOperator([ParallelOperator([agent(engine) for _ in range(7)]), agent(engine)])
    running = asyncio.create_task(work.execute({"text": "x"}, context(cancellation=token)))
    await until(lambda: len(engine.asked) == 5)
    token.cancel("enough")
    with pytest.raises(CallCancelled, match="enough"):
        await running
    assert (engine.cancelled, len(engine.asked)) == (5, 5)
    assert len(asyncio.all_tasks()) == 1


async def test_a_cancelled_task_ends_everything_too():
    engine = ScriptedEngine(gate=asyncio.Event())
    running = asyncio.create_task(ParallelOperator([agent(engine)] * 3).execute({"text": "x"}, context()))
    await until(lambda: len(engine.asked) == 3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert engine.cancelled == 3


async def test_without_propagation_children_that_run_come_to_their_end_and_no_others_start():
    gauge = Gauge()
    parallel = ParallelOperator([gauge.operator(f"g{n}") for n in range(4)])
    loose = context(config={"propagate_cancellation": False, "max_parallel": 2})
    running = asyncio.create_task(parallel.execute({}, loose))
    await until(lambda: gauge.running == 2)
    running.cancel()
    await asyncio.sleep(0)
    assert not running.done()
    gauge.open.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (gauge.finished, gauge.most) == (2, 2)


async def test_an_agent_of_an_operator_calls_models_on_behalf_of_the_run():
    engine = ScriptedEngine()

    class Own(Operator):
        name = "own"  # pyright: ignore[reportAssignmentType]

        async def execute(self, input_data: Given, context: OperatorContext) -> OperatorResult:
            answer = await self.agent.run("hello")
            return OperatorResult(content=answer.content)

    class Kept(Own):
        def __init__(self, agent: Agent) -> None:
            self.agent = agent

    assert (await Kept(Agent(engine=ScriptedEngine())).execute({}, context())).content == "<hello>"
    run = ExecutionContext(scope_id="tenant-1", principal_id="ada", session_id="s", job_id="j")
    await ChainOperator([Own(Agent(engine=engine))]).execute({}, OperatorContext(execution=run))
    [(_, asked)] = engine.asked
    assert (asked.tenant_id, asked.user_id, asked.session_id, asked.job_id) == ("tenant-1", "ada", "s", "j")
    assert (asked.trace_id, asked.node) == (run.trace_id, "own")
    assert asked.run_id != run.run_id
    with pytest.raises(OrchestrationError, match="has no agent"):
        await Own().execute({}, context())


async def test_what_an_operator_raises_is_a_result_of_it():
    for error, said in (
        (ValueError("odd"), "ValueError: odd"),
        (TimeoutError("the database is slow"), "the database is slow"),
        (asyncio.CancelledError(), "something that it waited for was cancelled"),
    ):
        result = await ChainOperator([fails("x", error)]).execute({}, context())  # pyright: ignore[reportArgumentType]
        assert result.error == f"'x' failed: {said}"


async def test_an_operator_that_returns_something_else_fails():
    class Wrong(Operator):
        name = "wrong"  # pyright: ignore[reportAssignmentType]

        async def execute(self, input_data: Given, context: OperatorContext) -> OperatorResult:
            return "text"  # pyright: ignore[reportReturnType]

    result = await ChainOperator([Wrong()]).execute({}, context())
    assert result.error == "'wrong' failed: it returned str, and not an OperatorResult"


async def test_an_overseer_may_bound_the_answer():
    engine = ScriptedEngine()
    await ChainOperator([agent(engine, role="short")]).execute({"text": "x"}, context(overseer=Forbids()))
    assert engine.asked[0][0].params["max_tokens"] == 7


async def test_whoever_watches_hears_of_every_operator_model_and_tool():
    heard: list[OperatorEvent] = []

    async def observe(event: OperatorEvent) -> None:
        heard.append(event)

    async def look() -> str:
        return "seen"

    answers = iter([asks_for("look"), "done", CallUnavailable("down")])
    engine = ScriptedEngine(lambda text: next(answers))
    chain = ChainOperator([ParallelOperator([agent(engine, tools=[look])], name="both"), agent(engine)])
    await chain.execute({"text": "x"}, context(observe=observe))
    assert [f"{event.type} {'/'.join(event.path)}" for event in heard] == [
        "operator.started both",
        "operator.started both/branch-1",
        "model.started both/branch-1",
        "model.completed both/branch-1",
        "tool.started both/branch-1",
        "tool.completed both/branch-1",
        "model.started both/branch-1",
        "model.completed both/branch-1",
        "operator.completed both/branch-1",
        "operator.completed both",
        "operator.started step-2",
        "model.started step-2",
        "model.failed step-2",
        "operator.failed step-2",
    ]
    assert heard[3].facts["output_tokens"] == 5
    assert heard[-1].facts == {"code": "provider_unavailable", "message": "down"}


@pytest.mark.parametrize(
    "build", [lambda: ChainOperator([]), lambda: ChainOperator([3]), lambda: ParallelOperator([len])]
)
def test_what_cannot_be_an_operator_is_refused_when_it_is_joined(build: Any):
    with pytest.raises(OrchestrationError):
        build()
