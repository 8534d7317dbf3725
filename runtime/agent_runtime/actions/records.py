"""What an action is, and what is kept of it.

pending -> resolved     somebody answered
        -> expired      nobody did in time
        -> cancelled    the answer is not needed any more
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from runtime_core.context import CallerId, ScopeId, UtcTime

NOBODY_WAITS = "nobody waits"
"""The reason of a question that was withdrawn because whoever asked has gone: who still wants to know asks again."""


class ActionStatus(StrEnum):
    PENDING = "pending"
    RESOLVED = "resolved"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ActionSpec(_Frozen):
    """What a person is asked for. `type` says how to show it: `confirm`, `approve`, `input`, or a word of yours.

    `scope_id` None is the manager's own scope. Without `timeout_seconds` the action waits for ever. With an
    `action_id` of the caller's own the same request may be repeated: it is the same action, with a new token.
    """

    type: Annotated[str, Field(min_length=1, max_length=128)]
    job_id: CallerId | None = None
    scope_id: ScopeId | None = None
    payload: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    action_id: CallerId | None = None


class ActionRecord(_Frozen):
    """An action as it is stored; times are UTC. `job_told`: the job that waited knows that it is settled.

    `reason` is why it was withdrawn, where that was said.

    `resume_token` is there once, on the record that `require_action` returns: only its SHA-256 is stored. It is in
    no repr and no dump, so that it cannot get into a log or an event by accident.
    """

    scope_id: ScopeId
    action_id: CallerId
    job_id: CallerId | None = None
    type: str
    status: ActionStatus = ActionStatus.PENDING
    payload: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    resolution: dict[str, JsonValue] | None = None
    resolved_by: CallerId | None = None
    created_at: UtcTime
    expires_at: UtcTime | None = None
    resolved_at: UtcTime | None = None
    answer_id: str | None = None
    reason: str | None = None
    job_told: bool = False
    version: int = 1
    resume_token: str | None = Field(default=None, repr=False, exclude=True)

    @property
    def is_settled(self) -> bool:
        return self.status is not ActionStatus.PENDING

    @property
    def is_abandoned(self) -> bool:
        """Whether it was withdrawn because nobody waited; nobody has refused anything then."""
        return self.status is ActionStatus.CANCELLED and self.reason == NOBODY_WAITS

    @property
    def is_granted(self) -> bool:
        """Whether the resolution says yes: `approved` or `confirmed` is true."""
        given = self.resolution or {}
        return self.status is ActionStatus.RESOLVED and (
            given.get("approved") is True or given.get("confirmed") is True
        )

    def is_overdue(self, now: datetime) -> bool:
        """Whether its time is up, and nobody has settled it."""
        return not self.is_settled and self.expires_at is not None and self.expires_at <= now

    def changed(self, **changes: Any) -> ActionRecord:
        """The next version; `changes` are not validated again."""
        return self.model_copy(update={**changes, "version": self.version + 1})
