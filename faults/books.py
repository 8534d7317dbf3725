"""What a scenario leaves behind: the provider's log on one side, the store's books on the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from agent_runtime.ledger.budgets import Account, Budget
from agent_runtime.ledger.records import LedgerEvent
from llmhub_runtime.sim import LogEntry
from runtime_core.call_log.records import LoggedAttempt


@dataclass(frozen=True, slots=True)
class Counted:
    """A counter as it was found: what an account has spent and reserved in a period, in the order of MEASURES."""

    account: Account
    period: str
    spent: tuple[int, ...]
    reserved: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class KeyedCall:
    """An idempotency key: every answer that somebody was given, the requests made for it, the crashes meanwhile."""

    scope_id: str
    key: str
    answers: tuple[str, ...]
    requests: int
    crashes: int = 0


@dataclass(frozen=True, slots=True)
class Rates:
    """Dollars for a million tokens, as the provider charges them."""

    input: Decimal
    output: Decimal


@dataclass(frozen=True, slots=True)
class Books:
    """All of it, read when nothing is in flight any more and every lease has run out.

    `requests` are the model calls of the provider's log, `history` every state that a counter was ever committed in.
    `rates` are by model; a model without any has no price.
    """

    requests: Sequence[LogEntry] = ()
    rows: Sequence[LoggedAttempt] = ()
    events: Sequence[LedgerEvent] = ()
    budgets: Sequence[Budget] = ()
    counters: Sequence[Counted] = ()
    history: Sequence[Counted] = ()
    keyed: Sequence[KeyedCall] = ()
    rates: Mapping[str, Rates] = field(default_factory=dict[str, Rates])

    def summary(self) -> str:
        """How much was compared."""
        states = Counter(row.status.value for row in self.rows)
        told = ", ".join(f"{states[name]:,} {name}" for name in ("settled", "released", "unknown") if states[name])
        tokens = sum(event.total_tokens for event in self.events)
        return (
            f"{len(self.requests):,} requests in the provider's log, {len(self.rows):,} attempts ({told}), "
            f"{tokens:,} tokens, {len(self.counters):,} counters in {len(self.history):,} states"
        )
