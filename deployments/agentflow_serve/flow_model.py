"""A flow as kserve sees it: a model with inputs, outputs, health and one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kserve.errors import InvalidInput
from kserve.model import InferenceModel, InferenceVerb
from kserve.protocol.infer_type import InferRequest, InferResponse

from agentflow.signature import Signature
from agentflow_serve import codec
from agentflow_serve.batch import run_batch
from agentflow_serve.call import FlowRunner, admitted_call
from agentflow_serve.limits import EdgeLimits
from agentflow_serve.model_use import describe
from agentflow_serve.readiness import Readiness
from runtime_core.report import ModelUse


class FlowModel(InferenceModel):
    """Built on kserve's InferenceModel, not on Model: that one observes process-wide Prometheus histograms
    for each call and carries a client for predictors elsewhere. REST and gRPC both end in `__call__`.
    """

    def __init__(
        self,
        name: str,
        *,
        signature: Signature,
        runner: FlowRunner,
        limits: EdgeLimits,
        readiness: Readiness,
        new_id: Callable[[], str],
    ) -> None:
        super().__init__(name)
        self.ready = True
        self.readiness = readiness
        self._signature = signature
        self._runner = runner
        self._limits = limits
        self._new_id = new_id

    def load(self) -> bool:
        return True

    async def healthy(self) -> bool:
        return await self.readiness.now()

    def get_input_types(self) -> list[dict[str, Any]]:
        return codec.input_types(self._signature)

    def get_output_types(self) -> list[dict[str, Any]]:
        return codec.output_types(self._signature)

    async def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] - kserve's own does not match its use
        self, body: Any, headers: dict[str, str] | None = None, verb: InferenceVerb = InferenceVerb.PREDICT
    ) -> tuple[dict[str, Any] | InferResponse, dict[str, str]]:
        """The answer and its headers. Raises InvalidInput, RunFailed, NotImplementedError (explain)."""
        if verb is InferenceVerb.EXPLAIN:
            _check_explain(body)
            raise NotImplementedError("Could not find explainer_host.")
        if isinstance(body, InferRequest):
            return await self._infer(body)
        rows = codec.read_instances(body, limits=self._limits)
        outputs, use = await self._run(rows, called="instances")
        return {"predictions": outputs}, _headers(use)

    async def _infer(self, request: InferRequest) -> tuple[InferResponse, dict[str, str]]:
        rows = codec.read_rows(request, signature=self._signature, limits=self._limits)
        codec.check_requested(request, model_name=self.name, signature=self._signature)
        outputs, use = await self._run(rows, called="row")
        response = codec.write_response(
            request, outputs, model_name=self.name, signature=self._signature, new_id=self._new_id
        )
        return response, _headers(use)

    async def _run(self, rows: list[dict[str, Any]], *, called: str) -> tuple[list[Any], ModelUse]:
        return await run_batch(self._runner, rows, admitted=admitted_call.get(), rows=called)


def _headers(use: ModelUse) -> dict[str, str]:
    """What the answer's model calls took, for an answer that took any."""
    return {"x-model-use": describe(use)} if use.calls else {}


def _check_explain(body: Any) -> None:
    """kserve checks a body's form before it finds that there is no explainer."""
    if isinstance(body, dict) and not isinstance(body.get("instances", []), list):
        raise InvalidInput('Expected "instances" to be a list')
