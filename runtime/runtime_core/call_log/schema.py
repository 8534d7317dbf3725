"""The tables of the call log, and how a row becomes a record."""

from __future__ import annotations

import hashlib
from typing import Any

from runtime_core.call_log.records import Attempt, AttemptStatus, Ending, LoggedAttempt, Usage
from runtime_core.errors import StoreValueError
from runtime_core.frozen import changed, unchecked
from runtime_core.stores.migrations import Migration
from runtime_core.stores.sql import SqlValue

# In the order of Attempt's fields.
ATTEMPT_COLUMNS = (
    "scope_id, attempt_id, call_id, number, kind, role, provider, model, request_hash, reserved_at, lease_until,"
    " max_output_tokens, principal_id, run_id, node, session_id, job_id, trace_id"
)
COLUMNS = (
    ATTEMPT_COLUMNS + ", status, ended_at, input_tokens, output_tokens, cached_tokens, reasoning_tokens,"
    " usage_estimated, cost_micro, error, answer_hash"
)
_FIELDS = tuple(ATTEMPT_COLUMNS.split(", "))
_ATTEMPT_WIDTH = len(_FIELDS)


def values_of(attempt: Attempt) -> tuple[SqlValue, ...]:
    """The values of ATTEMPT_COLUMNS."""
    return (
        attempt.scope_id,
        attempt.attempt_id,
        attempt.call_id,
        attempt.number,
        attempt.kind.value,
        attempt.role,
        attempt.provider,
        attempt.model,
        attempt.request_hash,
        attempt.reserved_at,
        attempt.lease_until,
        attempt.max_output_tokens,
        attempt.principal_id,
        attempt.run_id,
        attempt.node,
        attempt.session_id,
        attempt.job_id,
        attempt.trace_id,
    )


def logged(row: tuple[Any, ...]) -> LoggedAttempt:
    """The record of a row of COLUMNS."""
    status, ended_at, input_, output, cached, reasoning, estimated, cost_micro, error, answer_hash = row[
        _ATTEMPT_WIDTH:
    ]
    attempt = Attempt.model_validate(dict(zip(_FIELDS, row, strict=False)))
    if ended_at is None:
        return LoggedAttempt(attempt=attempt, status=AttemptStatus(status))
    usage = None
    if input_ is not None:
        usage = Usage(input=input_, output=output, cached=cached, reasoning=reasoning, estimated=bool(estimated))
    ending = Ending(status=status, ended_at=ended_at, usage=usage, cost_micro=cost_micro, error=error)
    return LoggedAttempt(attempt=attempt, status=ending.status, ending=ending, answer_hash=answer_hash)


def just_ended(attempt: Attempt, ending: Ending, answer_hash: str | None) -> LoggedAttempt:
    """The record of a row that `ending` has just been written to."""
    kept = ending if ending.answer is None else changed(ending, answer=None)
    return unchecked(LoggedAttempt, attempt=attempt, status=ending.status, ending=kept, answer_hash=answer_hash)


def values_of_ending(ending: Ending, answer_hash: str | None) -> tuple[SqlValue, ...]:
    """The values of the columns from `status` on."""
    usage = ending.usage
    counts = (None,) * 5
    if usage is not None:
        counts = (usage.input, usage.output, usage.cached, usage.reasoning, int(usage.estimated))
    return (ending.status.value, ending.ended_at, *counts, ending.cost_micro, ending.error, answer_hash)


def named(answer: str) -> tuple[str, int]:
    """The name of an answer, its SHA-256 in hex, and its size in bytes.

    Raises StoreValueError for text that is no Unicode.
    """
    try:
        content = answer.encode()
    except UnicodeEncodeError as error:
        raise StoreValueError(f"The answer cannot be stored: {error}.") from error
    return hashlib.sha256(content).hexdigest(), len(content)


MIGRATIONS = (
    Migration(
        version=1,
        statements=(
            "CREATE TABLE calls (scope_id {text} NOT NULL, attempt_id {text} NOT NULL, call_id {text} NOT NULL,"
            " number {int} NOT NULL, kind {text} NOT NULL, role {text} NOT NULL, provider {text} NOT NULL,"
            " model {text} NOT NULL, request_hash {text} NOT NULL, reserved_at {real} NOT NULL,"
            " lease_until {real} NOT NULL, max_output_tokens {int}, principal_id {text} NOT NULL, run_id {text},"
            " node {text}, session_id {text}, job_id {text}, trace_id {text}, status {text} NOT NULL,"
            " ended_at {real}, input_tokens {int}, output_tokens {int}, cached_tokens {int},"
            " reasoning_tokens {int}, usage_estimated {int}, cost_micro {int}, error {text}, answer_hash {text},"
            " PRIMARY KEY (scope_id, attempt_id))",
            "CREATE INDEX calls_time ON calls (scope_id, reserved_at)",
            "CREATE INDEX calls_run ON calls (scope_id, run_id, reserved_at) WHERE run_id IS NOT NULL",
            "CREATE INDEX calls_open ON calls (lease_until) WHERE status = 'reserved'",
            "CREATE INDEX calls_ended ON calls (ended_at) WHERE ended_at IS NOT NULL",
            "CREATE INDEX calls_request ON calls (scope_id, request_hash, ended_at) WHERE answer_hash IS NOT NULL",
            "CREATE TABLE answers (scope_id {text} NOT NULL, answer_hash {text} NOT NULL, size {int} NOT NULL,"
            " kept_at {real} NOT NULL, content {text} NOT NULL, PRIMARY KEY (scope_id, answer_hash))",
            "CREATE INDEX answers_age ON answers (kept_at)",
            "CREATE TABLE idempotency (scope_id {text} NOT NULL, key_hash {text} NOT NULL,"
            " request_hash {text} NOT NULL, owner {text} NOT NULL, state {text} NOT NULL,"
            " lease_until {real} NOT NULL, expires_at {real} NOT NULL, answer_hash {text}, attempt_id {text},"
            " PRIMARY KEY (scope_id, key_hash))",
            "CREATE INDEX idempotency_expiry ON idempotency (expires_at)",
            "CREATE INDEX idempotency_answer ON idempotency (scope_id, answer_hash) WHERE answer_hash IS NOT NULL",
        ),
    ),
    Migration(version=2, scoped=("calls", "answers", "idempotency")),
)
