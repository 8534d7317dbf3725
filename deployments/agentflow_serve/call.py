"""What the predictor's HTTP side and the runner of a flow say to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from runtime_core.context import Identity
from runtime_core.report import RunReport

ANYBODY = Identity()
"""Who calls where nobody is asked who they are."""


@dataclass(frozen=True, slots=True)
class CallMeta:
    """Everything about one run that is not its request.

    `deadline_s` is the time left, in seconds from the moment the runner gets it; None means no deadline.
    `headers` holds only what may travel with a run (tracing and the request id), names in lower case.
    """

    trace_id: str | None = None
    identity: Identity = ANYBODY
    deadline_s: float | None = None
    idempotency_key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class FlowRunner(Protocol):
    """Runs a flow once.

    A failed run is a report with an `error`, not an exception; an exception is answered as a defect of the
    server (500). `run` is cancelled when the client leaves or the deadline passes, and must then stop.
    """

    async def run(self, request: dict[str, Any], call: CallMeta) -> RunReport: ...


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that the edge let in. `ends_at` is a reading of `clock`; the identity is the edge's finding."""

    trace_id: str
    ends_at: float
    clock: Callable[[], float]
    idempotency_key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    identity: Identity = ANYBODY

    def call(self, index: int, *, of: int) -> CallMeta:
        """The metadata of run `index` of a request with `of` runs.

        Runs of one batch share the client's trace id and idempotency key as a prefix, so that both still lead
        to the request. No client can send the space that separates an idempotency key from the index.
        """
        alone = of == 1
        key = self.idempotency_key
        return CallMeta(
            trace_id=self.trace_id if alone else f"{self.trace_id}.{index}",
            identity=self.identity,
            deadline_s=max(0.0, self.ends_at - self.clock()),
            idempotency_key=key if alone or key is None else f"{key} {index}",
            headers=self.headers,
        )


# kserve's endpoint classes hand a model the body and the headers and nothing else.
admitted_call: ContextVar[Admitted | None] = ContextVar("agentflow_admitted_call", default=None)


def caller_scope() -> str:
    """The scope of whoever sent the request that is answered here."""
    admitted = admitted_call.get()
    return (ANYBODY if admitted is None else admitted.identity).scope_id
