"""budgets.yaml: who may use how much, for scopes, principals and roles.

budgets:
  - {scope_id: acme, max_cost_daily: 20}
  - {scope_id: acme, principal_id: ann, max_tokens_per_minute: 50000}
  - {role: llm.strong, max_requests_daily: 500}
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from agent_runtime.ledger.budgets import Budget
from runtime_core.documents import Document, Path, Source, load_document

WHAT = "the budgets"
_OF_TOOLS = ("tool_calls", "runtime_ms")


def _lasting(budget: Budget) -> Budget:
    if budget.run_id is not None or budget.parent_run_id is not None:
        raise ValueError("is for one run; what every run of a flow may use stands in the flow, under `budgets`")
    if not budget.limits():
        raise ValueError("limits nothing; give it a limit such as max_cost_daily, or remove it")
    if budget.role is not None and (of_tools := [each for each in budget.limits() if each.measure in _OF_TOOLS]):
        raise ValueError(
            f"has {of_tools[0].name} for a role, and tools have no role; give it to the scope or a principal"
        )
    return budget


class BudgetDocument(BaseModel):
    """The budgets of one file. What a scope, principal and role may use together is said once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budgets: tuple[Annotated[Budget, AfterValidator(_lasting)], ...]


def load_budgets(source: Source, *, roles: Collection[str] | None = None) -> BudgetDocument:
    """The budgets in a file, or as they are. With `roles`, a budget of another role is wrong.

    Raises DocumentInvalid: one sentence, with the file and the line of everything that is wrong.
    """
    document = load_document(source, BudgetDocument, what=WHAT, keys=Budget.model_fields)
    document.refuse(_repeated(document) | ({} if roles is None else _unknown_roles(document, roles)))
    return document.value


def _repeated(document: Document[BudgetDocument]) -> dict[Path, str]:
    first: dict[object, int] = {}
    problems: dict[Path, str] = {}
    for number, budget in enumerate(document.value.budgets):
        earlier = first.setdefault(budget.account, number)
        if earlier != number:
            problems["budgets", number] = f"is for whom budgets[{earlier}] is; put the limits of both into one"
    return problems


def _unknown_roles(document: Document[BudgetDocument], roles: Collection[str]) -> dict[Path, str]:
    known = ", ".join(sorted(roles)) or "none"
    return {
        ("budgets", number, "role"): f"is {budget.role!r}, and no model has that role; the roles: {known}"
        for number, budget in enumerate(document.value.budgets)
        if budget.role is not None and budget.role not in roles
    }
