"""The table of actions, and how a row becomes a record. `resume_token` holds the SHA-256 of the token."""

from __future__ import annotations

from typing import Any

from agent_runtime.actions.records import ActionRecord
from agent_runtime.stores import assignments, facts_of, placeholders, to_json, to_seconds
from runtime_core.stores.migrations import Migration
from runtime_core.stores.sql import SqlValue

_CHANGING = "status, resolution, resolved_by, resolved_at, answer_id, reason, job_told, version"
COLUMNS = "scope_id, action_id, job_id, type, payload, created_at, expires_at, " + _CHANGING
VALUES = placeholders(COLUMNS)
ASSIGNMENTS = assignments(_CHANGING)

_NAMES = tuple(COLUMNS.split(", "))
_TIMES = frozenset({"created_at", "expires_at", "resolved_at"})
_JSON = frozenset({"payload", "resolution"})


def values_of(action: ActionRecord) -> tuple[SqlValue, ...]:
    """The values of COLUMNS."""
    return (
        action.scope_id,
        action.action_id,
        action.job_id,
        action.type,
        to_json(action.payload),
        to_seconds(action.created_at),
        to_seconds(action.expires_at),
        *changing_of(action),
    )


def changing_of(action: ActionRecord) -> tuple[SqlValue, ...]:
    """The values of ASSIGNMENTS."""
    return (
        action.status.value,
        to_json(action.resolution),
        action.resolved_by,
        to_seconds(action.resolved_at),
        action.answer_id,
        action.reason,
        int(action.job_told),
        action.version,
    )


def action_of(row: tuple[Any, ...]) -> ActionRecord:
    """The record of a row of COLUMNS."""
    return ActionRecord.model_validate(facts_of(row, _NAMES, times=_TIMES, json_values=_JSON))


MIGRATIONS = (
    Migration(
        version=1,
        statements=(
            "CREATE TABLE runtime_actions (scope_id {text} NOT NULL, action_id {text} NOT NULL, job_id {text},"
            " type {text} NOT NULL, status {text} NOT NULL, payload {json} NOT NULL, resolution {json},"
            " resolved_by {text}, answer_id {text}, job_told {int} NOT NULL, resume_token {text} NOT NULL,"
            " created_at {time} NOT NULL, expires_at {time}, resolved_at {time}, version {int} NOT NULL,"
            " PRIMARY KEY (scope_id, action_id))",
            "CREATE UNIQUE INDEX runtime_actions_token ON runtime_actions (scope_id, resume_token)",
            "CREATE INDEX runtime_actions_time ON runtime_actions (scope_id, created_at)",
            "CREATE INDEX runtime_actions_job ON runtime_actions (scope_id, job_id, created_at)"
            " WHERE job_id IS NOT NULL",
            "CREATE INDEX runtime_actions_expiry ON runtime_actions (expires_at)"
            " WHERE expires_at IS NOT NULL AND status = 'pending'",
            "CREATE INDEX runtime_actions_untold ON runtime_actions (resolved_at)"
            " WHERE resolved_at IS NOT NULL AND job_id IS NOT NULL AND job_told = 0",
            "CREATE INDEX runtime_actions_settled ON runtime_actions (scope_id, resolved_at)"
            " WHERE resolved_at IS NOT NULL",
        ),
    ),
    Migration(version=2, scoped=("runtime_actions",)),
    Migration(
        version=3,
        statements=(
            "CREATE INDEX runtime_actions_resolved ON runtime_actions (resolved_at) WHERE resolved_at IS NOT NULL",
        ),
    ),
    Migration(version=4, statements=("ALTER TABLE runtime_actions ADD COLUMN reason {text}",)),
)
