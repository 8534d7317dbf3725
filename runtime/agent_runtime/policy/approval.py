"""Approvals: a person is asked once for each thing in a run, however often the run tries it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from weakref import WeakValueDictionary

from agent_runtime.actions.manager import ActionManager
from agent_runtime.actions.records import ActionRecord, ActionSpec
from agent_runtime.policy.decide import Subject

APPROVE = "approve"
"""The type of the action that asks for leave."""
MOST_REMEMBERED = 10_000

Question = tuple[str, str, str, str, str | None]
"""Scope, principal, kind and name of what is asked for, and the job or run that it is for."""


class Approvals:
    """Asks by actions of type `approve`. A question that nobody answers within `timeout_s` is answered with no."""

    def __init__(self, actions: ActionManager, *, timeout_s: float) -> None:
        self._actions = actions
        self._timeout_s = timeout_s
        self._answers: OrderedDict[Question, ActionRecord] = OrderedDict()
        self._locks: WeakValueDictionary[Question, asyncio.Lock] = WeakValueDictionary()

    async def ask(self, subject: Subject, *, kind: str, name: str, reason: str) -> ActionRecord:
        """The settled action; `is_granted` says what became of it. Raises what ActionManager raises."""
        question = (subject.scope_id, subject.principal_id, kind, name, subject.job_id or subject.run_id)
        lock = self._locks.setdefault(question, asyncio.Lock())
        async with lock:
            if (known := self._answers.get(question)) is not None:
                return known
            action = await self._ask(subject, {"kind": kind, "name": name, "reason": reason})
            if question[-1] is not None:
                self._answers[question] = action
            if len(self._answers) > MOST_REMEMBERED:
                self._answers.popitem(last=False)
            return action

    async def _ask(self, subject: Subject, about: dict[str, str]) -> ActionRecord:
        return await self._actions.for_scope(subject.scope_id).ask(
            ActionSpec(
                type=APPROVE,
                job_id=subject.job_id,
                payload={**about, "principal_id": subject.principal_id, "run_id": subject.run_id},
                timeout_seconds=self._timeout_s,
            )
        )
