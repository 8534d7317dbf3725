"""What is done to actions, as operations; `sql_store` runs them on a database."""

from __future__ import annotations

from datetime import datetime

from agent_runtime.actions.machine import ActionEvent, transition
from agent_runtime.actions.records import ActionRecord
from agent_runtime.actions.schema import ASSIGNMENTS, COLUMNS, VALUES, action_of, changing_of, values_of
from agent_runtime.actions.store import ActionCursor, ActionFilter
from agent_runtime.errors import ActionConflictError, ActionNotFoundError
from runtime_core.stores.sql import Op, Sql, where

_SELECT = "SELECT " + COLUMNS + " FROM runtime_actions"
_FIND = _SELECT + " WHERE scope_id = ? AND action_id = ?"
_FIND_BY_TOKEN = _SELECT + " WHERE scope_id = ? AND resume_token = ?"
_INSERT = "INSERT INTO runtime_actions (" + COLUMNS + ", resume_token) VALUES (" + VALUES + ", ?)"
_NEW_TOKEN = "UPDATE runtime_actions SET resume_token = ? WHERE scope_id = ? AND action_id = ? AND status = 'pending'"
_UPDATE = "UPDATE runtime_actions SET " + ASSIGNMENTS + " WHERE scope_id = ? AND action_id = ?"
_DUE = _SELECT + " WHERE status = 'pending' AND expires_at <= ? ORDER BY expires_at LIMIT ?"
_UNTOLD = (
    _SELECT + " WHERE resolved_at IS NOT NULL AND job_id IS NOT NULL AND job_told = 0 ORDER BY resolved_at LIMIT ?"
)
_OLD = "resolved_at < ? AND (job_id IS NULL OR job_told = 1)"  # a job that is not told yet would wait for ever
_FORGET = (
    "DELETE FROM runtime_actions WHERE (scope_id, action_id) IN (SELECT scope_id, action_id FROM runtime_actions"
    " WHERE " + _OLD + "{whose} ORDER BY resolved_at LIMIT ?)"
)


def create(action: ActionRecord, token_hash: str) -> Op[ActionRecord]:
    """Insert the action; one of its id that asks for the same gets the new token. Raises ActionConflictError."""
    there = yield from find(action.scope_id, action.action_id)
    if there is None:
        yield Sql(_INSERT, (*values_of(action), token_hash))
        return action
    if (there.type, there.job_id, there.payload) != (action.type, action.job_id, action.payload):
        raise ActionConflictError(
            f"Action {action.action_id!a} asks for something else already; use a new id.",
            action_id=action.action_id,
            status=there.status.value,
        )
    yield Sql(_NEW_TOKEN, (token_hash, action.scope_id, action.action_id))
    return there


def find(scope_id: str, action_id: str) -> Op[ActionRecord | None]:
    rows = yield Sql(_FIND, (scope_id, action_id))
    return action_of(rows[0]) if rows else None


def find_by_token(scope_id: str, token_hash: str) -> Op[ActionRecord | None]:
    rows = yield Sql(_FIND_BY_TOKEN, (scope_id, token_hash))
    return action_of(rows[0]) if rows else None


def apply(scope_id: str, action_id: str, event: ActionEvent, now: datetime) -> Op[ActionRecord]:
    """`transition` of the stored action. Raises ActionNotFoundError and ActionConflictError."""
    action = yield from find(scope_id, action_id)
    if action is None:
        raise ActionNotFoundError(f"There is no action {action_id!a} in this scope.", action_id=action_id)
    after = transition(action, event, now)
    if after is not action:
        yield Sql(_UPDATE, (*changing_of(after), scope_id, action_id))
    return after


def newest(scope_id: str, which: ActionFilter, after: ActionCursor | None, limit: int) -> Op[list[ActionRecord]]:
    asked, params = where(("status = ?", which.status and which.status.value), ("job_id = ?", which.job_id))
    if after is not None:
        asked += " AND (created_at, action_id) < (?, ?)"
        params += [after.created_at, after.action_id]
    text = _SELECT + " WHERE scope_id = ?" + asked + " ORDER BY created_at DESC, action_id DESC LIMIT ?"
    rows = yield Sql(text, (scope_id, *params, limit))
    return [action_of(row) for row in rows]


def due(now: datetime, limit: int) -> Op[list[ActionRecord]]:
    rows = yield Sql(_DUE, (now.timestamp(), limit))
    return [action_of(row) for row in rows]


def untold(limit: int) -> Op[list[ActionRecord]]:
    rows = yield Sql(_UNTOLD, (limit,))
    return [action_of(row) for row in rows]


def forget(scope_id: str | None, older_than: float, limit: int) -> Op[int]:
    """Delete up to `limit` that settled before `older_than`, of one scope or of all; how many."""
    whose, params = where(("scope_id = ?", scope_id))
    [(gone,)] = yield Sql(_FORGET.format(whose=whose), (older_than, *params, limit), counts=True)
    return gone
