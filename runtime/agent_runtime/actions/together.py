"""One question that several have at a time: they wait for one answer, in this process together, in others by its id."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

from agent_runtime.actions.records import ActionRecord, ActionSpec, ActionStatus
from agent_runtime.errors import ActionConflictError, ActionNotFoundError
from runtime_core.errors import StoreError

if TYPE_CHECKING:
    from agent_runtime.actions.manager import ActionManager

logger = logging.getLogger(__name__)


async def ask_together(actions: ActionManager, spec: ActionSpec) -> ActionRecord:
    """The settled action that `spec.action_id` names; an answer that is there already counts, and nobody is asked.

    `actions` is bound to a scope. The last one in this process who stops waiting withdraws the question, since people
    should not be asked for what is over; who still wants to know, in this process or another, asks again under the id
    with a number behind it. Raises what `require_action` and `wait_for_resolution` raise.
    """
    for number in count(1):
        action_id = spec.action_id if number == 1 else f"{spec.action_id}-{number}"
        action = await _settled(actions, spec.model_copy(update={"action_id": action_id}), action_id or "")
        if action.status is not ActionStatus.CANCELLED:
            return action
    raise AssertionError("there is always a next number")


async def _settled(actions: ActionManager, spec: ActionSpec, action_id: str) -> ActionRecord:
    place = actions.scope_id, action_id
    actions.waiting[place] += 1
    left = False
    try:
        with suppress(ActionNotFoundError):
            if (known := await actions.get(action_id)).is_settled:
                return known
        with suppress(ActionConflictError):  # somebody asks already, with other words
            await actions.require_action(spec)
            logger.info("the action %s of scope %s waits for a person", *reversed(place))
        return await actions.wait_for_resolution(action_id)
    except asyncio.CancelledError:
        left = True
        raise
    finally:
        actions.waiting[place] -= 1
        if not actions.waiting[place]:
            del actions.waiting[place]
            if left:
                await asyncio.shield(asyncio.ensure_future(_withdraw(actions, action_id)))


async def _withdraw(actions: ActionManager, action_id: str) -> None:
    try:
        with suppress(ActionNotFoundError):
            await actions.cancel(action_id)
    except StoreError:
        logger.warning("the action %s could not be withdrawn", action_id, exc_info=True)
