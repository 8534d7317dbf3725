"""What stands around a tool call, one link at a time and as the default chain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from llm_client.agent.events import ToolFinished, ToolStarted
from llm_client.agent.middleware import (
    Budget,
    Logging,
    MaxToolCalls,
    Middleware,
    Next,
    Retry,
    Telemetry,
    Timeout,
    ToolInvocation,
    chained,
    default_middleware,
)
from llm_client.errors import CallRefused, ToolArgumentsInvalid, ToolFailed
from llm_client.retry import RetryPolicy
from llm_client.spec import RequestContext
from llm_client.tools import Tool
from runtime_core.clock import ManualClock
from support.waiting import until

QUICK = RetryPolicy(attempts=3, backoff_s=0.0)


def invocation(function: Callable[..., Any], *, number: int = 1, **options: Any) -> ToolInvocation:
    tool = Tool(function, name="work", **options)
    return ToolInvocation(tool=tool, call_id="c1", arguments={}, context=RequestContext(), number=number)


class Seen:
    """A link that notes who passes, and how."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self._name, self._seen = name, seen

    async def __call__(self, call: ToolInvocation, next: Next) -> str:
        self._seen.append(f"{self._name}>")
        text = await next(call)
        self._seen.append(f"<{self._name}")
        return text


class Flaky:
    """An async function that fails `failures` times."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.left, self.error, self.calls = failures, error or ValueError("no"), 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.left:
            raise self.error
        return "done"


async def test_the_first_link_is_the_outermost():
    seen: list[str] = []
    chain = chained([Seen("a", seen), Seen("b", seen)])
    assert await chain(invocation(lambda: "x")) == "x"
    assert seen == ["a>", "b>", "<b", "<a"]


async def test_a_plain_function_can_be_a_link_and_answer_by_itself():
    async def cached(call: ToolInvocation, next: Next) -> str:
        return f"{call.tool.name}: kept"

    flaky = Flaky(0)
    assert await chained([cached])(invocation(flaky)) == "work: kept"
    assert flaky.calls == 0


async def test_a_link_cannot_smuggle_in_arguments_that_do_not_fit():
    from dataclasses import replace

    async def change(call: ToolInvocation, next: Next) -> str:
        return await next(replace(call, arguments={"admin": True}))

    with pytest.raises(ToolArgumentsInvalid):
        await chained([change])(invocation(lambda: "x"))


@pytest.mark.parametrize(
    ("options", "calls"),
    [({}, 3), ({"side_effect": True}, 1), ({"side_effect": True, "idempotent": True}, 3)],
)
async def test_only_what_can_be_repeated_is_tried_again(options: dict[str, bool], calls: int):
    flaky = Flaky(9)
    with pytest.raises(ToolFailed):
        await chained([Retry(QUICK, clock=ManualClock())])(invocation(flaky, **options))
    assert flaky.calls == calls


async def test_a_call_that_fails_once_is_done_the_second_time_after_a_pause():
    clock, flaky = ManualClock(), Flaky(1)
    retry = Retry(RetryPolicy(attempts=2, backoff_s=4.0, jitter=False), clock=clock)
    task = asyncio.create_task(chained([retry])(invocation(flaky)))  # type: ignore[arg-type]
    await until(lambda: clock.sleepers)
    clock.advance(4.0)
    assert await task == "done"


@pytest.mark.parametrize("error", [CallRefused("no"), ToolArgumentsInvalid("no")])
async def test_what_would_fail_again_is_not_tried_again(error: Exception):
    flaky = Flaky(9, error)
    with pytest.raises(type(error)):
        await chained([Retry(QUICK, clock=ManualClock())])(invocation(flaky))
    assert flaky.calls == 1


async def test_each_attempt_has_a_timeout_of_its_own():
    clock, ended = ManualClock(), []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    chain = chained([Retry(QUICK, clock=clock), Timeout(0.01, clock=clock)])
    with pytest.raises(ToolFailed, match=r"within 0\.01 s"):
        await chain(invocation(hang))
    assert len(ended) == 3


async def test_a_tools_own_timeout_and_the_deadline_are_kept():
    clock = ManualClock()

    async def hang() -> None:
        await asyncio.Event().wait()

    with pytest.raises(ToolFailed, match=r"within 0\.01 s"):
        await chained([Timeout(99, clock=clock)])(invocation(hang, timeout_s=0.01))
    late = RequestContext(deadline=clock.now().timestamp() - 5)
    call = ToolInvocation(tool=Tool(hang), call_id="c", arguments={}, context=late)
    with pytest.raises(ToolFailed, match="within 0 s"):
        await chained([Timeout(99, clock=clock)])(call)


async def test_a_timeout_leaves_a_blocking_function_behind_without_waiting():
    release = threading.Event()
    with pytest.raises(ToolFailed):
        await chained([Timeout(0.01, clock=ManualClock())])(invocation(lambda: release.wait(10)))
    release.set()
    await until(lambda: not any(thread.name == "llm-tool" for thread in threading.enumerate()))


async def test_a_budget_refuses_before_the_function_is_reached():
    flaky = Flaky(0)
    chain = chained([Budget(MaxToolCalls(2))])
    assert await chain(invocation(flaky, number=2)) == "done"
    with pytest.raises(CallRefused) as caught:
        await chain(invocation(flaky, number=3))
    assert caught.value.reason == "max_tool_calls"
    assert flaky.calls == 1


async def test_a_call_is_charged_once_however_often_it_is_tried():
    spent: list[int] = []

    class Purse:
        async def spend(self, call: ToolInvocation) -> None:
            spent.append(call.number)

    flaky = Flaky(2)
    chain = chained(default_middleware(budget=Purse(), retry=QUICK, clock=ManualClock()))
    assert await chain(invocation(flaky)) == "done"
    assert (flaky.calls, spent) == (3, [1])


async def test_telemetry_sees_the_end_of_every_call_whatever_it_is():
    events: list[Any] = []
    clock = ManualClock()

    def sink(event: ToolStarted | ToolFinished, context: RequestContext) -> None:
        events.append(event)

    async def cancelled() -> None:
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await asyncio.sleep(0)

    for error in (None, ValueError("no"), CallRefused("no")):
        with contextlib.suppress(ToolFailed, CallRefused):
            await chained([Telemetry(sink, clock=clock)])(invocation(Flaky(1 if error else 0, error)))
    task = asyncio.create_task(chained([Telemetry(sink, clock=clock)])(invocation(cancelled)))  # type: ignore[arg-type]
    await asyncio.wait([task])
    assert [event.kind for event in events] == ["tool_started", "tool_finished"] * 4
    assert [(e.outcome, e.error) for e in events[1::2]] == [
        ("done", None),
        ("failed", "tool_failed"),
        ("refused", "call_refused"),
        ("failed", "cancelled"),
    ]


async def test_a_sink_that_raises_hurts_nobody(caplog: pytest.LogCaptureFixture):
    def sink(event: ToolStarted | ToolFinished, context: RequestContext) -> None:
        raise ValueError("broken")

    assert await chained([Telemetry(sink, clock=ManualClock())])(invocation(lambda: "x")) == "x"
    assert "not affected" in caplog.text


@pytest.mark.parametrize("values", [False, True])
async def test_the_log_holds_values_only_where_somebody_asked_for_them(caplog: pytest.LogCaptureFixture, values: bool):
    def login(password: str) -> None:
        raise ValueError(f"wrong: {password}")

    call = ToolInvocation(
        tool=Tool(login), call_id="c", arguments={"password": "canary-1"}, context=RequestContext(trace_id="trace-7")
    )
    with caplog.at_level(logging.INFO), pytest.raises(ToolFailed):
        await chained([Logging(clock=ManualClock(), values=values)])(call)
    assert "tool login: tool_failed (ValueError)" in caplog.text
    assert "trace-7" in caplog.text
    assert ("canary-1" in caplog.text) is values


def test_the_default_chain_is_in_the_documented_order_and_can_be_changed():
    chain: tuple[Middleware, ...] = default_middleware()
    assert [type(link) for link in chain] == [Telemetry, Logging, Budget, Retry, Timeout]
