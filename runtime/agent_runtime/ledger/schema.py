"""The tables of the ledger, and how a row becomes a record."""

from __future__ import annotations

from typing import Any

from agent_runtime.ledger.amounts import MEASURES
from agent_runtime.ledger.records import Entry, EventState, LedgerEvent, Used
from agent_runtime.stores import from_seconds
from runtime_core.frozen import unchecked
from runtime_core.stores.migrations import Migration
from runtime_core.stores.sql import SqlValue

SPENT = tuple(f"spent_{measure}" for measure in MEASURES)
RESERVED = tuple(f"reserved_{measure}" for measure in MEASURES)
COUNTS = ", ".join((*SPENT, *RESERVED))

# What an event counts in the budgets' counters, in the order of MEASURES; total_tokens is its tokens.
TAKEN = ("total_tokens", "cost_micro", "requests", "tool_calls", "turns", "runtime_ms")

ENTRY_COLUMNS = (
    "scope_id, event_id, type, state, timestamp, at_second, lease_until, principal_id, role, run_id, counted, job_id,"
    " priced, detail, " + ", ".join(RESERVED) + ", " + ", ".join(TAKEN)
)

EVENT_COLUMNS = (
    "scope_id, event_id, type, state, timestamp, ended_at, principal_id, role, run_id, job_id, input_tokens,"
    " output_tokens, total_tokens, cost_micro, requests, tool_calls, turns, runtime_ms, reserved_tokens,"
    " reserved_cost_micro, estimated, lapsed, priced, detail"
)
HELD_COLUMNS = (
    "type, timestamp, principal_id, role, run_id, job_id, priced, detail, " + ", ".join(RESERVED) + ", counted"
)
"""What nobody but the row knows when an entry ends. To read a whole row costs more than to write it."""
_NAMES = tuple(EVENT_COLUMNS.split(", "))
STATE = _NAMES.index("state")
_TRUTHS = ("estimated", "lapsed", "priced")


def values_of(entry: Entry, counted: str) -> tuple[SqlValue, ...]:
    """The values of ENTRY_COLUMNS, for an entry that is reserved; `counted` names the counters that it is in."""
    return (
        entry.scope_id,
        entry.event_id,
        entry.type,
        "reserved",
        entry.at,
        int(entry.at),
        entry.lease_until,
        entry.principal_id,
        entry.role or "",
        entry.run_id or "",
        counted,
        entry.job_id,
        int(entry.priced),
        entry.detail,
        *entry.most,
        *entry.most,
    )


def event_of(row: tuple[Any, ...]) -> LedgerEvent:
    """The record of a row of EVENT_COLUMNS, which was checked when it was written."""
    facts: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    facts["state"] = EventState(facts["state"])
    facts["timestamp"], facts["ended_at"] = from_seconds(facts["timestamp"]), from_seconds(facts["ended_at"])
    facts["role"], facts["run_id"] = facts["role"] or None, facts["run_id"] or None
    for name in _TRUTHS:
        facts[name] = bool(facts[name])
    return unchecked(LedgerEvent, **facts)


def ended_row(
    scope_id: str, event_id: str, used: Used, taken: tuple[int, ...], was: tuple[Any, ...], *, lapsed: bool
) -> tuple[Any, ...]:
    """EVENT_COLUMNS of an entry that ended so and took that; `was` are its HELD_COLUMNS."""
    kind, timestamp, principal_id, role, run_id, job_id, priced, detail, tokens, cost_micro, *_ = was
    whose = (principal_id, role, run_id, job_id)
    counts = (used.input_tokens, used.output_tokens, *taken, tokens, cost_micro)
    facts = (int(used.estimated), int(lapsed), priced, detail)
    return (scope_id, event_id, kind, used.state.value, timestamp, used.at, *whose, *counts, *facts)


_COUNTERS = ", ".join(f"{name} {{int}} NOT NULL DEFAULT 0" for name in (*SPENT, *RESERVED))
_MAXIMA = ", ".join(f"{name} {{int}} NOT NULL DEFAULT 0" for name in RESERVED)
_TAKEN = ", ".join(f"{name} {{int}} NOT NULL DEFAULT 0" for name in TAKEN)


