"""The ledger around an engine of llm_client: no model call without its reservation.

    accounts = EngineLedger(database, router=router)
    engine = ExecutionEngine(router=router, guard=accounts.guard, log=accounts.log)

The reservation and the call's row are one transaction, and so are the settlement, the row's end and the kept answer:
no crash falls between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from agent_runtime.ledger import retention
from agent_runtime.ledger.budgets import Account, Limit
from agent_runtime.ledger.records import MODEL, Entry
from agent_runtime.ledger.transactions import (
    EXPIRED_TOGETHER,
    LedgerTransactions,
    StoredTransactions,
    expire_attempts,
    forget_counters,
    prepare_ledger,
)
from agent_runtime.ledger.worst_case import DEFAULT_MAX_TOKENS, choices, input_bound, worst_case
from llm_client.assembly import OwnAndRouted
from llm_client.guard import Admission, AdmissionChanged, NoLease
from llm_client.prices import PriceBook
from llm_client.providers.protocol import Provider, Router
from llm_client.spec import EmbeddingSpec, RequestSpec
from runtime_core.call_log.keys import Claim, Completion
from runtime_core.call_log.log import CallLog
from runtime_core.call_log.records import Attempt, Ending, LoggedAttempt
from runtime_core.clock import Clock, SystemClock
from runtime_core.stores.database import Database
from runtime_core.stores.failpoints import failpoint
from runtime_core.stores.scope import everywhere, in_scope_or_everywhere

_MOST_KNOWN = 10_000
_NONE = frozenset[Limit]()


@dataclass(slots=True)
class Bound:
    """What only the request tells of an attempt's worst case, whether its run has a budget, and the entry it made.

    `most` is what its answer was bounded by, because of `limits`; both are None where the caller or the role did.
    """

    input_tokens: int
    answers: int
    budgeted: bool = False
    most: int | None = None
    limits: frozenset[Limit] | None = None
    entry: Entry | None = None


class Bounds(dict[str, Bound]):
    """The bounds of the attempts in flight, and the limits of their accounts as the log has last seen them."""

    def __init__(self, default_max_tokens: int) -> None:
        super().__init__()
        self._default = default_max_tokens
        self._limits: dict[Account, frozenset[Limit]] = {}

    def bound_answer(self, bound: Bound, account: Account) -> None:
        """By a guess, which the log makes sure of: the limits of the account, or of its last run."""
        known = self._limits.get(account)
        self._apply(bound, self._limits.get(_any_run(account), _NONE) if known is None else known)

    def learn(self, bound: Bound, account: Account, limits: frozenset[Limit]) -> None:
        """These apply: the attempt has to go by them, and so will the next ones."""
        if len(self._limits) >= _MOST_KNOWN:
            self._limits.clear()
        self._limits[account] = self._limits[_any_run(account)] = limits
        self._apply(bound, limits)

    def _apply(self, bound: Bound, limits: frozenset[Limit]) -> None:
        """The default under a budget, but not more than the smallest budget in tokens could ever allow."""
        bound.limits, bound.entry = limits, None
        bound.most = min([self._default, *_rooms(limits, bound)]) if limits else None


class EngineLedger:
    """A guard and a log that belong together, for one engine, on a database that the caller opens and closes.

    `provider` and `router` are the engine's, and so are the `prices`. `default_max_tokens` bounds an answer under a
    budget in tokens or money where nobody else has bounded it. `in_budgeted_run` says whether the call that is about to
    be made belongs to a run that has a budget, without which it may use nothing. `transactions` commits the
    reservations and settlements elsewhere than on the database itself, into the same tables.
    """

    def __init__(
        self,
        database: Database,
        *,
        provider: Provider | None = None,
        router: Router | None = None,
        prices: PriceBook | None = None,
        clock: Clock | None = None,
        default_max_tokens: int = DEFAULT_MAX_TOKENS,
        in_budgeted_run: Callable[[], bool] = lambda: False,
        transactions: LedgerTransactions | None = None,
    ) -> None:
        bounds = Bounds(default_max_tokens)
        self.guard = LedgerGuard(bounds, in_budgeted_run=in_budgeted_run)
        self.log = LedgerLog(
            database,
            bounds,
            OwnAndRouted(provider, router),
            prices=prices,
            clock=clock or SystemClock(),
            transactions=transactions,
        )


class LedgerGuard:
    """Measures every request, and bounds answers that nobody has bounded; the refusal is the log's."""

    def __init__(self, bounds: Bounds, *, in_budgeted_run: Callable[[], bool] = lambda: False) -> None:
        self._bounds = bounds
        self._in_budgeted_run = in_budgeted_run

    async def begin(self, attempt: Attempt, request: RequestSpec | EmbeddingSpec) -> BoundedLease:
        bound = Bound(input_bound(request), choices(request), self._in_budgeted_run())
        if isinstance(request, RequestSpec) and attempt.max_output_tokens is None:
            self._bounds.bound_answer(bound, _account(attempt))
        self._bounds[attempt.attempt_id] = bound
        return BoundedLease(self._bounds, attempt.attempt_id)


