"""Counts what a node's model calls take, where every attempt passes: at the engine's guard."""

from __future__ import annotations

from flow_runtime.asking import Asking, current
from flow_runtime.recorder import CallRecorder
from llm_client.guard import Admission, Guard, Lease
from llm_client.spec import EmbeddingSpec, RequestSpec
from runtime_core.call_log.records import Attempt, AttemptStatus, Ending
from runtime_core.report import ModelUse


class MeteringGuard:
    """Admits what `inner` admits, adds every attempt to the node run that asked for it, and tells `recorder`."""

    def __init__(self, inner: Guard, recorder: CallRecorder | None = None) -> None:
        self._inner = inner
        self._recorder = recorder

    async def begin(self, attempt: Attempt, request: RequestSpec | EmbeddingSpec) -> Lease:
        lease = await self._inner.begin(attempt, request)
        asking = current.get()  # here: the end of an attempt runs where no request's context reaches
        if asking is None and self._recorder is None:
            return lease
        return _Metered(lease, asking, attempt, self._recorder)


class _Metered:
    def __init__(self, lease: Lease, asking: Asking | None, attempt: Attempt, recorder: CallRecorder | None) -> None:
        self._lease = lease
        self._asking = asking
        self._attempt = attempt
        self._recorder = recorder

    @property
    def admission(self) -> Admission:
        return self._lease.admission

    async def end(self, ending: Ending) -> None:
        if self._asking is not None and ending.status in (AttemptStatus.SETTLED, AttemptStatus.UNKNOWN):
            self._asking.add(_use(ending))
        if self._recorder is not None:
            self._recorder.attempt_ended(self._attempt, ending)
        await self._lease.end(ending)


def _use(ending: Ending) -> ModelUse:
    usage = ending.usage
    return ModelUse(
        calls=1,
        input_tokens=usage.input if usage else 0,
        output_tokens=usage.output if usage else 0,
        cost_micro=ending.cost_micro or 0,
        unpriced=int(ending.cost_micro is None),
        estimated=int(usage is None or usage.estimated),
    )
