"""What a node does about a model call that no longer fits a budget: stop, ask a lesser model, or ask a person."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from decimal import Decimal
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from agent_runtime.actions.records import ActionSpec
from agent_runtime.errors import AgentRuntimeError, BudgetExceededError
from agentflow.settings import ASKING_TIMEOUT_MS
from flow_runtime.asking import Asking, current
from flow_runtime.attempt_time import stopped
from flow_runtime.errors import OperationFailed
from runtime_core.context import BudgetSpec

if TYPE_CHECKING:
    from agent_runtime.actions.manager import ActionManager
    from agent_runtime.actions.records import ActionRecord
    from flow_runtime.budgets import RunAccounts

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
RAISE_BUDGET = "raise_budget"
"""The type of the action that asks for more."""
_TOTAL = "_total"


async def within_budget(
    role: str, ask: Callable[[str], Awaitable[Answer]], runs: RunAccounts, *, may_degrade: bool = True
) -> Answer:
    """The answer of `ask`, by the model that the budgets leave for it. Raises what it raises; BudgetExceededError."""
    while True:
        try:
            return await ask(role)
        except BudgetExceededError as exc:
            asking = current.get()
            on_exceed = None if asking is None else asking.call.on_exceed
            if asking is None or on_exceed is None or on_exceed.then == "stop":
                raise
            if on_exceed.then == "ask":
                await _raised(exc, asking, runs)
                continue
            lesser = on_exceed.degrade_role
            if not may_degrade or lesser is None or lesser == role:
                raise
        return await ask(lesser)


async def _raised(refused: BudgetExceededError, asking: Asking, runs: RunAccounts) -> None:
    """Returns when somebody has raised the limit. Raises the refusal again where nobody may, can or will."""
    run, actions = asking.call.context, _actions(asking)
    if actions is None or refused.run_id is None or refused.allowed is None:
        raise refused
    left_s = run.remaining_s(actions.clock.now())
    if left_s == 0:
        raise refused
    with stopped():
        action = await _answered(_question(refused, asking, left_s), actions.for_scope(run.scope_id), refused)
    limits = _higher(refused, action, run.budgets) if action.is_granted else None
    if limits is None:
        raise refused
    try:
        raised = await runs.raise_limits(run.scope_id, refused.run_id, limits)
    except ValidationError as exc:
        raise refused from exc
    if not raised:
        raise refused


def _question(refused: BudgetExceededError, asking: Asking, left_s: float | None) -> ActionSpec:
    """One for all calls of the run that want the same limit raised."""
    run, limit = asking.call.context, _name(refused)
    identity = json.dumps([refused.run_id, limit, refused.allowed])
    return ActionSpec(
        type=RAISE_BUDGET,
        action_id=f"budget-{sha256(identity.encode()).hexdigest()[:32]}",
        job_id=run.job_id,
        timeout_seconds=ASKING_TIMEOUT_MS / 1000 if left_s is None else left_s,
        payload={
            "run_id": refused.run_id,
            "principal_id": run.principal_id,
            "node": asking.node,
            "limit": limit,
            "allowed": refused.allowed,
            "missing": refused.missing,
            "message": str(refused),
        },
    )


def _higher(
    refused: BudgetExceededError, action: ActionRecord, own: BudgetSpec | None
) -> dict[str, Decimal | int | float] | None:
    """The limits that the answer names; one that it does not name grows by what the flow gives, or by what is missing.

    None where that raises nothing: to ask again would be to ask for ever.
    """
    given, limit, allowed = action.resolution or {}, _name(refused), Decimal(str(refused.allowed))
    wanted: dict[str, Any] = {name: given[name] for name in BudgetSpec.model_fields if name in given}
    if limit not in wanted:
        wanted[limit] = allowed + max(Decimal(str(each or 0)) for each in (refused.missing, getattr(own, limit, 0)))
    try:
        limits = BudgetSpec.model_validate(wanted).model_dump(exclude_none=True)
    except ValidationError as exc:
        logger.warning("the answer to action %s names no limits: %s", action.action_id, exc)
        return None
    return {name + _TOTAL: value for name, value in limits.items()} if limits.get(limit, 0) > allowed else None


def _name(refused: BudgetExceededError) -> str:
    """The limit, as flows call it."""
    return (refused.limit or "").removesuffix(_TOTAL)


async def _answered(spec: ActionSpec, actions: ActionManager, refused: BudgetExceededError) -> ActionRecord:
    from agent_runtime.actions.together import ask_together

    try:
        return await ask_together(actions, spec)
    except AgentRuntimeError as exc:
        raise refused from exc


def _actions(asking: Asking) -> ActionManager | None:
    try:
        return None if asking.resources is None else asking.resources.actions
    except OperationFailed:
        return None
