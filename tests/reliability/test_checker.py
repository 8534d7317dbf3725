"""The checker of `make faults` finds every kind of violation, and none in true books."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from faults.books import Books, Counted, KeyedCall, Rates
from faults.checker import INVARIANTS, check

from agent_runtime.ledger.budgets import Account, Budget
from agent_runtime.ledger.records import EventState, LedgerEvent
from llmhub_runtime.sim import LogEntry
from llmhub_runtime.sim.log import LoggedUsage
from runtime_core.call_log.records import Attempt, AttemptStatus, CallKind, Ending, LoggedAttempt, Usage

SCOPE, RUN = "tenant-1", "run-1"
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
RESERVED = (100, 1000, 1, 0, 1, 0)
"""What every call here holds back: tokens, micro-dollars, requests, tool calls, turns, milliseconds."""


def request(key: str | None, **facts: Any) -> LogEntry:
    """The provider read 10 tokens and sent 5."""
    usage = LoggedUsage(prompt_tokens=10, completion_tokens=5)
    known = {"status": 200, "usage": usage, "prompt_tokens": 10, "completion_tokens_sent": 5, "outcome": "finished"}
    fixed = {"seq": 1, "time": NOON, "method": "POST", "path": "/v1", "kind": "chat", "decided": "text"}
    return LogEntry.model_validate({**fixed, "attempt_id": key, **known, **facts})


def row(key: str, status: str, usage: Usage | None = None, cost: int | None = None) -> LoggedAttempt:
    attempt = Attempt(
        scope_id=SCOPE,
        attempt_id=key,
        call_id=f"call-{key}",
        number=1,
        kind=CallKind.CHAT,
        role="writer",
        provider="sim",
        model="m",
        request_hash="r",
        reserved_at=NOON.timestamp(),
        lease_until=NOON.timestamp() + 60,
        run_id=RUN,
    )
    state = AttemptStatus(status)
    ending = None
    if state is not AttemptStatus.RESERVED:
        ending = Ending(status=state, ended_at=NOON.timestamp() + 1, usage=usage, cost_micro=cost)
    return LoggedAttempt(attempt=attempt, status=state, ending=ending)


def event(key: str, state: str, tokens: tuple[int, int] = (0, 0), **facts: Any) -> LedgerEvent:
    fixed = {"scope_id": SCOPE, "event_id": key, "type": "model", "state": EventState(state), "timestamp": NOON}
    known = {"input_tokens": tokens[0], "output_tokens": tokens[1], "total_tokens": sum(tokens), "turns": 1}
    held = {"reserved_tokens": RESERVED[0], "reserved_cost_micro": RESERVED[1], "role": "writer", "run_id": RUN}
    return LedgerEvent.model_validate({**fixed, "principal_id": "ann", **known, **held, **facts})


def true_books() -> Books:
    """One call of each kind: settled, settled by estimate, unknown, refused, and lost before it was sent."""
    account = Account(SCOPE)
    return Books(
        requests=[
            request("settled"),
            request("silent", usage=None),
            request("cut", usage=None, completion_tokens_sent=2, outcome="cut"),
            request("refused", status=429, usage=None, completion_tokens_sent=0),
        ],
        rows=[
            row("settled", "settled", Usage(input=10, output=5), 45),
            row("silent", "settled", Usage(input=12, output=5, estimated=True), 49),
            row("cut", "unknown", Usage(input=12, output=2, estimated=True), 34),
            row("refused", "released"),
            row("lost", "unknown"),
        ],
        events=[
            event("settled", "settled", (10, 5), cost_micro=45, requests=1),
            event("silent", "settled", (12, 5), cost_micro=49, requests=1, estimated=True),
            event("cut", "unknown", total_tokens=100, cost_micro=1000, requests=1, estimated=True),
            event("refused", "released"),
            event("lost", "unknown", total_tokens=100, cost_micro=1000, requests=1, estimated=True),
        ],
        budgets=[
            Budget(scope_id=SCOPE, max_tokens_total=500, max_requests_per_minute=5, max_tokens_per_request=100),
            Budget(scope_id=SCOPE, run_id="child", parent_run_id="parent"),
        ],
        counters=[
            Counted(account, "total", (232, 2094, 4, 0, 5, 0), (0,) * 6),
            Counted(account, "2026-05-01T12:00", (232, 2094, 4, 0, 5, 0), (0,) * 6),
        ],
        history=[Counted(account, "total", (132, 1094, 3, 0, 4, 0), RESERVED)],
        keyed=[KeyedCall(SCOPE, "k", ("yes", "yes"), requests=2, crashes=1)],
        rates={"m": Rates(Decimal("2"), Decimal("5"))},
    )


def test_true_books_have_no_violation():
    assert check(true_books()) == []
    assert check(Books()) == []


def changed(part: str, key: str, **facts: Any) -> Callable[[Books], Books]:
    """The books with another record `key` in a part of them."""

    def spoil(books: Books) -> Books:
        name = {"requests": "attempt_id", "events": "event_id"}[part]
        there = getattr(books, part)
        return replace(books, **{part: [_with(each, facts) if getattr(each, name) == key else each for each in there]})

    return spoil


def _with(record: Any, facts: dict[str, Any]) -> Any:
    return type(record).model_validate({**record.model_dump(), **facts})


def rows_with(new: LoggedAttempt) -> Callable[[Books], Books]:
    key = new.attempt.attempt_id
    return lambda books: replace(books, rows=[new if each.attempt.attempt_id == key else each for each in books.rows])


def plus(part: str, *records: Any) -> Callable[[Books], Books]:
    return lambda books: replace(books, **{part: [*getattr(books, part), *records]})


def minus(part: str, index: int) -> Callable[[Books], Books]:
    return lambda books: replace(books, **{part: [each for n, each in enumerate(getattr(books, part)) if n != index]})


def counter(index: int = 0, **facts: Any) -> Callable[[Books], Books]:
    def spoil(books: Books) -> Books:
        counters = list(books.counters)
        counters[index] = replace(counters[index], **facts)
        return replace(books, counters=counters)

    return spoil


PLANTED: dict[str, tuple[str, str, Callable[[Books], Books]]] = {
    "a request without an attempt": ("I1", "spent unseen", plus("requests", request("unseen"))),
    "a request without an id": ("I1", "without an attempt id", plus("requests", request(None))),
    "a request sent twice under one id": ("I1", "was sent 2 times", plus("requests", request("settled"))),
    "two rows for one attempt": ("I1", "has 2 rows", plus("rows", row("refused", "released"))),
    "a settled row that nobody saw": ("I1", "the provider never saw it", minus("requests", 0)),
    "a row that never ended": ("I1", "has no end", rows_with(row("lost", "reserved"))),
    "a served request that was released": ("I1", "the provider served it", changed("requests", "refused", status=200)),
    "a row that the ledger lacks": ("I1", "is not in the ledger", minus("events", 3)),
    "an event that the call log lacks": ("I1", "is not in the call log", plus("events", event("alone", "released"))),
    "an event that is listed twice": ("I1", "is there 2 times", plus("events", event("refused", "released"))),
    "a state that differs": (
        "I1",
        "in the ledger",
        changed("events", "refused", state=EventState.UNKNOWN, estimated=True, total_tokens=100, requests=1),
    ),
    "fewer tokens than the provider said": (
        "I2",
        "the provider said (10, 6)",
        changed("requests", "settled", usage=LoggedUsage(prompt_tokens=10, completion_tokens=6)),
    ),
    "an estimate where the provider spoke": (
        "I2",
        "is estimated, and the provider said",
        rows_with(row("settled", "settled", Usage(input=10, output=5, estimated=True), 45)),
    ),
    "a guess that is not flagged": (
        "I2",
        "not flagged",
        rows_with(row("silent", "settled", Usage(input=12, output=5), 49)),
    ),
    "a guess below what was sent": ("I2", "below the", changed("requests", "silent", completion_tokens_sent=6)),
    "settled for nothing": ("I2", "nothing says what it took", rows_with(row("settled", "settled", None, 45))),
    "a cost that is a micro-dollar off": (
        "I2",
        "it cost 45",
        rows_with(row("settled", "settled", Usage(input=10, output=5), 44)),
    ),
    "a cost that only the ledger has wrong": ("I2", "the ledger 46", changed("events", "settled", cost_micro=46)),
    "tokens that only the ledger has wrong": (
        "I2",
        "16 tokens are counted",
        changed("events", "settled", total_tokens=16),
    ),
    "input and output in the wrong places": (
        "I2",
        "in the ledger",
        changed("events", "settled", input_tokens=5, output_tokens=10),
    ),
    "a settled call that counts as no request": ("I2", "as 0 requests", changed("events", "settled", requests=0)),
    "an unknown one that is not flagged": (
        "I2",
        "not flagged as estimated",
        changed("events", "lost", estimated=False),
    ),
    "an unknown one below its maximum": ("I2", "not the 100", changed("events", "lost", total_tokens=99)),
    "an unknown one that counts as no request": ("I2", "as 0 requests", changed("events", "cut", requests=0)),
    "an unknown one below what the provider sent": (
        "I2",
        "the provider counted 101",
        changed("requests", "cut", completion_tokens_sent=91),
    ),
    "a refusal that was charged": ("I2", "were released", changed("events", "refused", total_tokens=1)),
    "a key with two answers": ("I3", "2 different answers", plus("keyed", KeyedCall(SCOPE, "j", ("a", "b"), 1))),
    "a key that was run once too often": ("I3", "made 2 requests", plus("keyed", KeyedCall(SCOPE, "j", ("a",), 2))),
    "an answer from nowhere": ("I3", "no request gave", plus("keyed", KeyedCall(SCOPE, "j", ("a",), 0))),
    "a key that is told twice": ("I3", "is told 2 times", plus("keyed", KeyedCall(SCOPE, "k", ("yes",), 1))),
    "something still reserved": ("I4", "still holds 1 tokens", counter(reserved=(1, 0, 0, 0, 0, 0))),
    "a counter below its events": ("I4", "says 231 tokens", counter(spent=(231, 2094, 4, 0, 5, 0))),
    "a counter above its events": ("I4", "says 5 requests", counter(1, spent=(232, 2094, 5, 0, 5, 0))),
    "a counter in another window": ("I4", "its events add up to 0", counter(1, period="2026-05-01T12:01")),
    "a budget that was overrun": (
        "I4",
        "is 231, and 232",
        plus("budgets", Budget(scope_id=SCOPE, principal_id="ann", max_tokens_total=231)),
    ),
    "a budget of money that was overrun": (
        "I4",
        "is 2093, and 2094",
        plus("budgets", Budget(scope_id=SCOPE, role="writer", max_cost_daily=Decimal("0.002093"))),
    ),
    "a parent's budget that its child overran": (
        "I4",
        "is 3, and 4",
        lambda books: replace(
            books,
            budgets=[
                Budget(scope_id=SCOPE, run_id=RUN, parent_run_id="above"),
                Budget(scope_id=SCOPE, run_id="above", max_requests_total=3),
            ],
        ),
    ),
    "an overrun between two commits": (
        "I4",
        "501 was spent and reserved at once",
        plus("history", Counted(Account(SCOPE), "total", (401, 0, 0, 0, 0, 0), RESERVED)),
    ),
    "a request that was too large": ("I4", "admitted with 101", changed("events", "settled", reserved_tokens=101)),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_found_and_named(name: str):
    invariant, words, spoil = PLANTED[name]
    found = [str(each) for each in check(spoil(true_books()))]
    assert any(text.startswith(f"{invariant}: ") and words in text for text in found), found


def test_every_invariant_has_planted_violations():
    assert {invariant for invariant, _, _ in PLANTED.values()} == set(INVARIANTS)


def test_what_a_provider_gave_unasked_is_no_overrun_and_anything_more_is():
    books = true_books()
    spoiled = changed("events", "settled", output_tokens=495, total_tokens=505, cost_micro=2495)(books)
    spoiled = changed("requests", "settled", usage=LoggedUsage(prompt_tokens=10, completion_tokens=495))(spoiled)
    spoiled = rows_with(row("settled", "settled", Usage(input=10, output=495), 2495))(spoiled)
    counters = [replace(each, spent=(722, 4544, 4, 0, 5, 0)) for each in books.counters]
    assert check(replace(spoiled, counters=counters)) == []
    over = Counted(Account(SCOPE), "total", (806, 0, 0, 0, 0, 0), RESERVED)
    [violation] = check(replace(spoiled, counters=counters, history=[over]))
    assert "906 was spent and reserved at once in total (405 of it unasked)" in str(violation)
