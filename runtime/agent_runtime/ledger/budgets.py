"""Budgets: for whom, and how much of what in which window."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agent_runtime.ledger.amounts import MOST, limit_micro, to_ms
from agent_runtime.ledger.windows import Window
from runtime_core.context import BudgetSpec, CallerId, ScopeId

Whole = Annotated[int, Field(strict=True, ge=0, le=MOST)] | None
Dollars = (
    Annotated[
        Decimal,
        Field(ge=0, le=MOST // 10**6, allow_inf_nan=False),
        AfterValidator(lambda value: value.normalize()),
    ]
    | None
)
Seconds = Annotated[float, Field(ge=0, le=MOST // 1000, allow_inf_nan=False)] | None


class Account(NamedTuple):
    """Whose spending is counted together; an empty part is anybody's. The scope alone counts all its principals."""

    scope_id: str
    principal_id: str = ""
    role: str = ""
    run_id: str = ""

    def __str__(self) -> str:
        parts = (("principal", self.principal_id), ("role", self.role), ("run", self.run_id))
        said = [f"{what} {value!a}" for what, value in parts if value]
        return " and ".join(said) or "the scope"


class Limit(NamedTuple):
    """`name` is the field of the Budget, `measure` one of MEASURES; `most` is in its whole units."""

    name: str
    measure: str
    window: Window
    most: int


class Budget(BaseModel):
    """Limits for a scope, or within it for a principal, a role, a run, or several of these together.

    Every budget that applies to a call must have room for it. None is no limit; costs are in dollars; windows are
    UTC minutes, days and months; `total` is for the life of the budget. `parent_run_id` is the run that started this
    one: what a run spends counts for all runs above it, so a child has the smaller of its own budget and its
    parent's rest (source: agent-runtime, Ledger).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scope_id: ScopeId = "default"
    principal_id: CallerId | None = None
    role: CallerId | None = None
    run_id: CallerId | None = None
    parent_run_id: CallerId | None = None

    max_tokens_per_request: Whole = None
    max_tokens_per_minute: Whole = None
    max_tokens_daily: Whole = None
    max_tokens_monthly: Whole = None
    max_tokens_total: Whole = None
    max_cost_per_request: Dollars = None
    max_cost_per_minute: Dollars = None
    max_cost_daily: Dollars = None
    max_cost_monthly: Dollars = None
    max_cost_total: Dollars = None
    max_requests_per_minute: Whole = None
    max_requests_daily: Whole = None
    max_requests_monthly: Whole = None
    max_requests_total: Whole = None
    max_tool_calls_per_minute: Whole = None
    max_tool_calls_daily: Whole = None
    max_tool_calls_monthly: Whole = None
    max_tool_calls_total: Whole = None
    max_turns_per_minute: Whole = None
    max_turns_daily: Whole = None
    max_turns_monthly: Whole = None
    max_turns_total: Whole = None
    max_runtime_seconds_daily: Seconds = None
    max_runtime_seconds_monthly: Seconds = None
    max_runtime_seconds_total: Seconds = None

    @classmethod
    def of_run(cls, scope_id: str, run_id: str, spec: BudgetSpec, *, parent_run_id: str | None = None) -> Self:
        """The budget of one run, from the limits that its context carries."""
        return cls(
            scope_id=scope_id,
            run_id=run_id,
            parent_run_id=parent_run_id,
            max_tokens_total=spec.max_tokens,
            max_cost_total=spec.max_cost,
            max_tool_calls_total=spec.max_tool_calls,
            max_turns_total=spec.max_turns,
            max_runtime_seconds_total=spec.max_runtime_seconds,
        )

    @property
    def account(self) -> Account:
        return Account(self.scope_id, self.principal_id or "", self.role or "", self.run_id or "")

    def limits(self) -> tuple[Limit, ...]:
        return tuple(self._limits())

    def _limits(self) -> Iterator[Limit]:
        for measure, stem in _STEMS.items():
            for window in Window:
                name = f"max_{stem}_{window.value}"
                value = getattr(self, name, None)
                if value is not None:
                    yield Limit(name, measure, window, _whole(measure, value))


_STEMS = {
    "tokens": "tokens",
    "cost_micro": "cost",
    "requests": "requests",
    "tool_calls": "tool_calls",
    "turns": "turns",
    "runtime_ms": "runtime_seconds",
}


def _whole(measure: str, value: Decimal | float | int) -> int:
    match measure:
        case "cost_micro":
            return limit_micro(Decimal(value))
        case "runtime_ms":
            return to_ms(float(value))
        case _:
            return int(value)
