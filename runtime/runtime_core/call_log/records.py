"""What the call log keeps of an attempt.

reserved -> settled     the provider answered; the usage is known, or estimated and flagged
         -> released    the provider surely did no work: it was not reached, or it refused the request
         -> unknown     nobody can tell: cut off, cancelled in flight, timed out, or the lease ran out
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from runtime_core.context import CallerId, ScopeId, TraceId

MOST_TOKENS = 2**53
Count = Annotated[int, Field(ge=0, le=MOST_TOKENS)]


class AttemptStatus(StrEnum):
    RESERVED = "reserved"
    SETTLED = "settled"
    RELEASED = "released"
    UNKNOWN = "unknown"


# The error code of an attempt that nobody ended before its lease ran out.
LEASE_LAPSED = "lease_lapsed"


class CallKind(StrEnum):
    CHAT = "chat"
    STREAM = "stream"
    EMBEDDING = "embedding"


class AttemptKey(NamedTuple):
    """Which attempt; ids are unique within a scope only."""

    scope_id: str
    attempt_id: str


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Usage(_Record):
    """Tokens as the provider counted them; `estimated` where it did not say and we counted for it.

    `cached` is the part of `input`, `reasoning` the part of `output`, that the provider reports as such.
    """

    input: Count = 0
    output: Count = 0
    cached: Count = 0
    reasoning: Count = 0
    estimated: bool = False


class Attempt(_Record):
    """An attempt at a model, as it is reserved before the provider is asked.

    `attempt_id` is what the provider is sent as `x-attempt-id`; `call_id` joins the attempts of one call,
    `number` counts them from 1. Times are seconds since the epoch; after `lease_until` an attempt that nobody
    ended is `unknown`. `request_hash` is of the canonical request.
    """

    scope_id: ScopeId
    attempt_id: str
    call_id: str
    number: Annotated[int, Field(ge=1)]
    kind: CallKind
    role: str
    provider: str
    model: str
    request_hash: str
    reserved_at: float
    lease_until: float
    max_output_tokens: Count | None = None
    principal_id: CallerId = "anonymous"
    run_id: str | None = None
    node: str | None = None
    session_id: str | None = None
    job_id: str | None = None
    trace_id: TraceId | None = None

    @property
    def key(self) -> AttemptKey:
        return AttemptKey(self.scope_id, self.attempt_id)


class Ending(_Record):
    """How an attempt ended. `cost_micro` is in millionths of a dollar, None where the price is not known.

    `error` is a short code such as `provider_malformed`, None for a success; `answer` is the JSON text of the
    result, kept once per content, only for a success.
    """

    status: AttemptStatus
    ended_at: float
    usage: Usage | None = None
    cost_micro: Count | None = None
    error: str | None = None
    answer: str | None = None


class LoggedAttempt(_Record):
    """A row of the log: the attempt and, once it ended, how.

    The answer is not read with its row: `answer_hash` names it, `ending.answer` is None. It may be forgotten
    before the row is.
    """

    attempt: Attempt
    status: AttemptStatus
    ending: Ending | None = None
    answer_hash: str | None = None
