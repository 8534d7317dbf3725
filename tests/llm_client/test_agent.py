"""The loop between a model and its tools, against the simulated model over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from llm_client.agent import Agent, AgentEnded, ModelEngine, ToolFinished, ToolOutcome, ToolStarted
from llm_client.agent.execution import MOST_CALLS
from llm_client.agent.middleware import Budget, MaxToolCalls, Next, ToolInvocation
from llm_client.cancellation import CancellationToken
from llm_client.engine import ExecutionEngine
from llm_client.errors import CallCancelled, CallMalformed, CallRefused, CallRejected, ToolError, TooManyTurns
from llm_client.events import StreamFailed, TextDelta
from llm_client.retry import NO_RETRY
from llm_client.router import HubRouter
from llm_client.spec import RequestContext
from llm_client.tools import Injected, Tool, tool
from llmhub_runtime import LLMHub, parse_runtime_config
from llmhub_runtime.sim import SimServer, parse_script
from support.waiting import until

CONFIG = {
    "project": "tests",
    "env": "test",
    "providers": {},
    "roles": {
        "chat": {"provider": "sim", "model": "m", "mode": "chat", "price": {"input": "1", "output": "2"}},
        "free": {"provider": "elsewhere", "model": "m", "mode": "chat"},
    },
}


@pytest.fixture
async def sim() -> AsyncIterator[SimServer]:
    async with SimServer() as server:
        yield server


@pytest.fixture
async def engine(sim: SimServer) -> AsyncIterator[ExecutionEngine]:
    at = {"api_base": sim.openai_base}
    data = {**CONFIG, "providers": {"sim": at, "elsewhere": at}}
    hub = LLMHub(config_obj=parse_runtime_config(data))
    async with hub, ExecutionEngine(router=HubRouter(hub), retry=NO_RETRY) as engine:
        yield engine


def script(sim: SimServer, *replies: dict[str, Any]) -> None:
    """What the model answers, turn by turn; the last one for ever."""
    rules: list[Any] = [{"match": {"times": 1}, "reply": reply} for reply in replies[:-1]]
    sim.set_script(parse_script({"rules": [*rules, {"reply": replies[-1]}]}))


def calls(*wanted: tuple[str, Any]) -> dict[str, Any]:
    return {"tool_calls": [{"name": name, "arguments": arguments} for name, arguments in wanted]}


def told(result: Any) -> list[Any]:
    return [message["content"] for message in result.messages if message["role"] == "tool"]


@tool
async def double(n: int) -> int:
    """Twice a number."""
    return 2 * n


async def test_the_model_gets_the_results_of_its_calls_and_answers(sim: SimServer, engine: ExecutionEngine):
    script(sim, calls(("double", {"n": 4})), {"answer": "It is 8."})
    agent = Agent(engine=engine, role="chat", tools=[double], system="Be brief.", params={"temperature": 0})
    result = await agent.run("What is twice 4?")
    assert result.content == "It is 8."
    assert result.turns == 2
    assert [(each.name, each.arguments, each.outcome) for each in result.tool_calls] == [
        ("double", '{"n": 4}', ToolOutcome.DONE)
    ]
    assert [message["role"] for message in result.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert told(result) == ["8"]
    [first, second] = sim.log()
    assert result.usage.input == first.prompt_tokens + second.prompt_tokens
    assert result.cost_micro == result.usage.input + 2 * result.usage.output
    continued = await agent.run([*result.messages, {"role": "user", "content": "And 5?"}])
    assert [message["role"] for message in continued.messages].count("system") == 1


async def test_an_unknown_cost_is_not_zero(engine: ExecutionEngine):
    result = await Agent(engine=engine, role="free").run("Hello!")
    assert result.cost_micro is None
    assert result.usage.input > 0


async def test_the_calls_of_a_turn_run_in_parallel_and_keep_their_order(sim: SimServer, engine: ExecutionEngine):
    running, most, gate = 0, 0, asyncio.Event()

    async def work(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            gate.set()
        await gate.wait()
        await asyncio.sleep(0.01 * (3 - n % 3))
        running -= 1
        return n

    script(sim, calls(*[("work", {"n": n}) for n in range(6)]), {"answer": "ok"})
    result = await Agent(engine=engine, role="chat", tools=[work], max_parallel_tools=3).run("go")
    assert told(result) == list("012345")
    assert most == 3


async def test_one_failing_tool_is_told_to_the_model_and_spares_the_others(sim: SimServer, engine: ExecutionEngine):
    def broken() -> None:
        raise ValueError("sk-secret")

    script(sim, calls(("broken", {}), ("double", {"n": 1})), {"answer": "ok"})
    result = await Agent(engine=engine, role="chat", tools=[broken, double]).run("go")
    failed, done = told(result)
    assert json.loads(failed) == {
        "error": {"code": "tool_failed", "message": "The tool broken failed with ValueError."}
    }
    assert done == "2"


HOSTILE = [
    ("rm -rf /", {}),
    ("", {}),
    ("x" * 5000, "{}"),
    ("Pay", {"amount": 1}),
    ("pay", "{"),
    ("pay", "[1]"),
    ("pay", {"amount": "all"}),
    ("pay", {"amount": True}),
    ("pay", '{"amount": 1e400}'),
    ("pay", '{"amount": NaN}'),
    ("pay", {"amount": 1, "context": {"tenant_id": "victim"}}),
    ("pay", {"amount": 1, "account": "victim"}),
    ("pay", {"amount": 1, "note": "y" * 70_000}),
    ("pay", '{"amount": ' + "[" * 5000 + "]" * 5000 + "}"),
    ("__class__", {}),
]


async def test_no_hostile_call_is_executed_and_the_conversation_goes_on(sim: SimServer, engine: ExecutionEngine):
    """RELIABILITY S5."""
    paid: list[Any] = []

    def pay(amount: int, context: RequestContext, account: Annotated[str, Injected]) -> None:
        paid.append((amount, context.tenant_id, account))

    script(sim, calls(*HOSTILE), calls(("pay", {"amount": 5})), {"answer": "ok"})
    agent = Agent(engine=engine, role="chat", tools=[pay], injected={"account": "mine"})
    result = await agent.run("go", context=RequestContext(tenant_id="t1"))
    assert paid == [(5, "t1", "mine")]
    assert result.content == "ok"
    outcomes = [each.outcome for each in result.tool_calls]
    assert set(outcomes[:-1]) == {ToolOutcome.UNKNOWN, ToolOutcome.INVALID}
    assert outcomes[-1] is ToolOutcome.DONE
    for message in result.messages:
        for call in message.get("tool_calls", []):  # type: ignore[union-attr]
            assert isinstance(json.loads(call["function"]["arguments"]), dict)  # type: ignore[index]
            assert call["function"]["name"].replace("_", "a").replace("-", "a").isalnum()  # type: ignore[index]
    ids = [message["tool_call_id"] for message in result.messages if message["role"] == "tool"]
    assert len(set(ids)) == len(HOSTILE) + 1
    assert max(len(json.dumps(message)) for message in result.messages) < 20_000


async def test_calls_that_share_an_id_are_told_apart(sim: SimServer, engine: ExecutionEngine):
    twice = {"tool_calls": [{"name": "double", "arguments": {"n": n}, "id": "same"} for n in (1, 2)]}
    script(sim, twice, {"answer": "ok"})
    result = await Agent(engine=engine, role="chat", tools=[double]).run("go")
    ids = [message["tool_call_id"] for message in result.messages if message["role"] == "tool"]
    assert len(set(ids)) == 2


async def test_one_turn_cannot_ask_for_any_number_of_calls(sim: SimServer, engine: ExecutionEngine):
    script(sim, calls(*[("double", {"n": 1})] * (MOST_CALLS + 2)), {"answer": "ok"})
    result = await Agent(engine=engine, role="chat", tools=[double]).run("go")
    outcomes = [each.outcome for each in result.tool_calls]
    assert outcomes == [ToolOutcome.DONE] * MOST_CALLS + [ToolOutcome.REFUSED] * 2


async def test_a_model_that_never_stops_is_stopped(sim: SimServer, engine: ExecutionEngine):
    made: list[int] = []
    script(sim, calls(("note", {"n": 1})))
    agent = Agent(engine=engine, role="chat", tools=[Tool(made.append, name="note", parameters=NOTE)], max_turns=3)
    with pytest.raises(TooManyTurns, match=r"in turn 3.*'note' 2 times"):
        await agent.run("go")
    assert len(sim.log()) == 3
    assert made == []


NOTE = {"type": "object", "properties": {"n": {"type": "integer"}}}


async def test_a_policy_in_the_chain_sees_every_call_before_it_is_made(sim: SimServer, engine: ExecutionEngine):
    seen: list[Any] = []

    async def policy(call: ToolInvocation, next: Next) -> str:
        seen.append((call.tool.name, dict(call.arguments), call.context.tenant_id))
        if call.arguments["n"] > 1:
            raise CallRefused("Not that many.", reason="too_many")
        return await next(call)

    script(sim, calls(("double", {"n": 1}), ("double", {"n": 2}), ("nothing", {})), {"answer": "ok"})
    agent = Agent(engine=engine, role="chat", tools=[double], middleware=[policy])
    result = await agent.run("go", context=RequestContext(tenant_id="t1"))
    assert seen == [("double", {"n": 1}, "t1"), ("double", {"n": 2}, "t1")]
    assert [each.outcome for each in result.tool_calls] == ["done", "refused", "unknown"]
    assert json.loads(told(result)[1])["error"] == {"code": "call_refused", "message": "Not that many."}


async def test_a_budget_of_tool_calls_holds_over_all_turns_of_a_run(sim: SimServer, engine: ExecutionEngine):
    script(sim, calls(("double", {"n": 1}), ("double", {"n": 2})), calls(("double", {"n": 3})), {"answer": "ok"})
    agent = Agent(engine=engine, role="chat", tools=[double], middleware=[Budget(MaxToolCalls(2))])
    assert [each.outcome for each in (await agent.run("go")).tool_calls] == ["done", "done", "refused"]


async def test_a_governed_agent_has_its_rules_around_it_and_the_agent_itself_has_not(
    sim: SimServer, engine: ExecutionEngine
):
    heard: list[str] = []

    async def rule(call: ToolInvocation, next: Next) -> str:
        heard.append(f"rule {call.tool.name}")
        return await next(call)

    async def own(call: ToolInvocation, next: Next) -> str:
        heard.append("own")
        return await next(call)

    def around(inner: ModelEngine) -> ModelEngine:
        heard.append("around")
        return inner

    agent = Agent(engine=engine, role="chat", tools=[double], middleware=[own])
    for each, expected in ((agent.governed(around, [rule]), ["around", "rule double", "own"]), (agent, ["own"])):
        script(sim, calls(("double", {"n": 2})), {"answer": "4"})
        assert (await each.run("go")).content == "4"
        assert heard == expected
        heard.clear()


async def test_a_broken_middleware_ends_the_run_and_its_other_tools(sim: SimServer, engine: ExecutionEngine):
    ended = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def broken(call: ToolInvocation, next: Next) -> str:
        if call.tool.name == "double":
            raise LookupError("a bug")
        return await next(call)

    script(sim, calls(("hang", {}), ("double", {"n": 1})))
    with pytest.raises(LookupError):
        await Agent(engine=engine, role="chat", tools=[hang, double], middleware=[broken]).run("go")
    assert ended.is_set()


class Rating(BaseModel):
    stars: int
    why: str


SCHEMA = {"type": "object", "properties": {"stars": {"type": "integer", "maximum": 5}}, "required": ["stars"]}


async def test_a_structured_answer_is_asked_for_and_checked(sim: SimServer, engine: ExecutionEngine):
    script(sim, calls(("double", {"n": 1})), {"answer": '```json\n{"stars": 4, "why": "fine"}\n```'})
    result = await Agent(engine=engine, role="chat", tools=[double], output_schema=Rating).run("Rate it.")
    assert result.output == Rating(stars=4, why="fine")
    made_up = await Agent(engine=engine, role="chat", output_schema=SCHEMA).run("Rate it.")
    assert made_up.output["stars"] == 4


async def test_the_simulated_model_fits_the_schema_that_it_is_sent(engine: ExecutionEngine):
    result = await Agent(engine=engine, role="chat", output_schema=Rating).run("Rate it.")
    assert isinstance(result.output, Rating)


@pytest.mark.parametrize("bad", ["four", '{"stars": 6}', '{"stars": NaN}'])
async def test_an_answer_that_misses_its_schema_is_mended_once(sim: SimServer, engine: ExecutionEngine, bad: str):
    script(sim, {"answer": bad}, {"answer": '{"stars": 4}'})
    agent = Agent(engine=engine, role="chat", tools=[double], output_schema=SCHEMA)
    result = await agent.run("Rate it.")
    assert result.output == {"stars": 4}
    assert result.turns == 2
    script(sim, {"answer": bad})
    with pytest.raises(CallMalformed, match="twice"):
        await agent.run("Rate it.")
    assert len(sim.log()) == 4


async def test_a_tool_call_is_no_mended_answer(sim: SimServer, engine: ExecutionEngine):
    script(sim, {"answer": "four"}, calls(("double", {"n": 1})))
    agent = Agent(engine=engine, role="chat", tools=[double], output_schema=SCHEMA)
    with pytest.raises(CallMalformed, match="tool call"):
        await agent.run("Rate it.")


async def test_what_the_model_call_raises_comes_out_as_it_is(sim: SimServer, engine: ExecutionEngine):
    script(sim, {"fault": {"kind": "error", "status": 400}})
    with pytest.raises(CallRejected):
        await Agent(engine=engine, role="chat").run("go")


async def test_a_cancelled_token_ends_the_tools(sim: SimServer, engine: ExecutionEngine):
    token, ended = CancellationToken(), 0

    async def hang() -> None:
        nonlocal ended
        token.cancel("enough")
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1

    script(sim, calls(("hang", {}), ("hang", {})))
    with pytest.raises(CallCancelled, match="enough"):
        await Agent(engine=engine, role="chat", tools=[hang], use_middleware=True).run("go", cancellation=token)
    assert ended == 2


async def test_a_cancelled_token_ends_the_model_call(sim: SimServer, engine: ExecutionEngine):
    token = CancellationToken()
    script(sim, {"fault": {"kind": "hang"}})
    task = asyncio.create_task(Agent(engine=engine, role="chat").run("go", cancellation=token))
    await until(lambda: sum(sim.applied()))
    token.cancel()
    with pytest.raises(CallCancelled):
        await task


async def test_cancelling_the_task_passes_as_it_is(sim: SimServer, engine: ExecutionEngine):
    entered, ended = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    script(sim, calls(("hang", {})))
    task = asyncio.create_task(Agent(engine=engine, role="chat", tools=[hang], use_middleware=True).run("go"))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_stream_tells_of_text_and_tools_and_ends_once(sim: SimServer, engine: ExecutionEngine):
    script(sim, calls(("double", {"n": 4}), ("nothing", {})), {"answer": "It is 8."})
    agent = Agent(engine=engine, role="chat", tools=[double])
    events = [event async for event in agent.stream("What is twice 4?")]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "It is 8."
    assert [event.name for event in events if isinstance(event, ToolStarted)] == ["double", "nothing"]
    assert [event.outcome for event in events if isinstance(event, ToolFinished)] == ["done", "unknown"]
    [last] = [event for event in events if isinstance(event, AgentEnded)]
    assert events[-1] is last
    assert last.result.content == "It is 8."
    assert last.result.turns == 2


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (calls(("double", {"n": 1})), "too_many_turns"),
        ({"answer": "one two three four", "fault": {"kind": "cut_stream"}}, "provider_malformed"),
        ({"fault": {"kind": "error", "status": 400}}, "provider_rejected"),
    ],
)
async def test_a_stream_that_fails_says_so_in_its_last_event(
    sim: SimServer, engine: ExecutionEngine, reply: dict[str, Any], code: str
):
    script(sim, reply)
    agent = Agent(engine=engine, role="chat", tools=[double], max_turns=2)
    events = [event async for event in agent.stream("go")]
    assert [event.code for event in events if isinstance(event, StreamFailed)] == [code]
    assert isinstance(events[-1], StreamFailed)


async def test_what_a_tool_needs_is_missed_before_the_model_is_asked(sim: SimServer, engine: ExecutionEngine):
    def who(user: Annotated[str, Injected]) -> str:
        return user

    agent = Agent(engine=engine, role="chat", tools=[who])
    with pytest.raises(ToolError, match="needs the value 'user'"):
        await agent.run("go")
    assert sim.log() == []
    script(sim, calls(("who", {})), {"answer": "ok"})
    assert told(await agent.run("go", injected={"user": "me"})) == ["me"]


@pytest.mark.parametrize("options", [{"tools": [double, double]}, {"max_turns": 0}, {"max_parallel_tools": 0}])
def test_an_agent_that_cannot_work_is_refused(options: dict[str, Any]):
    with pytest.raises(ToolError):
        Agent(engine=None, **options)  # type: ignore[arg-type]
