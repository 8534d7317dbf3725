"""Whatever a provider does: one error of ours, a true row for every request, and never a false success."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_client import (
    NO_RETRY,
    BreakerConfig,
    CallFailed,
    CallMalformed,
    CallRateLimited,
    CallRejected,
    CallTimedOut,
    CallUnavailable,
    CompletionResult,
    EmbeddingSpec,
    RequestContext,
    RequestSpec,
    StreamEnded,
    StreamFailed,
)
from support.engine import Rig, check_books, rig
from support.scripted_provider import completion, json_reply, running_provider

NEVER = BreakerConfig(failure_threshold=10**9)
ASK = RequestSpec.of("Hello there", role="chat")

MALFORMED = [
    {"kind": "malformed", "body": body} for body in ("bad_json", "html", "empty_choices", "null_content", "wrong_types")
]
FAULTS: list[tuple[dict[str, Any], type[CallFailed], str, int]] = [
    # the fault, the caller's error, the status of every row, requests
    ({"kind": "error", "status": 400}, CallRejected, "released", 1),
    ({"kind": "error", "status": 401}, CallRejected, "released", 1),
    ({"kind": "error", "status": 404}, CallRejected, "released", 1),
    ({"kind": "error", "status": 500}, CallUnavailable, "released", 3),
    ({"kind": "error", "status": 503, "body": "busy"}, CallUnavailable, "released", 3),
    ({"kind": "error", "status": 504}, CallTimedOut, "unknown", 3),
    ({"kind": "rate_limit"}, CallRateLimited, "released", 3),
    ({"kind": "reset"}, CallUnavailable, "unknown", 3),
    ({"kind": "cut_stream", "how": "clean"}, CallMalformed, "unknown", 3),
    ({"kind": "cut_stream", "how": "abort"}, CallUnavailable, "unknown", 3),
    *((fault, CallMalformed, "unknown", 3) for fault in MALFORMED),
]


def name_of(value: Any) -> str:
    return "-".join(str(part) for part in value.values()) if isinstance(value, dict) else ""


@pytest.mark.parametrize(("fault", "error", "status", "requests"), FAULTS, ids=name_of)
async def test_a_fault_is_one_error_and_a_row_for_every_request(
    fault: dict[str, Any], error: type[CallFailed], status: str, requests: int
) -> None:
    async with rig() as made:
        made.reply(fault=fault)
        with pytest.raises(error) as caught:
            await made.engine.complete(ASK)
        rows = await made.rows()
        assert type(caught.value) is error
        assert caught.value.attempts == len(made.sent()) == len(rows) == requests
        assert {row.status.value for row in rows} == {status}
        assert len({row.attempt.call_id for row in rows}) == 1
        assert [row.attempt.number for row in rows] == list(range(1, requests + 1))
        check_books(rows, made.sent())


@pytest.mark.parametrize(
    "fault",
    [*MALFORMED, {"kind": "cut_stream"}, {"kind": "cut_stream", "how": "abort"}, {"kind": "stream_error"}],
    ids=name_of,
)
async def test_a_broken_stream_never_looks_like_a_success(fault: dict[str, Any]) -> None:
    async with rig() as made:
        made.reply(fault=fault)
        events = [event async for event in made.engine.stream(ASK)]
        rows = await made.rows()
        *_, last = events
        assert isinstance(last, StreamFailed)
        assert not any(isinstance(event, StreamEnded | StreamFailed) for event in events[:-1])
        # What was seen cannot be taken back: nothing is tried again after the first delta.
        assert len(rows) == (1 if len(events) > 1 else 3)
        assert {row.status.value for row in rows} == {"unknown"}
        assert all(row.ending and row.ending.usage and row.ending.usage.estimated for row in rows)
        delivered = sum(len(event.text.encode()) for event in events if event.kind == "text")
        assert rows[-1].ending and rows[-1].ending.usage and rows[-1].ending.usage.output == -(-delivered // 4)
        check_books(rows, made.sent())


async def test_a_fault_that_passes_is_tried_again() -> None:
    async with rig() as made:
        made.script({"match": {"times": 2}, "reply": {"fault": {"kind": "error", "status": 500}}})
        result = await made.engine.complete(ASK)
        assert result.attempts == 3
        assert [row.status.value for row in await made.rows()] == ["released", "released", "settled"]
        assert made.events.count("attempt.retry") == 2
        check_books(await made.rows(), made.sent())


async def test_a_stream_is_tried_again_only_while_nothing_was_delivered() -> None:
    async with rig() as made:
        made.script({"match": {"times": 1}, "reply": {"fault": {"kind": "rate_limit"}}})
        events = [event async for event in made.engine.stream(ASK)]
        assert isinstance(events[-1], StreamEnded)
        assert events[-1].result.content == "".join(event.text for event in events if event.kind == "text")
        assert events[-1].result.attempts == 2
        check_books(await made.rows(), made.sent())


async def test_nobody_listens_there() -> None:
    async with rig(base=lambda sim: "http://127.0.0.1:9/v1") as made:
        with pytest.raises(CallUnavailable):
            await made.engine.complete(ASK)
        assert {row.status.value for row in await made.rows()} == {"released"}


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_is_kept_to(form: str) -> None:
    async with rig() as made:
        after = 0.3 if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        made.script({"match": {"times": 1}, "reply": {"fault": {"kind": "rate_limit", "retry_after": after}}})
        await made.engine.complete(ASK)
        first, second = (row.attempt.reserved_at for row in await made.rows())
        # A date has whole seconds only.
        assert second - first >= (0.3 if form == "seconds" else 0.9)


@pytest.mark.parametrize("deadline_s", [None, 5.0])
async def test_a_retry_after_beyond_the_deadline_goes_out_with_the_error(deadline_s: float | None) -> None:
    async with rig() as made:
        made.reply(fault={"kind": "rate_limit", "retry_after": 1_000_000_000})
        context = RequestContext(deadline=None if deadline_s is None else time.time() + deadline_s)
        with pytest.raises(CallRateLimited) as caught:
            await made.engine.complete(ASK, context=context)
        assert caught.value.retry_after == 1e9
        assert len(made.sent()) == 1


@pytest.mark.parametrize(
    "fault", [{"kind": "hang"}, {"kind": "hang", "after_chunks": 2}, {"kind": "slow_loris"}], ids=name_of
)
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("limit", ["deadline", "timeout_s"])
async def test_who_never_finishes_is_left_at_the_deadline(fault: dict[str, Any], streamed: bool, limit: str) -> None:
    roles = {"chat": {"timeout_s": 0.3}} if limit == "timeout_s" else {}
    async with rig(roles=roles) as made:
        made.script(
            {"match": {"times": 1}, "reply": {"fault": fault}}, {"reply": {"fault": {"kind": "error", "status": 400}}}
        )
        context = RequestContext(deadline=time.time() + 0.3) if limit == "deadline" else None
        began = time.monotonic()
        if streamed:
            *_, last = [event async for event in made.engine.stream(ASK, context=context)]
            assert isinstance(last, StreamFailed)
        else:
            with pytest.raises(CallFailed):
                await made.engine.complete(ASK, context=context)
        assert time.monotonic() - began < 20, "it waited for who never finishes"
        first = (await made.rows())[0]
        assert first.status.value == "unknown"
        assert first.ending and first.ending.error == "provider_timeout"
        await _until_gone(made)
        check_books(await made.rows(), made.sent())


@pytest.mark.parametrize(
    "usage", ["missing", {"prompt_tokens": -5}, {"completion_tokens": -1}, {"completion_tokens": 10**15}]
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_senseless_usage_is_counted_by_us_and_marked(usage: Any, streamed: bool) -> None:
    async with rig() as made:
        made.reply(usage=usage, answer="four tokens hold 16")
        if streamed:
            *_, last = [event async for event in made.engine.stream(ASK)]
            assert isinstance(last, StreamEnded)
            result = last.result
        else:
            result = await made.engine.complete(ASK)
        assert result.usage.estimated
        assert result.usage.output in (5, made.sent()[0].completion_tokens_sent)
        assert 1 <= result.usage.input < 100
        assert result.cost_micro == result.usage.input * 2 + result.usage.output * 10
        row = await made.row()
        assert row.ending and row.ending.usage == result.usage and row.ending.cost_micro == result.cost_micro


async def test_a_malformed_answer_that_says_what_it_cost_is_settled_with_its_error() -> None:
    with running_provider() as provider:
        async with rig(base=lambda sim: provider.base, retry=NO_RETRY) as made:
            provider.script(json_reply(completion(choices=[])))
            with pytest.raises(CallMalformed):
                await made.engine.complete(ASK)
            row = await made.row()
            assert row.status.value == "settled"
            assert row.ending and row.ending.error == "provider_malformed"
            assert row.ending.usage and (row.ending.usage.input, row.ending.usage.output) == (11, 7)
            assert row.answer_hash is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
PLACES = [
    ("choices",),
    ("usage",),
    ("choices", 0),
    ("choices", 0, "message"),
    ("choices", 0, "finish_reason"),
    ("choices", 0, "message", "content"),
    ("choices", 0, "message", "tool_calls"),
    ("usage", "prompt_tokens"),
    ("usage", "completion_tokens"),
]


def test_a_mutated_answer_is_an_answer_or_an_error_of_ours() -> None:
    with asyncio.Runner() as runner, running_provider() as provider:
        stack = AsyncExitStack()
        made = runner.run(
            stack.enter_async_context(rig(base=lambda sim: provider.base, retry=NO_RETRY, breaker_config=NEVER))
        )

        @given(place=st.sampled_from(PLACES), value=ANYTHING)
        def search(place: tuple[str | int, ...], value: Any) -> None:
            document: Any = json.loads(json.dumps(completion()))
            holder = document
            for step in place[:-1]:
                holder = holder[step]
            holder[place[-1]] = value
            provider.script(json_reply(document))
            try:
                result = runner.run(made.engine.complete(ASK))
            except CallFailed as exc:
                assert type(exc) in (CallMalformed, CallRejected), exc
            else:
                CompletionResult.model_validate(result.model_dump(), strict=True)
                assert result.usage.input >= 0 <= result.usage.output

        try:
            search()
        finally:
            runner.run(stack.aclose())


async def test_an_embedding_goes_the_same_road() -> None:
    async with rig() as made:
        result = await made.engine.embed(EmbeddingSpec(inputs=("one", "two"), role="embed", params={"dimensions": 4}))
        assert [len(vector) for vector in result.vectors] == [4, 4]
        row = await made.row()
        assert (row.status.value, row.attempt.kind.value, row.answer_hash) == ("settled", "embedding", None)
        made.reply(fault={"kind": "malformed", "body": "null_content"})
        with pytest.raises(CallMalformed):
            await made.engine.embed(EmbeddingSpec(inputs=("one",), role="embed"))
        check_books(await made.rows(), made.sent())


async def _until_gone(made: Rig) -> None:
    async with asyncio.timeout(20):
        while any(entry.outcome == "open" for entry in made.sent()):
            await asyncio.sleep(0.01)
