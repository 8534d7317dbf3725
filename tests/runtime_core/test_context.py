"""The context that travels with every call."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from runtime_core.context import BudgetSpec, ExecutionContext, Identity, PolicyRef, context_of_run

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

CONTEXT = ExecutionContext(
    scope_id="tenant-123",
    principal_id="user-456",
    session_id="session-789",
    run_id="run-1",
    job_id="job-1",
    trace_id="trace-1",
    deadline=NOON,
    budgets=BudgetSpec(max_tokens=100_000, max_cost=10.0, max_turns=20),  # pyright: ignore[reportArgumentType]
    policy_ref=PolicyRef(name="production"),
    metadata={"channel": "web", "nested": {"nothing": None, "list": [1, 2.5]}},
)


def test_a_context_needs_nothing_and_is_a_run_of_its_own() -> None:
    first, second = ExecutionContext(), ExecutionContext()
    assert (first.scope_id, first.principal_id) == ("default", "anonymous")
    assert first.run_id != second.run_id and first.trace_id != second.trace_id
    assert isinstance(first, Identity)


def test_the_context_of_a_run_is_what_checking_its_values_again_would_give() -> None:
    given: dict[str, Any] = {
        "run_id": "run-1",
        "trace_id": "trace-1",
        "session_id": "s",
        "deadline": NOON,
        "budgets": BudgetSpec(),
    }
    who = Identity(scope_id="tenant-123", principal_id="user-456")
    first, second = (context_of_run(who, **given) for _ in range(2))
    assert first == ExecutionContext(**who.model_dump(), **given)
    assert ExecutionContext.from_dict(first.to_dict()) == first
    assert first.metadata is not second.metadata


def test_a_context_survives_json_and_pickle() -> None:
    assert ExecutionContext.from_dict(json.loads(json.dumps(CONTEXT.to_dict()))) == CONTEXT
    assert pickle.loads(pickle.dumps(CONTEXT)) == CONTEXT


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    metadata=st.dictionaries(st.text(), json_values, max_size=4),
    deadline=st.none() | st.datetimes(timezones=st.just(UTC)),
    max_cost=st.none() | st.decimals(min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False, places=6),
)
def test_any_context_comes_back_from_its_dict(
    metadata: dict[str, object], deadline: datetime | None, max_cost: Decimal | None
) -> None:
    context = ExecutionContext.from_dict(
        {"metadata": metadata, "deadline": deadline, "budgets": {"max_cost": max_cost}}
    )
    assert ExecutionContext.from_dict(json.loads(json.dumps(context.to_dict()))) == context


def test_a_context_is_small_enough_to_travel_with_every_call() -> None:
    assert len(pickle.dumps(CONTEXT)) < 1000


def test_money_is_exact() -> None:
    assert ExecutionContext.from_dict({"budgets": {"max_cost": 0.1}}).budgets == BudgetSpec(max_cost=Decimal("0.1"))


def test_a_child_keeps_who_asks_and_never_loosens_a_limit() -> None:
    child = CONTEXT.child(
        run_id="run-2",
        deadline=NOON + timedelta(hours=1),
        budgets=BudgetSpec(max_tokens=50, max_cost=Decimal(99), max_tool_calls=3),
    )
    assert (child.run_id, child.parent) == ("run-2", "run-1")
    assert (child.scope_id, child.principal_id, child.session_id, child.job_id, child.trace_id) == (
        "tenant-123",
        "user-456",
        "session-789",
        "job-1",
        "trace-1",
    )
    assert child.deadline == NOON
    assert child.budgets == BudgetSpec(max_tokens=50, max_cost=Decimal(10), max_tool_calls=3, max_turns=20)
    assert CONTEXT.child(deadline=NOON - timedelta(hours=1)).deadline == NOON - timedelta(hours=1)


def test_a_child_without_wishes_inherits_everything() -> None:
    child = CONTEXT.child()
    assert child.run_id not in (CONTEXT.run_id, CONTEXT.child().run_id)
    assert (child.deadline, child.budgets, child.policy_ref) == (NOON, CONTEXT.budgets, CONTEXT.policy_ref)


def test_a_run_can_join_a_job_and_a_session() -> None:
    joined = CONTEXT.with_job("job-9").with_session("session-9")
    assert (joined.job_id, joined.session_id, joined.run_id) == ("job-9", "session-9", "run-1")
    assert CONTEXT.job_id == "job-1"
    for change in (CONTEXT.with_job, CONTEXT.with_session):
        with pytest.raises(ValidationError):
            change("")


def test_the_rest_of_the_time_is_never_negative() -> None:
    assert CONTEXT.remaining_s(NOON - timedelta(seconds=1.5)) == 1.5
    assert CONTEXT.remaining_s(NOON + timedelta(seconds=1)) == 0.0
    assert ExecutionContext().remaining_s(NOON) is None


def test_a_deadline_is_one_moment_in_utc() -> None:
    local = NOON.astimezone(timezone(timedelta(hours=9)))
    deadline = ExecutionContext(deadline=local).deadline
    assert deadline is not None and deadline == NOON and deadline.tzinfo is UTC
    with pytest.raises(ValidationError):
        ExecutionContext(deadline=datetime(2026, 3, 1, 12))


def test_a_model_call_sees_these_fields() -> None:
    assert CONTEXT.to_request_context() == {
        "request_id": "run-1",
        "trace_id": "trace-1",
        "tenant_id": "tenant-123",
        "user_id": "user-456",
        "session_id": "session-789",
        "job_id": "job-1",
    }


@pytest.mark.parametrize(
    "bad",
    [
        {"scope_id": ""},
        {"scope_id": "e\u0301"},
        {"principal_id": "a\n"},
        {"session_id": "x" * 129},
        {"trace_id": "a b"},
        {"policy_ref": {"name": "../x"}},
        {"budgets": {"max_tokens": -1}},
        {"budgets": {"max_cost": "NaN"}},
        {"budgets": {"max_runtime_seconds": float("inf")}},
        {"budgets": {"max_token": 1}},
        {"metadata": {"object": object()}},
        {"scope": "tenant-1"},
    ],
    ids=str,
)
def test_anything_that_is_not_a_context_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ExecutionContext.from_dict(bad)


def test_a_context_does_not_change() -> None:
    with pytest.raises(ValidationError):
        CONTEXT.scope_id = "tenant-2"  # pyright: ignore[reportAttributeAccessIssue]
