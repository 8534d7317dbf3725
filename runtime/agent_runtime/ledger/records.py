"""What the ledger keeps: one event for everything that was used, and for every change of a budget.

reserved -> settled    what it took is known, or estimated and flagged
         -> released   nothing was used
         -> unknown    nobody can tell: counted as the reserved maximum
unknown  -> settled    only where its lease had lapsed, and whoever made the call ended it after all
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from agent_runtime.ledger.amounts import MICRO, Amounts
from agent_runtime.ledger.budgets import Account, Limit
from runtime_core.ids import check_id, check_scope_id


class EventState(StrEnum):
    RESERVED = "reserved"
    SETTLED = "settled"
    RELEASED = "released"
    UNKNOWN = "unknown"
    NOTED = "noted"
    """Of an event about a budget, which uses nothing."""


MODEL, TOOL, USAGE = "model", "tool", "usage"
HOLD = "hold"
"""What is held back for a whole run, and used by its calls."""
BUDGET_SET, BUDGET_REMOVED, REFUSED = "budget_set", "budget_removed", "refused"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be used, by whom. `lease_until` is None where another record's lease says when it lapses.

    `at` is kept to the microsecond, as a page of events is told where the one before it ended. `budgeted`: its run has
    a budget, and may use nothing once that is gone. `bounded_by` are the limits that the answer was bounded by, None
    where the caller said how long it may be.

    Raises IdentityError for a scope, an event or a principal whose id is not in its one spelling.
    """

    scope_id: str
    event_id: str
    type: str
    at: float
    most: Amounts
    principal_id: str = "anonymous"
    role: str | None = None
    run_id: str | None = None
    job_id: str | None = None
    lease_until: float | None = None
    priced: bool = True
    detail: str | None = None
    budgeted: bool = False
    bounded_by: frozenset[Limit] | None = None

    def __post_init__(self) -> None:
        check_scope_id(self.scope_id)
        check_id(self.event_id, what="event id")
        check_id(self.principal_id, what="principal id")
        object.__setattr__(self, "at", round(self.at, 6))

    @property
    def account(self) -> Account:
        """The narrowest one; all that contain it count the entry too."""
        return Account(self.scope_id, self.principal_id, self.role or "", self.run_id or "")


class Used(NamedTuple):
    """How an entry ends. `actual` is None for the reserved maximum; the tokens are told apart where they are known."""

    state: EventState
    at: float
    actual: Amounts | None
    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False


class LedgerEvent(BaseModel):
    """A row of the ledger (source: agent-runtime, runtime_ledger).

    Money is in millionths of a dollar. While it is reserved, and when it is unknown, `total_tokens` and `cost_micro`
    are the reserved maximum. `lapsed`: its lease ran out. `estimated`: the counts are not the provider's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scope_id: str
    event_id: str
    type: str
    state: EventState
    timestamp: datetime
    ended_at: datetime | None = None
    principal_id: str
    role: str | None = None
    run_id: str | None = None
    job_id: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost_micro: int = 0
    requests: int = 0
    tool_calls: int = 0
    turns: int = 0
    runtime_ms: int = 0
    reserved_tokens: int = 0
    reserved_cost_micro: int = 0
    estimated: bool = False
    lapsed: bool = False
    priced: bool = True
    detail: str | None = None

    @property
    def cost(self) -> Decimal:
        """In dollars."""
        return Decimal(self.cost_micro) / MICRO

    @property
    def excess_tokens(self) -> int:
        """What was used beyond the reservation: the overshoot of this one call."""
        return max(0, self.total_tokens - self.reserved_tokens) if self.state is EventState.SETTLED else 0


class LedgerUsage(BaseModel):
    """Sums over events as budgets count them: `open` ones and `unknown` ones with their reserved maximum.

    A run that holds its whole budget is an open event as well, of what its calls have not drawn yet; UsageSums tells
    these apart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: int = 0
    open: int = 0
    unknown: int = 0
    estimated: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost_micro: int = 0
    requests: int = 0
    tool_calls: int = 0
    turns: int = 0
    runtime_ms: int = 0

    @property
    def cost(self) -> Decimal:
        """In dollars."""
        return Decimal(self.cost_micro) / MICRO


class Reservation(NamedTuple):
    """What is held back until it is settled or released."""

    scope_id: str
    reservation_id: str
    most: Amounts
    lease_until: float
