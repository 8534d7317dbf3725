"""`ops.reserve` and `ops.end` for the attempts of many callers at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TypeAlias

from runtime_core.call_log import ops
from runtime_core.call_log.ops import Kept
from runtime_core.call_log.records import LEASE_LAPSED, Attempt, AttemptKey, AttemptStatus, Ending, LoggedAttempt
from runtime_core.call_log.schema import ATTEMPT_COLUMNS, just_ended, values_of, values_of_ending
from runtime_core.stores.joint import Apart, by_rows
from runtime_core.stores.sql import REAL, TEXT, WHOLE, Op, Sql, SqlValue, with_rows

Ended: TypeAlias = tuple[Attempt, Ending]

_RESERVE = (
    "INSERT INTO calls (" + ATTEMPT_COLUMNS + ", status) VALUES {rows} ON CONFLICT (scope_id, attempt_id) DO NOTHING"
)
_RESERVED_ROW = "?" * len((ATTEMPT_COLUMNS + ", status").split(", "))
_END = (
    "UPDATE calls SET status = e.column3, ended_at = e.column4, input_tokens = e.column5, output_tokens = e.column6,"
    " cached_tokens = e.column7, reasoning_tokens = e.column8, usage_estimated = e.column9, cost_micro = e.column10,"
    " error = e.column11, answer_hash = e.column12 FROM (VALUES {rows}) AS e"
    " WHERE calls.scope_id = e.column1 AND calls.attempt_id = e.column2"
    " AND (calls.status = 'reserved' OR (calls.status = 'unknown' AND calls.error = '" + LEASE_LAPSED + "'))"
    " RETURNING calls.scope_id, calls.attempt_id"
)
_ENDED_ROW = (TEXT, TEXT, TEXT, REAL, *[WHOLE] * 6, TEXT, TEXT)


def reserve(attempts: Sequence[Attempt]) -> Op[list[None]]:
    """`ops.reserve` for each. Raises Apart where one was reserved before."""
    if len(attempts) == 1:
        yield from ops.reserve(attempts[0])
        return [None]
    for some in by_rows(attempts):
        params = tuple(chain.from_iterable((*values_of(each), AttemptStatus.RESERVED.value) for each in some))
        [(written,)] = yield Sql(with_rows(_RESERVE, _RESERVED_ROW, len(some)), params, counts=True)
        if written < len(some):
            raise Apart("Some of these attempts were reserved before.")
    return [None] * len(attempts)


def end(ended: Sequence[Ended]) -> Op[list[LoggedAttempt]]:
    """`ops.end` for each. Raises Apart where one was not reserved, or not yet."""
    if len(ended) == 1:
        return [(yield from ops.end(*ended[0]))]
    rows: dict[AttemptKey, LoggedAttempt] = {}
    # Of several endings of one attempt the first wins.
    for some in by_rows(list({attempt.key: (attempt, ending) for attempt, ending in reversed(ended)}.values())):
        rows |= yield from _end(some)
    found: list[LoggedAttempt] = []
    for attempt, _ in ended:
        row = rows.get(attempt.key) or (yield from ops.find(attempt.key))
        if row is None:
            raise Apart("Some of these attempts are not reserved.")
        found.append(row)
    return found


def _end(some: Sequence[Ended]) -> Op[dict[AttemptKey, LoggedAttempt]]:
    """The rows that these endings were written to."""
    kept = [ops.to_keep(*each) for each in some]
    hashes = [None if each is None else each.answer_hash for each in kept]
    params = tuple(chain.from_iterable(map(_values, some, hashes)))
    written = set((yield Sql(with_rows(_END, _ENDED_ROW, len(some)), params)))
    yield from _keep([each for each, (attempt, _) in zip(kept, some, strict=True) if attempt.key in written])
    return {
        attempt.key: just_ended(attempt, ending, answer_hash)
        for (attempt, ending), answer_hash in zip(some, hashes, strict=True)
        if attempt.key in written
    }


def _keep(kept: Sequence[Kept | None]) -> Op[None]:
    newest: dict[tuple[str, str], Kept] = {}
    for each in sorted(filter(None, kept), key=lambda each: each.kept_at):
        newest[each.scope_id, each.answer_hash] = each
    for some in by_rows(list(newest.values())):
        yield from ops.keep(some)


def _values(ended: Ended, answer_hash: str | None) -> tuple[SqlValue, ...]:
    attempt, ending = ended
    return (attempt.scope_id, attempt.attempt_id, *values_of_ending(ending, answer_hash))