class BoundedLease(NoLease):
    """What the log has settled needs no other end; here only the note is dropped of what was never reserved."""

    def __init__(self, bounds: Bounds, attempt_id: str) -> None:
        self._bounds = bounds
        self._attempt_id = attempt_id

    @property
    def admission(self) -> Admission:
        return Admission(max_tokens=self._bounds[self._attempt_id].most)

    async def end(self, ending: Ending) -> None:
        self._bounds.pop(self._attempt_id, None)


class LedgerLog(CallLog):
    """A call log whose attempts are reserved in the ledger too.

    `reserve` also raises BudgetExceededError and AdmissionChanged.
    """

    def __init__(
        self,
        database: Database,
        bounds: Bounds,
        providers: OwnAndRouted,
        *,
        prices: PriceBook | None,
        clock: Clock,
        transactions: LedgerTransactions | None = None,
    ) -> None:
        super().__init__(database, clock=clock)
        self._transactions = transactions or StoredTransactions(database)
        self._bounds = bounds
        self._providers = providers
        self._prices = prices

    async def prepare(self) -> None:
        await prepare_ledger(self._database)

    async def reserve(self, attempt: Attempt) -> None:
        bound = self._bounds.get(attempt.attempt_id)
        if bound is None:
            raise ValueError("A LedgerLog is for an engine with the guard of the same EngineLedger.")
        entry = self._entry(attempt)
        failpoint("call_log.before_reserve")
        refusal = await self._transactions.reserve(attempt, entry)
        failpoint("call_log.after_reserve")
        if refusal is None:
            return
        if refusal.bounding is not None:
            self._bounds.learn(bound, entry.account, refusal.bounding)
            raise AdmissionChanged
        raise refusal.error()

    async def end(self, attempt: Attempt, ending: Ending) -> LoggedAttempt:
        entry = self._entry(attempt)
        failpoint("call_log.before_end")
        row = await self._transactions.end(attempt, ending, entry)
        failpoint("call_log.after_end")
        self._bounds.pop(attempt.attempt_id, None)
        return row

    async def end_with_claim(self, attempt: Attempt, ending: Ending, claim: Claim) -> Completion:
        entry, now = self._entry(attempt), self.now()
        failpoint("call_log.before_end")
        completion = await self._transactions.end_with_claim(attempt, ending, entry, claim=claim, now=now)
        failpoint("call_log.after_end")
        self._bounds.pop(attempt.attempt_id, None)
        return completion

    async def expire(self, *, limit: int = 1000) -> list[LoggedAttempt]:
        now, ended = self.now(), list[LoggedAttempt]()
        for left in range(limit, 0, -EXPIRED_TOGETHER):
            lapsed = await self._database.run(everywhere(partial(expire_attempts, now, min(EXPIRED_TOGETHER, left))))
            ended += lapsed.attempts
            if not lapsed.more:
                break
        await self._database.run(everywhere(partial(forget_counters, now)))
        return ended

    async def forget(self, *, older_than: float, scope_id: str | None = None, limit: int = 1000) -> int:
        """Of the ledger's events too: budgets have counted them, and only one that is set later does not see them."""
        attempts = await super().forget(older_than=older_than, scope_id=scope_id, limit=limit)
        events = await self._database.run(
            in_scope_or_everywhere(scope_id, lambda: retention.forget_events(scope_id, older_than, limit))
        )
        return attempts + events

    def _entry(self, attempt: Attempt) -> Entry:
        """What the attempt may take."""
        bound = self._bounds.get(attempt.attempt_id) or Bound(0, 1)
        if bound.entry is None:
            bound.entry = self._measured(attempt, bound)
        return bound.entry

    def _measured(self, attempt: Attempt, bound: Bound) -> Entry:
        target = self._providers.provider(attempt.role).target
        most, priced = worst_case(
            attempt, target, input_tokens=bound.input_tokens, answers=bound.answers, prices=self._prices
        )
        return Entry(
            scope_id=attempt.scope_id,
            event_id=attempt.attempt_id,
            type=MODEL,
            at=attempt.reserved_at,
            most=most,
            principal_id=attempt.principal_id,
            role=attempt.role,
            run_id=attempt.run_id,
            job_id=attempt.job_id,
            priced=priced,
            budgeted=bound.budgeted,
            bounded_by=bound.limits,
        )


def _account(attempt: Attempt) -> Account:
    return Account(attempt.scope_id, attempt.principal_id, attempt.role, attempt.run_id or "")


def _any_run(account: Account) -> Account:
    return Account(account.scope_id, account.principal_id, account.role)


def _rooms(limits: Iterable[Limit], bound: Bound) -> list[int]:
    """For each limit in tokens, the longest answer with which the request would fit into it alone."""
    rooms = [(limit.most - bound.input_tokens) // bound.answers for limit in limits if limit.measure == "tokens"]
    return [room for room in rooms if room >= 1]
