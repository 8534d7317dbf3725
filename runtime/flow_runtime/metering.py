"""Counts what a node's model calls take, where every attempt passes: at the engine's guard."""

from __future__ import annotations

from flow_runtime.asking import Asking, current
from llm_client.guard import Admission, Guard, Lease
from llm_client.spec import EmbeddingSpec, RequestSpec
from runtime_core.call_log.records import Attempt, AttemptStatus, Ending
from runtime_core.report import ModelUse


class MeteringGuard:
    """Admits what `inner` admits, and adds every attempt to the node run that asked for it."""

    def __init__(self, inner: Guard) -> None:
        self._inner = inner

    async def begin(self, attempt: Attempt, request: RequestSpec | EmbeddingSpec) -> Lease:
        lease = await self._inner.begin(attempt, request)
        asking = current.get()  # here: the end of an attempt runs where no request's context reaches
        return lease if asking is None else _Metered(lease, asking)


class _Metered:
    def __init__(self, lease: Lease, asking: Asking) -> None:
        self._lease = lease
        self._asking = asking

    @property
    def admission(self) -> Admission:
        return self._lease.admission

    async def end(self, ending: Ending) -> None:
        if ending.status in (AttemptStatus.SETTLED, AttemptStatus.UNKNOWN):
            self._asking.add(_use(ending))
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
