"""The invariants of the ledger, decided from the books alone: no clock, no store, no provider.

It counts for itself what a call costs, which window an event is in and whom a budget covers: what it shared with the
ledger, both could have wrong.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from itertools import chain
from typing import Final

from agent_runtime.ledger.records import LedgerEvent
from faults.books import Books, Rates
from faults.counters import counter_violations
from llmhub_runtime.sim import LogEntry
from llmhub_runtime.sim.log import LoggedUsage
from runtime_core.call_log.records import AttemptStatus, LoggedAttempt, Usage

INVARIANTS: Final[Mapping[str, str]] = {
    "I1": "every request in the provider's log has exactly one attempt, and every settled attempt is in that log",
    "I2": "tokens and micro-cost of settled attempts are the provider's; what is estimated or unknown is never below",
    "I3": "a key has one answer, the same for everybody, and at most one request more than there were crashes",
    "I4": "spent + reserved never exceeded a limit; nothing is reserved at the end; counters are the sum of events",
}


_MOST_TOKENS: Final = 10**8


@dataclass(frozen=True, slots=True)
class Violation:
    """`invariant` is one of INVARIANTS."""

    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"


def check(books: Books) -> list[Violation]:
    """Every violation of I1 to I4; none where the invariants hold."""
    found = {
        "I1": chain(_requests_and_rows(books), _rows_and_events(books)),
        "I2": _amounts(books),
        "I3": _keys(books),
        "I4": counter_violations(books),
    }
    return [Violation(invariant, what) for invariant, texts in found.items() for what in texts]


def _requests_and_rows(books: Books) -> Iterator[str]:
    rows = Counter(row.attempt.attempt_id for row in books.rows)
    yield from (f"attempt {key} has {count} rows" for key, count in rows.items() if count > 1)
    sent = Counter(entry.attempt_id for entry in books.requests)
    for key, count in sent.items():
        if key is None:
            yield f"{count} requests came without an attempt id"
            continue
        if count > 1:
            yield f"attempt {key} was sent {count} times"
        if key not in rows:
            yield f"request {key} reached the provider and has no attempt: it was spent unseen"
    for row in books.rows:
        key = row.attempt.attempt_id
        if row.status is AttemptStatus.RESERVED:
            yield f"attempt {key} has no end, though its lease has run out"
        elif row.status is AttemptStatus.SETTLED and key not in sent:
            yield f"attempt {key} is settled and the provider never saw it"
    seen = _by_attempt(books)
    for row in books.rows:
        entry = seen.get(row.attempt.attempt_id)
        if row.status is AttemptStatus.RELEASED and entry is not None and _was_served(entry):
            yield f"attempt {row.attempt.attempt_id} is released and the provider served it"


def _was_served(entry: LogEntry) -> bool:
    refused = entry.status is not None and entry.status >= 400
    return entry.usage is not None or entry.completion_tokens_sent > 0 or not refused


def _rows_and_events(books: Books) -> Iterator[str]:
    rows = {row.attempt.attempt_id: row for row in books.rows}
    events = {event.event_id: event for event in books.events if event.type == "model"}
    counts = Counter(event.event_id for event in books.events)
    yield from (f"event {key} of the ledger is there {count} times" for key, count in counts.items() if count > 1)
    yield from (f"attempt {key} is not in the ledger" for key in rows.keys() - events.keys())
    yield from (f"event {key} of the ledger is not in the call log" for key in events.keys() - rows.keys())
    for key in rows.keys() & events.keys():
        status, state = rows[key].status.value, events[key].state.value
        if status != state:
            yield f"attempt {key} is {status} in the call log and {state} in the ledger"


def _amounts(books: Books) -> Iterator[str]:
    seen, rows = _by_attempt(books), {row.attempt.attempt_id: row for row in books.rows}
    for event in books.events:
        if event.type != "model" or (row := rows.get(event.event_id)) is None:
            continue
        entry = seen.get(event.event_id)
        match row.status:
            case AttemptStatus.SETTLED if entry is not None:
                texts = _settled(row, event, entry, books.rates.get(row.attempt.model))
            case AttemptStatus.UNKNOWN:
                texts = _unknown(event, entry)
            case AttemptStatus.RELEASED if event.total_tokens or event.cost_micro or event.requests:
                texts = iter([f"{event.total_tokens} tokens and {event.cost_micro} micro-dollars were released"])
            case _:
                continue
        yield from (f"attempt {event.event_id}: {text}" for text in texts)


def _settled(row: LoggedAttempt, event: LedgerEvent, entry: LogEntry, rates: Rates | None) -> Iterator[str]:
    usage = _usage(row)
    if usage is None:
        yield "it is settled, and nothing says what it took"
        return
    told = entry.usage
    if told is not None and _readable(told):
        ours, theirs = (usage.input, usage.output), (told.prompt_tokens, told.completion_tokens)
        if usage.estimated:
            yield f"the usage is estimated, and the provider said {theirs}"
        if ours != theirs:
            yield f"{ours} tokens in and out are settled, and the provider said {theirs}"
    else:
        if not usage.estimated:
            yield "the usage is not flagged as estimated, and the provider said nothing readable"
        least = _least(entry)
        if usage.input < least[0] or usage.output < least[1]:
            yield f"{(usage.input, usage.output)} tokens are estimated, below the {least} that went over the wire"
    cost = _cost(usage, rates)
    recorded = None if row.ending is None else row.ending.cost_micro
    if recorded != cost or event.cost_micro != (cost or 0):
        yield f"it cost {cost} micro-dollars; the log says {recorded}, the ledger {event.cost_micro}"
    if (event.input_tokens, event.output_tokens) != (usage.input, usage.output):
        yield f"{usage.input} + {usage.output} tokens in the log are {event.total_tokens} in the ledger"
    if event.total_tokens != usage.input + usage.output:
        yield f"{event.total_tokens} tokens are counted for {usage.input} + {usage.output}"
    if event.requests != 1:
        yield f"it counts as {event.requests} requests"


def _unknown(event: LedgerEvent, entry: LogEntry | None) -> Iterator[str]:
    if not event.estimated:
        yield "it is unknown and not flagged as estimated"
    if (event.total_tokens, event.cost_micro) != (event.reserved_tokens, event.reserved_cost_micro):
        yield f"it is unknown and counts {event.total_tokens} tokens, not the {event.reserved_tokens} it reserved"
    if event.requests != 1:
        yield f"it is unknown and counts as {event.requests} requests"
    if entry is not None and event.total_tokens < _delivered(entry):
        yield f"{event.total_tokens} tokens are counted, and the provider counted {_delivered(entry)}"


def _readable(told: LoggedUsage) -> bool:
    return _is_count(told.prompt_tokens) and _is_count(told.completion_tokens)


def _is_count(tokens: int) -> bool:
    """Whether it can be meant: no model reads or writes more in one call."""
    return 0 <= tokens <= _MOST_TOKENS


def _least(entry: LogEntry) -> tuple[int, int]:
    """What an estimate may not be below: the half of a senseless usage that makes sense, or else what was counted."""
    read, sent, told = entry.prompt_tokens or 0, entry.completion_tokens_sent, entry.usage
    if told is None:
        return read, sent
    return (
        told.prompt_tokens if _is_count(told.prompt_tokens) else read,
        told.completion_tokens if _is_count(told.completion_tokens) else sent,
    )


def _delivered(entry: LogEntry) -> int:
    """What the provider has a claim to: what it said, or at least what it read and sent."""
    told = 0
    if entry.usage is not None and _readable(entry.usage):
        told = entry.usage.prompt_tokens + entry.usage.completion_tokens
    refused = entry.status is not None and entry.status >= 400
    return max(told, 0 if refused else (entry.prompt_tokens or 0) + entry.completion_tokens_sent)


def _keys(books: Books) -> Iterator[str]:
    calls: dict[tuple[str, str], int] = defaultdict(int)
    for keyed in books.keyed:
        calls[keyed.scope_id, keyed.key] += 1
        name = f"key {keyed.key!a} of scope {keyed.scope_id!a}"
        if len(set(keyed.answers)) > 1:
            yield f"{name} gave {len(set(keyed.answers))} different answers"
        if keyed.requests > 1 + keyed.crashes:
            yield f"{name} made {keyed.requests} requests, with {keyed.crashes} crashes"
        if keyed.answers and not keyed.requests:
            yield f"{name} has an answer that no request gave"
    yield from (
        f"key {key!a} of scope {scope!a} is told {count} times" for (scope, key), count in calls.items() if count > 1
    )


def _by_attempt(books: Books) -> dict[str, LogEntry]:
    return {entry.attempt_id: entry for entry in books.requests if entry.attempt_id is not None}


def _usage(row: LoggedAttempt) -> Usage | None:
    return None if row.ending is None else row.ending.usage


def _cost(usage: Usage, rates: Rates | None) -> int | None:
    """A dollar for a million tokens is a micro-dollar for one."""
    if rates is None:
        return None
    exact: Decimal = usage.input * rates.input + usage.output * rates.output
    return int(exact.to_integral_value(ROUND_HALF_UP))
