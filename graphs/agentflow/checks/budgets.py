"""What one run may use, and what happens when that is not enough."""

from __future__ import annotations

from agentflow.checks.scope import Findings, Scope, listed
from agentflow.findings import Finding, PathStep, Severity
from agentflow.ir import Budgets
from agentflow.settings import roles_of

_BUDGETS: tuple[PathStep, ...] = ("budgets",)
_LIMITS = ("max_tokens", "max_cost", "max_tool_calls", "max_turns", "max_runtime_seconds")


def check_budgets(scope: Scope) -> Findings:
    """Findings about `budgets` and `on_exceed`."""
    budgets, on_exceed = scope.flow.budgets, scope.flow.on_exceed
    if budgets is None:
        if on_exceed is not None:
            hint = "add budgets, such as budgets: {max_tokens: 20000}, or remove on_exceed"
            yield Finding("exceed-without-budget", "on_exceed says what to do about a budget", hint, ("on_exceed",))
        return
    if all(getattr(budgets, limit) is None for limit in _LIMITS):
        hint = f"give it one of {', '.join(_LIMITS)}"
        yield _finding("empty-budget", "the budget limits nothing", hint, severity="warning")
    if budgets.reserve == "run" and budgets.max_tokens is None and budgets.max_cost is None:
        hint = "give it max_tokens or max_cost, or remove reserve"
        yield _finding("nothing-to-reserve", "a whole run is reserved in tokens or money", hint, "reserve")
    yield from _degrading(scope, budgets)
    yield from _priced(scope, budgets)


def _degrading(scope: Scope, budgets: Budgets) -> Findings:
    role = budgets.degrade_role
    if scope.flow.on_exceed == "degrade" and role is None:
        hint = "name it as budgets.degrade_role, a role of llmhub.yaml"
        yield Finding("degrade-without-role", "nobody says which role to move to", hint, ("on_exceed",))
    if role is None:
        return
    if scope.flow.on_exceed != "degrade":
        hint = "add on_exceed: degrade, or remove degrade_role"
        yield _finding("unused-degrade-role", f"no call moves to '{role}'", hint, "degrade_role", severity="warning")
    if scope.roles is not None and role not in scope.roles:
        yield _finding(
            "unknown-role", f"llmhub has no role '{role}'", f"its roles: {listed(scope.roles)}", "degrade_role"
        )


def _priced(scope: Scope, budgets: Budgets) -> Findings:
    if budgets.max_cost is None or scope.unpriced is None:
        return
    unpriced = sorted(roles_of(scope.flow) & frozenset(scope.unpriced))
    if unpriced:
        message = f"the budget is in money, and llmhub.yaml has no price for {listed(unpriced)}"
        hint = "give each a price; a call whose model has none in the providers' list prices either is refused"
        yield _finding("budget-without-price", message, hint, "max_cost", severity="warning")


def _finding(code: str, message: str, hint: str, *at: PathStep, severity: Severity = "error") -> Finding:
    return Finding(code, message, hint, (*_BUDGETS, *at), severity=severity)
