"""One question that several have at a time: they wait for one answer, in this process together, in others by its id."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING

from agent_runtime.actions.records import NOBODY_WAITS, ActionRecord, ActionSpec, ActionStatus
from agent_runtime.errors import ActionConflictError, ActionNotFoundError
from runtime_core.errors import StoreError

if TYPE_CHECKING:
    from agent_runtime.actions.manager import ActionManager

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Waiters:
    """Those in this process who wait for one action, and when they asked: it is theirs if it was made then."""

    count: int = 0
    asked_at: set[datetime] = field(default_factory=set[datetime])


async def ask_together(actions: ActionManager, spec: ActionSpec) -> ActionRecord:
    """The settled action that `spec.action_id` names; an answer that is there already counts, and nobody is asked.

    `actions` is bound to a scope. Where the question is of this process, the last one here who stops waiting withdraws
    it, since people should not be asked for what is over; who still wants to know elsewhere asks again, under the id
    with a number behind it. So does a run, by the `run_id` of its payload, that finds the question of another run
    expired. Who else withdraws the question refuses. Raises what `require_action` and `wait_for_resolution` raise.
    """
    for number in count(1):
        action_id = (spec.action_id or "") if number == 1 else f"{spec.action_id}-{number}"
        if (action := await _settled_before(actions, action_id)) is None:
            action = await _answered(actions, spec.model_copy(update={"action_id": action_id}), action_id)
        elif _nobody_answered_another_run(action, spec):
            continue
        if not action.is_abandoned:
            return action
    raise AssertionError("there is always a next number")


async def _settled_before(actions: ActionManager, action_id: str) -> ActionRecord | None:
    with suppress(ActionNotFoundError):
        known = await actions.get(action_id)
        if known.is_overdue(actions.clock.now()):
            known = await actions.wait_for_resolution(action_id)  # it expires at once
        if known.is_settled:
            return known
    return None


def _nobody_answered_another_run(action: ActionRecord, spec: ActionSpec) -> bool:
    return action.status is ActionStatus.EXPIRED and action.payload.get("run_id") != spec.payload.get("run_id")


async def _answered(actions: ActionManager, spec: ActionSpec, action_id: str) -> ActionRecord:
    place = actions.scope_id, action_id
    waiters = actions.waiting.setdefault(place, Waiters())
    waiters.count += 1
    left = False
    try:
        with suppress(ActionConflictError):  # somebody asks already, with other words
            await actions.require_action(spec)
            logger.info("the action %s of scope %s waits for a person", *reversed(place))
        return await actions.wait_for_resolution(action_id)
    except asyncio.CancelledError:
        left = True
        raise
    finally:
        waiters.count -= 1
        if not waiters.count:
            del actions.waiting[place]
            if left:
                await asyncio.shield(asyncio.ensure_future(_withdraw(actions, action_id, waiters.asked_at)))


async def _withdraw(actions: ActionManager, action_id: str, asked_at: set[datetime]) -> None:
    try:
        with suppress(ActionNotFoundError):
            if (await actions.get(action_id)).created_at in asked_at:
                await actions.cancel(action_id, reason=NOBODY_WAITS)
    except StoreError:
        logger.warning("the action %s could not be withdrawn", action_id, exc_info=True)
