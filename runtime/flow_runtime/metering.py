"""Counts what a node's model calls take, where every attempt passes: at the engine's guard."""

from __future__ import annotations

from dataclasses import dataclass

from flow_runtime.asking import Asking, current
from flow_runtime.recorder import CallRecorder
from llm_client.guard import Admission, Guard, Lease, NoLease
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
        note = _Note(asking, attempt, self._recorder)
        return _MeteredAtOnce(lease, note) if isinstance(lease, NoLease) else _Metered(lease, note)


@dataclass(frozen=True, slots=True)
class _Note:
    asking: Asking | None
    attempt: Attempt
    recorder: CallRecorder | None

    def take(self, ending: Ending) -> None:
        if self.asking is not None and ending.status in (AttemptStatus.SETTLED, AttemptStatus.UNKNOWN):
            self.asking.add(_use(ending))
        if self.recorder is not None:
            self.recorder.attempt_ended(self.attempt, ending)


class _Metered:
    def __init__(self, lease: Lease, note: _Note) -> None:
        self._lease = lease
        self._note = note

    @property
    def admission(self) -> Admission:
        return self._lease.admission

    async def end(self, ending: Ending) -> None:
        self._note.take(ending)
        await self._lease.end(ending)


class _MeteredAtOnce(NoLease):
    def __init__(self, lease: NoLease, note: _Note) -> None:
        self._lease = lease
        self._note = note

    @property
    def admission(self) -> Admission:
        return self._lease.admission

    def ended(self, ending: Ending) -> None:
        self._note.take(ending)
        self._lease.ended(ending)

    async def end(self, ending: Ending) -> None:
        self._note.take(ending)
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
