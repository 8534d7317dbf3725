"""Where actions are kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from agent_runtime.actions.machine import ActionEvent
from agent_runtime.actions.records import ActionRecord, ActionStatus


@dataclass(frozen=True, slots=True)
class ActionFilter:
    """Which actions; None does not filter."""

    status: ActionStatus | None = None
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class ActionCursor:
    """Where a page ended; `created_at` is in seconds since the epoch. The next page begins with an older action."""

    created_at: float
    action_id: str


class ActionStore(Protocol):
    """`tests/contract/test_action_store.py` is its contract. It never sees a token, only the SHA-256 of one.

    Every method may be repeated after StoreUnavailableError, also with `outcome_unknown`.
    """

    async def create(self, action: ActionRecord, *, token_hash: str) -> ActionRecord:
        """Keep the action and return it.

        One of its id that is there already is returned as it is; if it is pending, only the new token opens it.
        Raises ActionConflictError if that one asks for something else.
        """
        ...

    async def get(self, scope_id: str, action_id: str) -> ActionRecord | None: ...

    async def find(self, scope_id: str, *, token_hash: str) -> ActionRecord | None:
        """The action of that token, whatever became of it."""
        ...

    async def apply(self, scope_id: str, action_id: str, event: ActionEvent, *, now: datetime) -> ActionRecord:
        """`machine.transition` of the stored action, as one transaction; the action as it then is.

        Raises ActionNotFoundError and ActionConflictError.
        """
        ...

    async def list(
        self,
        scope_id: str,
        which: ActionFilter | None = None,
        *,
        after: ActionCursor | None = None,
        limit: int = 100,
    ) -> list[ActionRecord]:
        """The scope's actions, the newest first; of one moment, the one with the greater id."""
        ...

    async def due(self, *, now: datetime, limit: int) -> list[ActionRecord]:
        """Pending actions of all scopes whose time is up, the oldest first."""
        ...

    async def untold(self, *, limit: int) -> list[ActionRecord]:
        """Settled actions of all scopes whose job has not been told, the oldest first."""
        ...

    async def forget(self, scope_id: str, *, older_than: datetime, limit: int) -> int:
        """Delete up to `limit` actions that were settled before `older_than` and whose job, if any, knows; how many."""
        ...
