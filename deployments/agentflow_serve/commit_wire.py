"""Commands to the ledger and their answers, as they cross to the shared actor and back: plain tuples.

Both ends run the same release, and what is sent was checked when it was made; so nothing is checked again.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from operator import attrgetter
from typing import Any

from agent_runtime.ledger import transactions
from agent_runtime.ledger.amounts import Amounts
from agent_runtime.ledger.budgets import Account
from agent_runtime.ledger.decide import Refusal
from agent_runtime.ledger.records import Entry
from agent_runtime.ledger.windows import Window
from runtime_core.call_log.keys import Answer, Claim, Completion, Conflict, Done, InFlight, KeyState
from runtime_core.call_log.records import Attempt, AttemptStatus, CallKind, Ending, LoggedAttempt, Usage
from runtime_core.call_log.schema import just_ended, values_of
from runtime_core.frozen import unchecked
from runtime_core.stores.scope import in_scope
from runtime_core.stores.sql import OpFactory

WireCommand = tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...] | None, tuple[Any, ...] | None]
WireAnswer = tuple[bool, Any]
"""True and the result, or False and the error that the command raised."""

_ATTEMPT_FIELDS = tuple(Attempt.model_fields)
_ENTRY_FIELDS = tuple(field.name for field in fields(Entry) if field.name != "most")
_facts_of = attrgetter(*_ENTRY_FIELDS)
_REFUSAL_FIELDS = tuple(field.name for field in fields(Refusal))
_USAGE_FIELDS = tuple(Usage.model_fields)
_counts_of = attrgetter(*_USAGE_FIELDS)


@dataclass(frozen=True, slots=True)
class Command:
    """One transaction: without an `ending` a reservation; with a `claim` its key gets the answer, at `now`."""

    attempt: Attempt
    entry: Entry
    ending: Ending | None = None
    claim: Claim | None = None
    now: float = 0.0

    def op_factory(self, *, sent: bool = False) -> OpFactory[Any]:
        """`sent`: another writer may be about to run it too."""
        attempt, entry, ending, claim = self.attempt, self.entry, self.ending, self.claim
        if ending is None:
            if sent:
                return in_scope(attempt.scope_id, lambda: transactions.reserve_for_good(attempt, entry))
            return transactions.reserving(attempt, entry)
        if claim is None:
            return transactions.ending_of(attempt, ending, entry)
        return transactions.completing(attempt, ending, entry, claim, self.now)


def command_to_wire(command: Command) -> WireCommand:
    ending, claim = command.ending, command.claim
    return (
        values_of(command.attempt),
        _entry_to_wire(command.entry),
        None if ending is None else _ending_to_wire(ending),
        None if claim is None else (*astuple(claim), command.now),
    )


def command_from_wire(wire: WireCommand) -> Command:
    values, held, ending, claim = wire
    attempt, entry = _attempt(values), _entry(held)
    if ending is None:
        return Command(attempt, entry)
    if claim is None:
        return Command(attempt, entry, _ending(ending))
    *facts, now = claim
    return Command(attempt, entry, _ending(ending), Claim(*facts), now)


def result_to_wire(command: Command, result: Refusal | LoggedAttempt | Completion | None) -> Any:
    """A row that the command itself has ended is its answer's hash: whoever sent the command knows the rest."""
    match result:
        case None:
            return None
        case Refusal():
            plain = {"account": tuple(result.account), "window": result.window.value}
            return tuple(plain.get(name, getattr(result, name)) for name in _REFUSAL_FIELDS)
        case LoggedAttempt():
            return _row_to_wire(command, result)
        case Completion():
            return _row_to_wire(command, result.attempt), _key_to_wire(result.key)


def result_from_wire(command: Command, wire: Any) -> Refusal | LoggedAttempt | Completion | None:
    if command.ending is None:
        return _refusal(wire)
    if command.claim is None:
        return _row(command, wire)
    row, key = wire
    return Completion(_row(command, row), _key(key))


def _refusal(wire: Any) -> Refusal | None:
    if wire is None:
        return None
    facts = dict(zip(_REFUSAL_FIELDS, wire, strict=True))
    return Refusal(**{**facts, "account": Account(*facts["account"]), "window": Window(facts["window"])})


def _row(command: Command, wire: Any) -> LoggedAttempt:
    if wire is None or isinstance(wire, str):
        assert command.ending is not None
        return just_ended(command.attempt, command.ending, wire)
    values, status, ending, answer_hash = wire
    return LoggedAttempt(
        attempt=_attempt(values), status=AttemptStatus(status), ending=_ending(ending), answer_hash=answer_hash
    )


def _row_to_wire(command: Command, row: LoggedAttempt) -> Any:
    if row.attempt is command.attempt:
        return row.answer_hash
    assert row.ending is not None, "a row that was ended"
    return values_of(row.attempt), row.status.value, _ending_to_wire(row.ending), row.answer_hash


def _attempt(values: tuple[Any, ...]) -> Attempt:
    facts = dict(zip(_ATTEMPT_FIELDS, values, strict=True))
    facts["kind"] = CallKind(facts["kind"])
    return unchecked(Attempt, **facts)


def _entry_to_wire(entry: Entry) -> tuple[Any, ...]:
    return (tuple(entry.most), *_facts_of(entry))


def _entry(wire: tuple[Any, ...]) -> Entry:
    most, *facts = wire
    return Entry(most=Amounts(*most), **dict(zip(_ENTRY_FIELDS, facts, strict=True)))


def _ending_to_wire(ending: Ending) -> tuple[Any, ...]:
    usage = None if ending.usage is None else _counts_of(ending.usage)
    return ending.status.value, ending.ended_at, usage, ending.cost_micro, ending.error, ending.answer


def _ending(wire: tuple[Any, ...]) -> Ending:
    status, ended_at, usage, cost_micro, error, answer = wire
    return unchecked(
        Ending,
        status=AttemptStatus(status),
        ended_at=ended_at,
        usage=None if usage is None else unchecked(Usage, **dict(zip(_USAGE_FIELDS, usage, strict=True))),
        cost_micro=cost_micro,
        error=error,
        answer=answer,
    )


def _key_to_wire(key: KeyState | None) -> tuple[Any, ...] | None:
    match key:
        case None:
            return None
        case Done(answer):
            return "done", answer.attempt_id, answer.text
        case InFlight(owner, lease_until):
            return "in_flight", owner, lease_until
        case Conflict(request_hash):
            return "conflict", request_hash


def _key(wire: tuple[Any, ...] | None) -> KeyState | None:
    match wire:
        case None:
            return None
        case ("done", attempt_id, text):
            return Done(Answer(attempt_id, text))
        case ("in_flight", owner, lease_until):
            return InFlight(owner, lease_until)
        case (_, request_hash):
            return Conflict(request_hash)