def _events(places: str) -> str:
    """The table of events, with the column of the `places` in which an event is counted."""
    return (
        "CREATE TABLE runtime_ledger (scope_id {text} NOT NULL, event_id {text} NOT NULL, type {text} NOT NULL,"
        " state {text} NOT NULL, timestamp {time} NOT NULL, at_second {int} NOT NULL, ended_at {time},"
        " lease_until {real}, principal_id {text} NOT NULL, role {text} NOT NULL, run_id {text} NOT NULL,"
        f" {places}, job_id {{text}}, input_tokens {{int}} NOT NULL DEFAULT 0,"
        " output_tokens {int} NOT NULL DEFAULT 0, " + _TAKEN + ", " + _MAXIMA + ","
        " estimated {int} NOT NULL DEFAULT 0, lapsed {int} NOT NULL DEFAULT 0, priced {int} NOT NULL DEFAULT 1,"
        " detail {text}, PRIMARY KEY (scope_id, event_id))"
    )


_EVENT_INDEXES = (
    "CREATE INDEX runtime_ledger_time ON runtime_ledger (scope_id, timestamp, event_id)",
    "CREATE INDEX runtime_ledger_run ON runtime_ledger (scope_id, run_id) WHERE run_id <> ''",
    "CREATE INDEX runtime_ledger_open ON runtime_ledger (lease_until)"
    " WHERE state = 'reserved' AND lease_until IS NOT NULL",
)
_ALL_EVENT_COLUMNS = ENTRY_COLUMNS + ", ended_at, input_tokens, output_tokens, estimated, lapsed"

MIGRATIONS = (
    Migration(
        version=1,
        statements=(
            "CREATE TABLE ledger_budgets (scope_id {text} NOT NULL, principal_id {text} NOT NULL, role {text} NOT NULL,"
            " run_id {text} NOT NULL, parent_run_id {text} NOT NULL, budget {json} NOT NULL, set_at {time} NOT NULL,"
            " PRIMARY KEY (scope_id, principal_id, role, run_id))",
            "CREATE TABLE ledger_counters (scope_id {text} NOT NULL, principal_id {text} NOT NULL,"
            " role {text} NOT NULL, run_id {text} NOT NULL, period {text} NOT NULL, ends_at {int}, "
            + _COUNTERS
            + ", PRIMARY KEY (scope_id, principal_id, role, run_id, period))",
            "CREATE INDEX ledger_counters_end ON ledger_counters (ends_at) WHERE ends_at IS NOT NULL",
            _events("runs {text} NOT NULL"),
            "CREATE INDEX runtime_ledger_second ON runtime_ledger (scope_id, at_second)",
            *_EVENT_INDEXES,
        ),
    ),
    Migration(
        version=2,
        statements=(
            "ALTER TABLE ledger_budgets ADD COLUMN removed {int} NOT NULL DEFAULT 0",
            "ALTER TABLE runtime_ledger ADD COLUMN counted {text} NOT NULL DEFAULT ''",
            "ALTER TABLE runtime_ledger DROP COLUMN runs",
            "DROP INDEX runtime_ledger_second",
            # They are made again from the events, and the events learn that they are in them.
            "DELETE FROM ledger_counters",
        ),
    ),
    Migration(
        version=3,
        statements=(
            "CREATE TABLE ledger_runs (scope_id {text} NOT NULL, run_id {text} NOT NULL, parent_run_id {text} NOT NULL,"
            " holds {int} NOT NULL, lease_until {real} NOT NULL, PRIMARY KEY (scope_id, run_id))",
            "CREATE INDEX ledger_runs_lease ON ledger_runs (lease_until)",
        ),
    ),
    Migration(version=4, scoped=("ledger_budgets", "ledger_counters", "runtime_ledger", "ledger_runs")),
    # SQLite keeps a table in the order of a number of its own, and the primary key beside it as an index: a page more
    # for every event that is written.
    Migration(
        version=5,
        only="sqlite",
        statements=(
            "ALTER TABLE runtime_ledger RENAME TO events_before",
            _events("counted {text} NOT NULL DEFAULT ''") + " WITHOUT ROWID",
            f"INSERT INTO runtime_ledger ({_ALL_EVENT_COLUMNS})"
            f" SELECT {_ALL_EVENT_COLUMNS} FROM events_before ORDER BY scope_id, event_id",
            "DROP TABLE events_before",
            *_EVENT_INDEXES,
        ),
    ),
)
