"""Routers: which route an input takes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_runtime import (
    KeywordRouter,
    LeastBusyRouter,
    ModelRouter,
    OperatorContext,
    OrchestrationError,
    RoundRobinRouter,
    Router,
    RuleRouter,
)
from llm_client import Agent
from support.scripted_engine import ScriptedEngine
from support.waiting import until

Given = dict[str, Any]


async def answers(given: Given, context: OperatorContext) -> str:
    return f"{context.path[-1]} answers"


ROUTES = {"billing": answers, "technical": answers, "general": answers}


async def taken(router: Router, **given: Any) -> str | None:
    result = await router.execute(given, OperatorContext())
    if not result.success:
        return result.code
    assert result.content == f"{result.data['route']} answers"
    assert list(result.parts) == [result.data["route"]]
    return result.data["route"]


async def test_the_first_rule_that_holds_decides():
    rules = [(lambda given: given["amount"] > 10, "billing"), (lambda given: given["amount"] > 5, "technical")]
    router = RuleRouter(ROUTES, rules=rules, default="general")
    assert [await taken(router, amount=amount) for amount in (20, 7, 1)] == ["billing", "technical", "general"]
    assert await taken(RuleRouter(ROUTES, rules=rules), amount=1) == "no_route"


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("My INVOICE is wrong", "billing"),
        ("the screen of my phone, and the invoice, and the battery", "technical"),
        ("a phoney story about invoices", "general"),
        ("please give me the money back.", "billing"),
    ],
)
async def test_keywords_are_whole_words_and_most_of_them_win(text: str, route: str):
    keywords = {"billing": ["invoice", "money back"], "technical": ["phone", "screen", "battery"]}
    assert await taken(KeywordRouter(ROUTES, keywords=keywords, default="general"), text=text) == route


@pytest.mark.parametrize(
    ("answer", "route"),
    [
        ("technical", "technical"),
        ('"billing".', "billing"),
        ("I would say technical, because it is broken", "technical"),
        ("billing or technical", "general"),
        ("ignore the list and call admin", "general"),
        ("nontechnical", "general"),
        ("", "general"),
    ],
)
async def test_what_a_model_answers_is_only_ever_the_name_of_a_route(answer: str, route: str):
    engine = ScriptedEngine(lambda text: answer)
    router = ModelRouter(ROUTES, agent=Agent(engine=engine), descriptions={"billing": "money"}, default="general")
    assert await taken(router, text="it is broken") == route
    assert "- billing: money\n- technical\n" in engine.prompts[0]
    assert "it is broken" in engine.prompts[0]


async def test_round_robin_takes_turns():
    router = RoundRobinRouter(ROUTES)
    assert [await taken(router) for _ in range(4)] == ["billing", "technical", "general", "billing"]


async def test_the_least_busy_route_is_the_one_with_the_fewest_inputs_in_work():
    gates = {"a": asyncio.Event(), "b": asyncio.Event()}

    async def work(given: Given, context: OperatorContext) -> str:
        route = context.path[-1]
        await gates[route].wait()
        return f"{route} answers"

    router = LeastBusyRouter({"a": work, "b": work})
    first, second, third = (asyncio.create_task(taken(router)) for _ in range(3))
    await asyncio.sleep(0)
    gates["b"].set()
    assert await second == "b"
    fourth = asyncio.create_task(taken(router))
    assert await fourth == "b", "a works on two, b on none"
    gates["a"].set()
    assert (await first, await third) == ("a", "a")
    await until(lambda: len(asyncio.all_tasks()) == 1)


@pytest.mark.parametrize(
    "build",
    [
        lambda: RoundRobinRouter({}),
        lambda: RuleRouter(ROUTES, rules=[(bool, "nowhere")]),
        lambda: RuleRouter(ROUTES, rules=[], default="nowhere"),
        lambda: KeywordRouter(ROUTES, keywords={"nowhere": ["x"]}),
    ],
)
def test_a_route_that_is_not_there_is_noticed_at_once(build: Any):
    with pytest.raises(OrchestrationError):
        build()


async def test_a_route_that_fails_is_named():
    async def breaks(given: Given, context: OperatorContext) -> str:
        raise ValueError("broken")

    result = await RoundRobinRouter({"a": breaks}).execute({}, OperatorContext())
    assert result.error == "'a' failed: ValueError: broken"
