"""A compiled flow as a kserve.Model, for kserve's own ModelServer.

Importing this module imports kserve (seconds), which also parses `sys.argv`.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.responses import JSONResponse
from kserve import InferResponse, Model, ModelServer

from agent_runtime.ledger.budget_file import BudgetDocument
from agentflow.feature_use import asks_people, calls_models
from agentflow_serve import codec, request_headers
from agentflow_serve.call import Admitted, CallMeta, admitted_call
from agentflow_serve.compiled.args import AgentArgs, args_from
from agentflow_serve.errors import AppInvalid, PredictorError, answer_of
from agentflow_serve.flow_model import FlowModel
from agentflow_serve.inputs import read_budgets, read_llmhub, read_policy
from agentflow_serve.readiness import Readiness
from agentflow_serve.store_upkeep import Keeping, kept_in_order
from flow_runtime.compiled.agent import LocalAgent
from flow_runtime.local import LocalSettings
from flow_runtime.models import Models
from runtime_core.ids import new_trace_id
from runtime_core.report import RunReport
from runtime_core.stores.url import MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable


class KServeAgent(LocalAgent, Model):
    """Base of flows that were compiled for kserve: load, predict(payload, headers), health.

    What it is told about its place comes from `args`, or from the environment (see `args_from`). The server opens the
    flow in its own loop and says that the model is ready when that is done.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        args: AgentArgs | None = None,
        models: Models | None = None,
        settings: LocalSettings | None = None,
    ) -> None:
        self.args = args or args_from(os.environ)
        if self.args.auth == "keys":
            raise AppInvalid(
                "kserve's own server asks nobody for a key: serve the flow on Ray Serve, or put keys in front"
            )
        LocalAgent.__init__(self, models=models, settings=_settings(self.args, settings))
        Model.__init__(self, name or self.plan().name, return_response_headers=True)
        self.engine = True
        self._stop_serving: Callable[[], object] = lambda: None
        self._protocols = FlowModel(
            self.name,
            signature=self.plan().signature,
            runner=_Runs(self),
            limits=self.args.limits,
            readiness=Readiness(None, timeout_s=self.args.limits.health_timeout_s),
            new_id=lambda: str(uuid.uuid4()),
        )

    def load(self) -> bool:
        """Plan the flow. What needs an event loop is opened by the server, or by the first call."""
        self.plan()
        self.ready = True
        return self.ready

    def start(self) -> None:
        """Called by the server: it shall answer failed runs with their true status, as the predictor does."""
        from kserve.model_server import app

        app.add_exception_handler(PredictorError, _answer_failed_run)
        self.ready = True

    async def start_engine(self) -> None:
        """Called by the server in its loop: keeps the flow open until `stop_engine`."""
        stopping = asyncio.Event()
        self._stop_serving = partial(asyncio.get_running_loop().call_soon_threadsafe, stopping.set)
        async with self, self._kept_store():
            await stopping.wait()

    def _kept_store(self) -> AbstractAsyncContextManager[None]:
        flow, store = self.plan().flow, self._governed.ledger
        nodes = flow.nodes.values()
        if store is None or not (calls_models(nodes, self.args.embedder) or asks_people(nodes)):
            return nullcontext()
        return kept_in_order(Keeping(store, self.args.calls_ttl_s))

    def stop_engine(self) -> None:
        self.ready = False
        self._stop_serving()

    async def healthy(self) -> bool:
        return self.ready and self.is_open

    def get_input_types(self) -> list[dict[str, Any]]:
        return codec.input_types(self.plan().signature)

    def get_output_types(self) -> list[dict[str, Any]]:
        return codec.output_types(self.plan().signature)

    async def predict(
        self,
        payload: Any,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> dict[str, Any] | InferResponse:
        """The answer to a V1 body or a V2 request. Raises InvalidInput, and RunFailed for a run without an output."""
        token = admitted_call.set(self._admitted(headers or {}))
        try:
            answer, told = await self._protocols(payload)
        finally:
            admitted_call.reset(token)
        if response_headers is not None:
            response_headers.update(told)
        return answer

    def _admitted(self, headers: Mapping[str, str]) -> Admitted:
        raw = request_headers.lowered([(name.encode(), value.encode()) for name, value in headers.items()])
        seconds = request_headers.deadline_s(raw, limit_s=self.args.limits.deadline_s)
        trace_id = request_headers.trace_id(raw) or new_trace_id()
        return Admitted(trace_id=trace_id, ends_at=time.monotonic() + seconds, clock=time.monotonic)

    async def _opened_models(self, stack: AsyncExitStack) -> Models | None:
        llmhub = read_llmhub(self.args.llmhub)
        budgets = (
            read_budgets(self.args.budgets, self.plan().flow, llmhub, self.args.embedder) or self._governed.budgets
        )
        if budgets is None and self._governed.ledger is not None:
            budgets = BudgetDocument(budgets=())  # what an earlier start declared is taken back
        self._governed = replace(self._governed, budgets=budgets)
        if llmhub is not None and self._models is None:
            from llmhub_runtime.hub import LLMHub

            self._hub = LLMHub(config_obj=llmhub)
            stack.push_async_callback(self._hub.aclose)
        return await super()._opened_models(stack)


def _settings(args: AgentArgs, given: LocalSettings | None) -> LocalSettings:
    """What is given, else what the arguments say; the policy of the arguments holds in both."""
    policy = read_policy(args.policy)
    if given is not None:
        return replace(given, policy=given.policy or policy)
    return LocalSettings(
        store=args.store,
        code=args.code,
        allow_hosts=args.allow_hosts,
        feature_store=args.feature_store,
        embedder=args.embedder,
        slot_modules=args.slot_modules,
        policy=policy,
        ledger=None if args.store == MEMORY else args.store,
    )


class _Runs:
    """The agent as the protocols call it."""

    def __init__(self, agent: LocalAgent) -> None:
        self._agent = agent

    async def run(self, request: dict[str, Any], call: CallMeta) -> RunReport:
        return await self._agent.run(
            request, identity=call.identity, trace_id=call.trace_id, deadline_s=call.deadline_s
        )


def serve_model(model: KServeAgent) -> None:
    """Serve a model until the process is told to stop; kserve's own options (`--http_port`, ...) count."""
    model.load()
    ModelServer().start([model])


async def _answer_failed_run(_: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, PredictorError)
    answer = answer_of(exc)
    return JSONResponse(answer.body, status_code=answer.status, headers=answer.headers)
