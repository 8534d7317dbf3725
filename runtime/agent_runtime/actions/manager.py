"""Asking a person and waiting for the answer."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from pydantic import JsonValue, TypeAdapter

from agent_runtime.actions import announce
from agent_runtime.actions.machine import ActionEvent, Expire, JobTold, Resolve, Withdraw
from agent_runtime.actions.records import NOBODY_WAITS, ActionRecord, ActionSpec, ActionStatus
from agent_runtime.actions.signals import LocalSignalChannel, SignalChannel
from agent_runtime.actions.store import ActionCursor, ActionFilter, ActionStore
from agent_runtime.actions.tokens import NewToken, new_token, token_hash
from agent_runtime.errors import (
    ActionExpiredError,
    ActionNotFoundError,
    ActionPendingError,
    JobNotFoundError,
    JobStateError,
)
from agent_runtime.events.bus import EventBus
from agent_runtime.jobs.manager import JobManager
from agent_runtime.repeat import Patience, until_known
from agent_runtime.scopes import Scopes, place
from runtime_core.clock import Clock, SystemClock
from runtime_core.errors import StoreError, StoreUnavailableError
from runtime_core.ids import IdSource, RandomIds

if TYPE_CHECKING:
    from agent_runtime.actions.together import Waiters

logger = logging.getLogger(__name__)

POLL_S = 1.0
STORE_PATIENCE_S = 60.0
_RESOLUTION: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


class ActionManager:
    """Actions of a scope, or, unbound, of the scopes that it is given; see JobManager.

    With a `job_manager`, a job waits while its actions are open, and runs again when the last one is resolved,
    expired or withdrawn; what it then does is the job's own decision. `signal_channel` makes waiting quick across
    processes; without one, and where a signal is lost, waiters look every `poll_s` seconds.
    """

    def __init__(
        self,
        store: ActionStore,
        *,
        signal_channel: SignalChannel | None = None,
        job_manager: JobManager | None = None,
        scope_id: str | None = None,
        event_bus: EventBus | None = None,
        clock: Clock | None = None,
        ids: IdSource | None = None,
        tokens: NewToken = new_token,
        poll_s: float = POLL_S,
    ) -> None:
        self.store = store
        self.clock = clock or SystemClock()
        self._signals = signal_channel or LocalSignalChannel()
        self._jobs = job_manager
        self._scopes = Scopes(scope_id)
        self._bus = event_bus
        self._ids = ids or RandomIds()
        self._tokens = tokens
        self._poll_s = poll_s
        self.waiting: dict[tuple[str | None, str], Waiters] = {}  # see ask_together

    @property
    def scope_id(self) -> str | None:
        """The one scope of this manager; None if it is not bound to one."""
        return self._scopes.bound_to

    def for_scope(self, scope_id: str) -> Self:
        """The same manager, bound to one scope. Raises ScopeMismatchError if it is bound to another already."""
        view = copy.copy(self)
        view._scopes = self._scopes.bound(scope_id)
        return view

    async def require_action(self, spec: ActionSpec) -> ActionRecord:
        """Ask; the action, with the token that resolves it, which is never shown again.

        Raises ScopeMismatchError, JobNotFoundError and JobStateError for its job, and ActionConflictError for an
        `action_id` that asks for something else already.
        """
        now, token = self.clock.now(), self._tokens()
        wanted = ActionRecord(
            scope_id=self._scopes.for_new(spec.scope_id),
            action_id=spec.action_id or self._ids.new("action"),
            job_id=spec.job_id,
            type=spec.type,
            payload=spec.payload,
            created_at=now,
            expires_at=None if spec.timeout_seconds is None else now + timedelta(seconds=spec.timeout_seconds),
        )
        if (waiters := self.waiting.get((self.scope_id, wanted.action_id))) is not None:
            waiters.asked_at.add(now)
        hashed = token_hash(token)
        assert hashed is not None, "a token of ours is one"
        action = await until_known(lambda: self.store.create(wanted, token_hash=hashed), self.clock)
        for record_id in (action.action_id, hashed):
            self._scopes.remember(record_id, action.scope_id)
        await self._make_job_wait(action)
        if action.created_at == now and self._bus is not None:
            await self._bus.publish(announce.required(action))
        return action.model_copy(update={"resume_token": token})

    async def get(self, action_id: str) -> ActionRecord:
        """Raises ActionNotFoundError."""
        action = await self.store.get(self._scopes.of(action_id), action_id)
        if action is None:
            raise ActionNotFoundError(f"There is no action {action_id!a} in this scope.", action_id=action_id)
        return action

    async def list(
        self, which: ActionFilter | None = None, *, after: ActionCursor | None = None, limit: int = 100
    ) -> list[ActionRecord]:
        """The scope's actions, the newest first."""
        return await self.store.list(self._scopes.for_new(None), which, after=after, limit=limit)

    async def resolve(
        self,
        resume_token: str | None = None,
        *,
        resolution: Mapping[str, Any],
        action_id: str | None = None,
        resolved_by: str | None = None,
    ) -> ActionRecord:
        """Answer an action, once: by its token, or by its id for whoever may act for the whole scope.

        With both, the token must be that action's. `resolution` is a JSON object; `{"approved": true}` or
        `{"confirmed": true}` grants what was asked. Raises ActionNotFoundError, ActionExpiredError,
        ActionConflictError, and ValueError for what is no JSON object.
        """
        given = _RESOLUTION.validate_python(dict(resolution))
        scope_id, action_id = await self._named(resume_token, action_id)
        event = Resolve(given, answer_id=self._ids.new("answer"), resolved_by=resolved_by)
        action = await self._apply(scope_id, action_id, event)
        if action.status is ActionStatus.EXPIRED:
            raise ActionExpiredError(
                f"Action {action_id} expired at {action.expires_at}; nobody waits for its answer any more.",
                action_id=action_id,
            )
        return action

    async def cancel(self, action_id: str, *, reason: str | None = None) -> ActionRecord:
        """Withdraw the question; an action that is settled stays as it is. Raises ActionNotFoundError.

        Whoever waits for it is refused, unless the `reason` is NOBODY_WAITS.
        """
        return await self._apply(self._scopes.of(action_id), action_id, Withdraw(reason))

    async def cancel_all(self, job_id: str) -> list[ActionRecord]:
        """Withdraw what is still open for a job; those."""
        which = ActionFilter(status=ActionStatus.PENDING, job_id=job_id)
        withdrawn: list[ActionRecord] = []
        while page := await self.store.list(self._scopes.of(job_id), which):  # what is withdrawn is in no later page
            withdrawn += [await self._apply(action.scope_id, action.action_id, Withdraw()) for action in page]
        return withdrawn

    async def wait_for_resolution(self, action_id: str, *, timeout_s: float | None = None) -> ActionRecord:
        """The action once it is resolved, expired or withdrawn: look at its `status` and `resolution`.

        Raises ActionPendingError after `timeout_s`; the action stays open. Raises ActionNotFoundError, and
        StoreUnavailableError when the store has been gone for a minute.
        """
        give_up = None if timeout_s is None else self.clock.monotonic() + timeout_s
        patience = Patience(self.clock, limit_s=STORE_PATIENCE_S)
        # Listening comes before looking: an answer between the two would not be heard.
        async with self._signals.listen(signal_key(self._scopes.of(action_id), action_id)) as listener:
            while True:
                pause = self._poll_s
                try:
                    action = await self._look(action_id)
                except StoreUnavailableError as exc:
                    patience.excuse(exc)
                else:
                    patience.renew()
                    if action.is_settled:
                        await self._tell_job(action)
                        return action
                    if action.expires_at is not None:
                        pause = min(pause, (action.expires_at - self.clock.now()).total_seconds())
                if give_up is not None:
                    if (left := give_up - self.clock.monotonic()) <= 0:
                        raise ActionPendingError(
                            f"Nobody resolved action {action_id} within {timeout_s:g} s.", action_id=action_id
                        )
                    pause = min(pause, left)
                await listener.wait(timeout_s=pause)

    async def ask(self, spec: ActionSpec) -> ActionRecord:
        """`require_action`, and the action once it is settled. Whoever stops waiting withdraws the question.

        Raises what those two raise.
        """
        action = await self.require_action(spec)
        logger.info("the action %s of scope %s waits for a person", action.action_id, action.scope_id)
        try:
            return await self.wait_for_resolution(action.action_id)
        except asyncio.CancelledError:
            # People should not be asked for what is over.
            await asyncio.shield(asyncio.ensure_future(self._abandon(action)))
            raise

    async def sweep(self, *, limit: int = 100) -> list[ActionRecord]:
        """Expire up to `limit` actions of all scopes whose time is up; those. Call it now and then.

        It also tells jobs of settled actions, where whoever settled them died in between. Raises ScopeMismatchError
        on a manager that is bound.
        """
        self._scopes.all_of_them("sweep()")
        due = await self.store.due(now=self.clock.now(), limit=limit)
        expired = [await self._apply(action.scope_id, action.action_id, Expire()) for action in due]
        for action in await self.store.untold(limit=limit):
            await self._tell_job(action)
        return expired

    async def _abandon(self, action: ActionRecord) -> None:
        try:
            await self._apply(action.scope_id, action.action_id, Withdraw(NOBODY_WAITS))
        except (ActionNotFoundError, StoreError):
            logger.warning("the action %s could not be withdrawn", action.action_id, exc_info=True)

    async def _look(self, action_id: str) -> ActionRecord:
        """The action as it is, expired if its time is up."""
        action = await self.get(action_id)
        if action.is_overdue(self.clock.now()):
            return await self._apply(action.scope_id, action_id, Expire())
        return action

    async def _named(self, token: str | None, action_id: str | None) -> tuple[str, str]:
        """The scope and the id of the action that an answer is for."""
        if token is None:
            if action_id is None:
                raise ValueError("resolve() takes the resume_token or the action_id")
            return self._scopes.of(action_id), action_id
        found = await self._of_token(token)
        if action_id not in (None, found.action_id):
            raise ActionNotFoundError("No action of this scope has that id and that token.", action_id=action_id)
        return found.scope_id, found.action_id

    async def _of_token(self, token: str) -> ActionRecord:
        hashed = token_hash(token)
        action = None if hashed is None else await self.store.find(self._scopes.of(hashed), token_hash=hashed)
        if action is None:
            raise ActionNotFoundError("No action of this scope has that token.")
        return action

    async def _apply(self, scope_id: str, action_id: str, event: ActionEvent) -> ActionRecord:
        now = self.clock.now()
        action = await until_known(lambda: self.store.apply(scope_id, action_id, event, now=now), self.clock)
        if action.is_settled and action.resolved_at == now:
            await self._signals.notify(signal_key(scope_id, action_id))
            if self._bus is not None:
                await self._bus.publish(announce.settled(action))
            await self._tell_job(action)
        return action

    async def _make_job_wait(self, action: ActionRecord) -> None:
        if self._jobs is None or action.job_id is None:
            return
        try:
            await self._jobs.for_scope(action.scope_id).wait_action(action.job_id, action.action_id)
        except (JobStateError, JobNotFoundError):
            await self._apply(action.scope_id, action.action_id, Withdraw())
            raise
        now = await self.store.get(action.scope_id, action.action_id)
        if now is not None and now.is_settled:  # somebody was quick, and the job did not wait yet
            await self._tell_job(now.changed(job_told=False))

    async def _tell_job(self, action: ActionRecord) -> None:
        """The job goes on. What cannot be stored now is done by a waiter or by `sweep`."""
        if self._jobs is None or action.job_id is None or action.job_told:
            return
        try:
            with suppress(JobStateError, JobNotFoundError):  # it ended, or was deleted
                await self._jobs.for_scope(action.scope_id).action_settled(action.job_id, action.action_id)
            now = self.clock.now()
            await until_known(
                lambda: self.store.apply(action.scope_id, action.action_id, JobTold(), now=now), self.clock
            )
        except StoreError:
            logger.warning("job %s was not told of action %s yet", action.job_id, action.action_id, exc_info=True)


def signal_key(scope_id: str, action_id: str) -> str:
    """Rung when the action is settled."""
    return f"action:{place(scope_id, action_id)}"
