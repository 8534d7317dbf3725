"""I4: counters against limits, against the events, and at every commit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from agent_runtime.ledger.amounts import MEASURES
from agent_runtime.ledger.budgets import Account, Limit
from agent_runtime.ledger.records import EventState, LedgerEvent
from agent_runtime.ledger.windows import Window
from faults.books import Books

_COUNTED: Final = tuple(window for window in Window if window is not Window.REQUEST)
_LENGTHS: Final = {Window.MINUTE: 16, Window.DAY: 10, Window.MONTH: 7}
"""How much of an ISO time names the period."""
_ZERO: Final = (0,) * len(MEASURES)

Place = tuple[Account, str]


@dataclass(slots=True)
class _Sums:
    """Of the events of an account in a period, in the order of MEASURES; `excess` is beyond what was reserved."""

    spent: tuple[int, ...] = _ZERO
    excess: tuple[int, ...] = _ZERO

    def add(self, event: LedgerEvent) -> None:
        self.spent = _plus(self.spent, _taken(event))
        self.excess = _plus(self.excess, _excess(event))


def counter_violations(books: Books) -> Iterator[str]:
    """What is wrong with the counters, one sentence each."""
    sums = _sums(books)
    for counter in books.counters:
        where = f"the counter of {counter.account} for {counter.period}"
        for measure, amount in zip(MEASURES, counter.reserved, strict=True):
            if amount:
                yield f"{where} still holds {amount} {measure} in reserve"
        expected = sums.get((counter.account, counter.period), _Sums()).spent
        for measure, ours, theirs in zip(MEASURES, counter.spent, expected, strict=True):
            if ours != theirs:
                yield f"{where} says {ours} {measure}, and its events add up to {theirs}"
    for budget in books.budgets:
        for limit in budget.limits():
            yield from _over(budget.account, limit, books, sums)


def _over(account: Account, limit: Limit, books: Books, sums: Mapping[Place, _Sums]) -> Iterator[str]:
    index, name = MEASURES.index(limit.measure), f"{limit.name} of {account} is {limit.most}"
    if limit.window is Window.REQUEST:
        parents = _parents(books)
        for event in books.events:
            most = {"tokens": event.reserved_tokens, "cost_micro": event.reserved_cost_micro}.get(limit.measure, 0)
            if most > limit.most and _covers(account, event, parents):
                yield f"{name}, and event {event.event_id} was admitted with {most}"
        return
    worst = {
        period: each.spent[index]
        for (whose, period), each in sums.items()
        if whose == account and _is_of(limit.window, period)
    }
    for state in books.history:
        if state.account == account and _is_of(limit.window, state.period):
            taken = state.spent[index] + state.reserved[index]
            worst[state.period] = max(worst.get(state.period, 0), taken)
    for period, taken in worst.items():
        # A provider that gives more than it was asked for cannot be stopped: that much is no overrun of ours.
        excess = sums[account, period].excess[index] if (account, period) in sums else 0
        if taken - excess > limit.most:
            yield f"{name}, and {taken} was spent and reserved at once in {period} ({excess} of it unasked)"


def _is_of(window: Window, period: str) -> bool:
    return len(period) == _LENGTHS.get(window, len("total"))


def _sums(books: Books) -> dict[Place, _Sums]:
    parents = _parents(books)
    accounts = {counter.account for counter in books.counters} | {budget.account for budget in books.budgets}
    sums: dict[Place, _Sums] = defaultdict(_Sums)
    for event in books.events:
        if event.state in (EventState.RESERVED, EventState.NOTED):
            continue
        for account in accounts:
            if _covers(account, event, parents):
                for window in _COUNTED:
                    sums[account, _period(window, event.timestamp)].add(event)
    return sums


def _period(window: Window, moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()[: _LENGTHS[window]] if window in _LENGTHS else "total"


def _covers(account: Account, event: LedgerEvent, parents: Mapping[tuple[str, str], str]) -> bool:
    return (
        account.scope_id == event.scope_id
        and account.principal_id in ("", event.principal_id)
        and account.role in ("", event.role or "")
        and account.run_id in ("", *_line(event.scope_id, event.run_id or "", parents))
    )


def _line(scope_id: str, run_id: str, parents: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """The run and those above it."""
    met = set[str]()
    while run_id and run_id not in met:
        yield run_id
        met.add(run_id)
        run_id = parents.get((scope_id, run_id), "")


def _parents(books: Books) -> dict[tuple[str, str], str]:
    return {
        (each.scope_id, each.run_id): each.parent_run_id
        for each in books.budgets
        if each.run_id and each.parent_run_id and each.principal_id is None and each.role is None
    }


def _taken(event: LedgerEvent) -> tuple[int, ...]:
    return (
        event.total_tokens,
        event.cost_micro,
        event.requests,
        event.tool_calls,
        event.turns,
        event.runtime_ms,
    )


def _excess(event: LedgerEvent) -> tuple[int, ...]:
    if event.state is not EventState.SETTLED:
        return _ZERO
    tokens = max(0, event.total_tokens - event.reserved_tokens)
    return (tokens, max(0, event.cost_micro - event.reserved_cost_micro), *_ZERO[2:])


def _plus(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(sum, zip(one, other, strict=True)))
