"""The ledger around an engine of llm_client: no model call without its reservation.

    accounts = EngineLedger(database, router=router)
    engine = ExecutionEngine(router=router, guard=accounts.guard, log=accounts.log)

The reservation and the call's row are one transaction, and so are the settlement, the row's end and the kept answer:
no crash falls between them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agent_runtime.ledger import budget_ops, ops
from agent_runtime.ledger.amounts import Amounts
from agent_runtime.ledger.budgets import Account, Limit
from agent_runtime.ledger.decide import Refusal
from agent_runtime.ledger.records import MODEL, Entry, EventState, Used
from agent_runtime.ledger.schema import MIGRATIONS
from agent_runtime.ledger.worst_case import DEFAULT_MAX_TOKENS, choices, input_bound, turns_of, worst_case
from llm_client.assembly import OwnAndRouted
from llm_client.guard import Admission, AdmissionChanged, NoLease
from llm_client.prices import PriceBook
from llm_client.providers.protocol import Provider, Router
from llm_client.spec import EmbeddingSpec, RequestSpec
from runtime_core.call_log import keys
from runtime_core.call_log import ops as call_ops
from runtime_core.call_log.keys import Claim, Completion
from runtime_core.call_log.log import CallLog
from runtime_core.call_log.records import Attempt, AttemptStatus, Ending, LoggedAttempt
from runtime_core.clock import Clock, SystemClock
from runtime_core.stores.database import Database
from runtime_core.stores.failpoints import failpoint
from runtime_core.stores.migrations import migrate
from runtime_core.stores.sql import Op

COUNTERS_KEPT_S = 2 * 86_400.0
_MOST_KNOWN = 10_000
_NONE = frozenset[Limit]()


@dataclass(slots=True)
class Bound:
    """What only the request tells of an attempt's worst case, and the entry that it made.

    `most` is what its answer was bounded by, because of `limits`; both are None where the caller or the role did.
    """

    input_tokens: int
    answers: int
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
    budget in tokens or money where nobody else has bounded it.
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
    ) -> None:
        bounds = Bounds(default_max_tokens)
        self.guard = LedgerGuard(bounds)
        self.log = LedgerLog(
            database, bounds, OwnAndRouted(provider, router), prices=prices, clock=clock or SystemClock()
        )


class LedgerGuard:
    """Measures every request, and bounds answers that nobody has bounded; the refusal is the log's."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds

    async def begin(self, attempt: Attempt, request: RequestSpec | EmbeddingSpec) -> BoundedLease:
        bound = Bound(input_bound(request), choices(request))
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
    ) -> None:
        super().__init__(database, clock=clock)
        self._bounds = bounds
        self._providers = providers
        self._prices = prices

    async def prepare(self) -> None:
        await super().prepare()
        await migrate(self._database, "runtime_ledger", MIGRATIONS)

    async def reserve(self, attempt: Attempt) -> None:
        bound = self._bounds.get(attempt.attempt_id)
        if bound is None:
            raise ValueError("A LedgerLog is for an engine with the guard of the same EngineLedger.")
        entry = self._entry(attempt)
        failpoint("call_log.before_reserve")
        refusal = await self._database.run(lambda: _reserve(attempt, entry))
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
        row = await self._database.run(lambda: _end(attempt, ending, entry))
        failpoint("call_log.after_end")
        self._bounds.pop(attempt.attempt_id, None)
        return row

    async def end_with_claim(self, attempt: Attempt, ending: Ending, claim: Claim) -> Completion:
        entry, now = self._entry(attempt), self.now()
        failpoint("call_log.before_end")
        completion = await self._database.run(lambda: _end_with_claim(attempt, ending, claim, entry, now))
        failpoint("call_log.after_end")
        self._bounds.pop(attempt.attempt_id, None)
        return completion

    async def expire(self, *, limit: int = 1000) -> list[LoggedAttempt]:
        now = self.now()
        return await self._database.run(lambda: _expire(now, limit))

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
            bounded_by=bound.limits,
        )


def _reserve(attempt: Attempt, entry: Entry) -> Op[Refusal | None]:
    refusal = yield from ops.reserve(entry)
    if refusal is None:
        yield from call_ops.reserve(attempt)
    return refusal


def _end(attempt: Attempt, ending: Ending, entry: Entry) -> Op[LoggedAttempt]:
    row = yield from call_ops.end(attempt, ending)
    yield from _settle(row, entry)
    return row


def _end_with_claim(attempt: Attempt, ending: Ending, claim: Claim, entry: Entry, now: float) -> Op[Completion]:
    completion = yield from keys.end_with_claim(attempt, ending, claim, now)
    yield from _settle(completion.attempt, entry)
    return completion


def _expire(now: float, limit: int) -> Op[list[LoggedAttempt]]:
    rows = yield from call_ops.expire(now, limit)
    for row in rows:
        yield from ops.lapse(row.attempt.scope_id, row.attempt.attempt_id, now)
    yield from ops.expire(now, limit)
    yield from budget_ops.forget_counters(now - COUNTERS_KEPT_S, limit)
    return rows


def _settle(row: LoggedAttempt, entry: Entry) -> Op[None]:
    """What the row says, whoever wrote it. A call that began before there was a ledger is counted all the same."""
    used = _used(row)
    if not (yield from ops.end(entry.scope_id, entry.event_id, used)):
        yield from ops.record(entry, used)


def _used(row: LoggedAttempt) -> Used:
    ending, attempt = row.ending, row.attempt
    assert ending is not None, "a row that was ended"
    if ending.status is AttemptStatus.RELEASED:
        return Used(EventState.RELEASED, ending.ended_at, Amounts(turns=turns_of(attempt)))
    if ending.status is AttemptStatus.UNKNOWN or ending.usage is None:
        # An estimate could be below what the provider counts; the reserved maximum cannot.
        return Used(EventState.UNKNOWN, ending.ended_at, None, estimated=True)
    usage = ending.usage
    actual = Amounts(
        tokens=usage.input + usage.output, cost_micro=ending.cost_micro or 0, requests=1, turns=turns_of(attempt)
    )
    return Used(EventState.SETTLED, ending.ended_at, actual, usage.input, usage.output, usage.estimated)


def _account(attempt: Attempt) -> Account:
    return Account(attempt.scope_id, attempt.principal_id, attempt.role, attempt.run_id or "")


def _any_run(account: Account) -> Account:
    return Account(account.scope_id, account.principal_id, account.role)


def _rooms(limits: Iterable[Limit], bound: Bound) -> list[int]:
    """For each limit in tokens, the longest answer with which the request would fit into it alone."""
    rooms = [(limit.most - bound.input_tokens) // bound.answers for limit in limits if limit.measure == "tokens"]
    return [room for room in rooms if room >= 1]
