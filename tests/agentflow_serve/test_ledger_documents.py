"""Cursors and times as clients send them: every text is a place, a moment, or refused; none is a surprise."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.ledger.attempts import AttemptPage
from agent_runtime.ledger.budgets import Account
from agent_runtime.ledger.finds import EventFilter
from agent_runtime.ledger.standing import BudgetPage
from agent_runtime.ledger.usage import GroupBy, GroupCursor, GroupPage, UsageSums
from agentflow_serve.durations import moment_of
from agentflow_serve.ledger_documents import (
    attempt_cursor,
    attempts_document,
    budget_cursor,
    budgets_document,
    group_cursor,
    usage_document,
)
from runtime_core.call_log.finds import Cursor

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
IDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=128)
COUNTS = st.integers(0, 2**53)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


@given(IDS, COUNTS, COUNTS, st.floats(0, 1e11))
def test_the_next_of_a_page_is_where_it_ended(name: str, cost: int, tokens: int, at: float):
    by_name, by_day = GroupCursor(name, cost, tokens), GroupCursor(cost, tokens, 0)
    for by, cursor in ((GroupBy.RUN, by_name), (GroupBy.DAY, by_day)):
        text = usage_document("s", EventFilter(), by, GroupPage(UsageSums(), [], cursor))["next"]
        assert group_cursor(text, by) == cursor
    text = attempts_document("s", AttemptPage([], Cursor(at, name)))["next"]
    assert attempt_cursor(text) == Cursor(at, name)
    text = budgets_document("s", BudgetPage([], Account("s", name, name, name)))["next"]
    assert budget_cursor(text, "mine") == Account("mine", name, name, name)


@given(st.text(max_size=80) | JSON)
def test_any_other_text_is_no_cursor(value: Any):
    forged = base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
    for text in {forged, str(value)}:
        for read in (
            attempt_cursor,
            lambda text: group_cursor(text, GroupBy.DAY),
            lambda text: budget_cursor(text, "s"),
        ):
            try:
                place = read(text)
            except ValueError:
                continue
            assert isinstance(place, Cursor | GroupCursor | Account)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("2w", NOW - timedelta(weeks=2)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T14:00:00+02:00", NOW),
        ("2026-01-31T12:00:00Z", NOW),
        ("0d", None),
        ("-1d", None),
        ("1.5h", None),
        ("99999w", NOW - timedelta(weeks=99999)),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
        ("", None),
    ],
)
def test_a_time_is_a_moment_in_utc_or_so_long_ago(text: str, moment: datetime | None):
    assert moment_of(text, now=NOW) == moment
