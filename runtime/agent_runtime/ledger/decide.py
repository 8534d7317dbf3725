"""Whether a reservation fits: arithmetic on limits and counters, without a store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from operator import add
from typing import NamedTuple

from agent_runtime.errors import BudgetExceededError
from agent_runtime.ledger.amounts import MICRO, NOTHING, Amounts
from agent_runtime.ledger.budgets import Account, Limit
from agent_runtime.ledger.windows import Window, ends_at


class BudgetDecision(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


class Counter(NamedTuple):
    """What an account has spent and reserved in one period, each in the order of MEASURES."""

    spent: tuple[int, ...]
    reserved: tuple[int, ...]


class Check(NamedTuple):
    """A limit, where in MEASURES its measure is, and the period in which it counts; None for single requests."""

    limit: Limit
    measure: int
    period: str | None


class Rules(NamedTuple):
    """What a budget says in one minute: what is checked, and all periods that are counted, with their windows."""

    checks: tuple[Check, ...]
    periods: tuple[tuple[str, Window], ...]


@dataclass(slots=True)
class Applying:
    """A budget that applies to a reservation, with a counter for each of its periods; `fresh` ones are not stored.

    `held` is what reservations hold back that were made since the counters were read.
    """

    account: Account
    rules: Rules
    counters: dict[str, Counter]
    fresh: list[str] = field(default_factory=list[str])
    held: tuple[int, ...] = NOTHING

    def hold(self, most: Amounts) -> None:
        """A reservation was made, which the next one has to leave room for."""
        self.held = tuple(map(add, self.held, most))


class Wanted(NamedTuple):
    """The most that a call may take. `at` is in whole seconds since the epoch; `priced` is False without a price.

    `whole_run` is for a run with all its calls, which the limits of one request do not bound.
    """

    most: Amounts
    at: int
    priced: bool = True
    whole_run: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something does not fit.

    `reason` is budget_exceeded; too_large for what would not fit an untouched window either; no_price for a budget in
    money over a model without a price; run_over for a run whose budget is gone; changed where the answer was bounded by
    other limits than those that apply, which are `bounding`. `retry_after` is in seconds, None where waiting does not
    help. The limit is `allowed`, and would have to be larger by `missing`, in dollars, seconds or a count.
    """

    message: str
    reason: str
    account: Account
    limit: str
    window: Window
    retry_after: float | None = None
    allowed: float | None = None
    missing: float | None = None
    bounding: frozenset[Limit] | None = None

    def error(self) -> BudgetExceededError:
        return BudgetExceededError(
            self.message,
            scope_id=self.account.scope_id,
            reason=self.reason,
            limit=self.limit,
            window=self.window.value,
            retry_after=self.retry_after,
            run_id=self.account.run_id or None,
            allowed=self.allowed,
            missing=self.missing,
        )


@dataclass(frozen=True, slots=True)
class BudgetAnswer:
    """What `check_budget` says: equal to its BudgetDecision, and with the reason for a no."""

    decision: BudgetDecision
    refusal: Refusal | None = None

    @property
    def reason(self) -> str | None:
        return None if self.refusal is None else self.refusal.message

    @property
    def retry_after(self) -> float | None:
        return None if self.refusal is None else self.refusal.retry_after

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BudgetAnswer):
            return (self.decision, self.refusal) == (other.decision, other.refusal)
        return self.decision == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.decision)


def decide(budgets: Iterable[Applying], wanted: Wanted) -> Refusal | None:
    """None if spent + reserved + wanted is within every limit; else the refusal that lasts the longest.

    The budgets are as they apply in the minute of `wanted.at`.
    """
    refusals = [
        refusal
        for budget in budgets
        for check in budget.rules.checks
        if (refusal := _against(budget, check, wanted)) is not None
    ]
    return max(refusals, key=_lasts, default=None)


def other_limits(budgets: Iterable[Applying], assumed: frozenset[Limit], account: Account) -> Refusal | None:
    """None if those in tokens and money, which bound an answer, are as assumed."""
    limits = frozenset(
        limit for budget in budgets for limit, _, _ in budget.rules.checks if limit.measure in ("tokens", "cost_micro")
    )
    if limits == assumed:
        return None
    return Refusal("Its budgets have changed.", "changed", account, "", Window.REQUEST, bounding=limits)


def _lasts(refusal: Refusal) -> float:
    return float("inf") if refusal.retry_after is None else refusal.retry_after


def _against(budget: Applying, check: Check, wanted: Wanted) -> Refusal | None:
    account, (limit, measure, name) = budget.account, check
    if limit.measure == "cost_micro" and not wanted.priced:
        text = f"{limit.name} of {account} is a budget in money, and the model has no price: give its role one."
        return Refusal(text, "no_price", account, limit.name, limit.window)
    if name is None and wanted.whole_run:
        return None
    amount, taken = wanted.most[measure], 0
    if name is not None:
        spent, reserved = budget.counters[name]
        taken = spent[measure] + reserved[measure] + budget.held[measure]
    # A call that takes nothing of a measure is not stopped by it, however far it is overdrawn.
    if amount == 0 or taken + amount <= limit.most:
        return None
    too_large = amount > limit.most
    end = ends_at(limit.window, wanted.at)
    left = max(0, limit.most - taken)
    text = (
        f"{limit.name} of {account} is {_shown(limit, limit.most)}; "
        f"{_shown(limit, left)} is left, and this may take {_shown(limit, amount)}."
    )
    return Refusal(
        text,
        "too_large" if too_large else "budget_exceeded",
        account,
        limit.name,
        limit.window,
        None if too_large or end is None else float(end - wanted.at),
        _in_units(limit, limit.most),
        _in_units(limit, taken + amount - limit.most),
    )


def _in_units(limit: Limit, amount: int) -> float:
    return amount / {"cost_micro": MICRO, "runtime_ms": 1000}.get(limit.measure, 1)


def _shown(limit: Limit, amount: int) -> str:
    match limit.measure:
        case "cost_micro":
            return f"${amount / MICRO:g}"
        case "runtime_ms":
            return f"{amount / 1000:g} s"
        case _:
            return str(amount)
