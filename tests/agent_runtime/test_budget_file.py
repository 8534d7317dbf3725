"""budgets.yaml: what it says is what is read, and what is wrong is told with its place."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime import Budget
from agent_runtime.ledger.budget_file import BudgetDocument, load_budgets
from runtime_core.errors import DocumentInvalid

NAMES = st.sampled_from(["default", "acme", "Acme", "tenant-1", "a.b", "on", "1"])
WHOLE = st.integers(0, 2**53)
LIMITS = {
    "max_cost": st.decimals(0, 2**53 // 10**6, allow_nan=False, places=6),
    "max_runtime_seconds": st.integers(0, 10**9).map(lambda ms: ms / 1000),
}


@st.composite
def budgets(draw: st.DrawFn) -> Budget:
    names = [name for name in Budget.model_fields if name.startswith("max_")]
    facts: dict[str, Any] = {
        name: draw(LIMITS.get(name.rpartition("_")[0], WHOLE))
        for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True))
        if not name.endswith("per_request") and not name.endswith("per_minute")
    } or {"max_tokens_per_minute": draw(WHOLE)}
    for_tools = any("tool_calls" in name or "runtime_seconds" in name for name in facts)
    role = None if for_tools else draw(NAMES | st.none())
    return Budget(scope_id=draw(NAMES), principal_id=draw(NAMES | st.none()), role=role, **facts)


DOCUMENTS = st.lists(budgets(), max_size=5, unique_by=lambda budget: budget.account).map(
    lambda made: BudgetDocument(budgets=tuple(made))
)


@given(DOCUMENTS)
def test_a_document_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, document: BudgetDocument):
    plain = document.model_dump(mode="json", exclude_none=True)
    file = tmp_path_factory.getbasetemp() / "af-budgets.yaml"
    file.write_text(yaml.safe_dump(plain))
    assert load_budgets(file) == load_budgets(plain) == document


def refused(folder: Path, text: str, **options: Any) -> str:
    file = folder / "budgets.yaml"
    file.write_text(text)
    with pytest.raises(DocumentInvalid) as caught:
        load_budgets(file, **options)
    return str(caught.value).replace(str(folder), "")


def test_money_is_exact_and_numbers_need_no_quotes(tmp_path: Path):
    file = tmp_path / "budgets.yaml"
    file.write_text("budgets:\n  - {scope_id: acme, max_cost_daily: 0.1, max_runtime_seconds_total: 2.5}\n")
    [budget] = load_budgets(file).budgets
    assert budget.max_cost_daily == Decimal("0.1") and budget.max_runtime_seconds_total == 2.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "budgets:\n  - scope_id: acme\n    max_token_daily: 5\n",
            "/budgets.yaml:3: budgets[0].max_token_daily is not a known key; did you mean 'max_tokens_daily'?",
        ),
        (
            "budgets:\n  - max_tokens_total: 5\n    role: llm.stong\n",
            "/budgets.yaml:3: budgets[0].role is 'llm.stong', and no model has that role; the roles: llm.strong",
        ),
        ("budgets:\n  - max_tokens_total: -1\n", "/budgets.yaml:2: budgets[0].max_tokens_total input should be"),
        ("budgets:\n  - max_tokens_total: 1.5\n", "/budgets.yaml:2: budgets[0].max_tokens_total input should be"),
        ("budgets:\n\n  - scope_id: acme\n", "/budgets.yaml:3: budgets[0] limits nothing"),
        (
            "budgets:\n  - {role: llm.strong, max_tool_calls_daily: 1}\n",
            "/budgets.yaml:2: budgets[0] has max_tool_calls_daily for a role, and tools have no role",
        ),
        ("budgets:\n  - {run_id: run-1, max_tokens_total: 1}\n", "/budgets.yaml:2: budgets[0] is for one run"),
        (
            "budgets:\n  - max_tokens_total: 1\n  - max_cost_total: 1\n",
            "/budgets.yaml:3: budgets[1] is for whom budgets[0] is",
        ),
        ("budgets:\n  - scope_id: a\n    scope_id: b\n", "/budgets.yaml:3: the key 'scope_id' stands here twice"),
        ("budgets: &x []\n", "/budgets.yaml:1: "),
        ("budget: []\n", "/budgets.yaml:1: budget"),
        ("- 1\n", "/budgets.yaml:1: "),
        ("", "/budgets.yaml:1: "),
    ],
)
def test_what_is_wrong_is_one_sentence_with_file_and_line(tmp_path: Path, text: str, said: str):
    sentence = refused(tmp_path, text, roles={"llm.strong"})
    assert said in sentence and "\n" not in sentence and len(sentence) < 300


def test_an_inline_document_is_told_by_its_keys():
    with pytest.raises(DocumentInvalid, match=r"^the budgets: budgets\[0\]\.max_token_daily is not a known key"):
        load_budgets({"budgets": [{"max_token_daily": 1}]})


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(DocumentInvalid, match=r"there is no file .*nowhere\.yaml"):
        load_budgets(tmp_path / "nowhere.yaml")
