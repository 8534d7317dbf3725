"""Approvals: a person is asked once for each thing in a run, however often it is tried, in whichever processes."""

from __future__ import annotations

import json
from collections import OrderedDict
from hashlib import sha256

from agent_runtime.actions.manager import ActionManager
from agent_runtime.actions.records import ActionRecord, ActionSpec
from agent_runtime.actions.together import ask_together
from agent_runtime.policy.decide import Subject

APPROVE = "approve"
"""The type of the action that asks for leave."""
MOST_REMEMBERED = 10_000
"""Answers that are not read again; the store of actions has all of them."""


class Approvals:
    """Asks by actions of type `approve`. A question that nobody answers within `timeout_s` is answered with no."""

    def __init__(self, actions: ActionManager, *, timeout_s: float) -> None:
        self._actions = actions
        self._timeout_s = timeout_s
        self._answers: OrderedDict[tuple[str, str, str | None], ActionRecord] = OrderedDict()

    async def ask(
        self, subject: Subject, *, kind: str, name: str, reason: str, operation: str | None = None
    ) -> ActionRecord:
        """The settled action; `is_granted` says what became of it. Raises what ActionManager raises.

        `operation` is what is to be done with the thing, where there is a choice: leave for one is none for another.
        """
        about = {"kind": kind, "name": name} | ({} if operation is None else {"operation": operation})
        actions = self._actions.for_scope(subject.scope_id)
        action_id = _action_id(subject, about)
        spec = self._question(subject, action_id, {**about, "reason": reason})
        if action_id is None:
            return await actions.ask(spec)
        place = subject.scope_id, action_id, subject.run_id
        if (known := self._answers.get(place)) is None:
            known = self._answers[place] = await ask_together(actions, spec)
            if len(self._answers) > MOST_REMEMBERED:
                self._answers.popitem(last=False)
        return known

    def _question(self, subject: Subject, action_id: str | None, about: dict[str, str]) -> ActionSpec:
        return ActionSpec(
            type=APPROVE,
            action_id=action_id,
            job_id=subject.job_id,
            payload={**about, "principal_id": subject.principal_id, "run_id": subject.run_id},
            timeout_seconds=self._timeout_s,
        )


def _action_id(subject: Subject, about: dict[str, str]) -> str | None:
    """The same for whoever wants the same leave for the same job or run; None where there is neither."""
    within = subject.job_id or subject.run_id
    if within is None:
        return None
    identity = json.dumps([subject.principal_id, about, within])
    return f"{APPROVE}-{sha256(identity.encode()).hexdigest()[:32]}"
