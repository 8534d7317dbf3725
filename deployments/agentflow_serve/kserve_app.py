"""The HTTP side of a predictor: kserve's own V1 and V2 endpoints over one flow, behind the edge.

Importing this module imports kserve (seconds), which also parses `sys.argv`: import it in replicas only.
kserve's server, its process-wide app and its logging set-up are not used.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from kserve import ModelRepository
from kserve import errors as kserve_errors
from kserve.protocol.rest.v1_endpoints import V1Endpoints, register_v1_endpoints
from kserve.protocol.rest.v2_endpoints import register_v2_endpoints

from agentflow.signature import Signature
from agentflow_serve.auth.authenticator import Authenticator
from agentflow_serve.call import FlowRunner, admitted_call
from agentflow_serve.data_plane import FixedRepository, FlowDataPlane
from agentflow_serve.edge import Edge
from agentflow_serve.errors import PredictorError, answer_of, internal_error
from agentflow_serve.flow_model import FlowModel
from agentflow_serve.hot_path import ExceptionHandler, HotPath
from agentflow_serve.limits import EdgeLimits
from agentflow_serve.readiness import Readiness
from agentflow_serve.session_endpoints import SessionDoor, register_session_endpoints
from runtime_core.ids import new_trace_id

if TYPE_CHECKING:
    from agent_runtime.actions.manager import ActionManager
    from agentflow_serve.ledger_endpoints import LedgerDoor

logger = logging.getLogger(__name__)

# The statuses of kserve.errors' handlers. Those log each client's mistake as an error, with a traceback and
# with its text as it came, line feeds included; ours send the same bytes.
PROTOCOL_STATUS: Mapping[type[Exception], int] = {
    kserve_errors.InvalidInput: 400,
    kserve_errors.ModelNotFound: 404,
    kserve_errors.InferenceError: 500,
    kserve_errors.UnsupportedProtocol: 501,
    NotImplementedError: 501,
    kserve_errors.ModelNotReady: 503,
    kserve_errors.ServerNotLive: 503,
    kserve_errors.ServerNotReady: 503,
}


def build_predictor_app(
    *,
    name: str,
    signature: Signature,
    runner: FlowRunner,
    limits: EdgeLimits,
    health: Callable[[], Awaitable[None]] | None = None,
    sessions: SessionDoor | None = None,
    ledger: LedgerDoor | None = None,
    actions: ActionManager | None = None,
    auth: Authenticator | None = None,
    on_waiting: Callable[[int], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    new_trace_id: Callable[[], str] = new_trace_id,
    new_response_id: Callable[[], str] = lambda: str(uuid.uuid4()),
) -> Edge:
    """The ASGI application that serves one flow as the model `name`, on one event loop.

    `health` raises while the flow cannot take requests; the readiness routes then answer 503. `sessions` are those
    that the flow remembers, `ledger` is of what it spends and `actions` of what it asks people, each with routes of its
    own. `auth` says who calls; without it nobody is asked. `on_waiting` hears how many requests wait for their scope's
    turn.
    """
    model = FlowModel(
        name,
        signature=signature,
        runner=runner,
        limits=limits,
        readiness=Readiness(health, timeout_s=limits.health_timeout_s),
        new_id=new_response_id,
    )
    return Edge(
        _endpoints(model, sessions, ledger, actions),
        limits=limits,
        auth=auth,
        on_waiting=on_waiting,
        clock=clock,
        new_trace_id=new_trace_id,
    )


def _endpoints(
    model: FlowModel, sessions: SessionDoor | None, ledger: LedgerDoor | None, actions: ActionManager | None
) -> HotPath:
    registry = ModelRepository()
    registry.update(model)
    data_plane = FlowDataPlane(model_registry=registry)
    repository = FixedRepository(model_registry=registry)
    app = FastAPI(
        title=f"Predictor {model.name}", docs_url=None, redoc_url=None, default_response_class=_OrjsonResponse
    )
    app.add_api_route("/", data_plane.live, methods=["GET"])
    register_v1_endpoints(app, data_plane, repository)
    register_v2_endpoints(app, data_plane, repository)
    if sessions is not None:
        register_session_endpoints(app, sessions)
    if ledger is not None:
        from agentflow_serve.ledger_endpoints import register_ledger_endpoints

        register_ledger_endpoints(app, ledger)
    if actions is not None:
        from agentflow_serve.action_endpoints import register_action_endpoints

        register_action_endpoints(app, actions)
    handlers: dict[type[Exception], ExceptionHandler] = {
        error: _protocol_error(status) for error, status in PROTOCOL_STATUS.items()
    }
    handlers[PredictorError] = _predictor_error
    for error, handler in handlers.items():
        app.add_exception_handler(error, handler)
    app.add_exception_handler(Exception, _defect)
    return HotPath(app, V1Endpoints(data_plane, repository), handlers, name=model.name)


class _OrjsonResponse(JSONResponse):
    """Writes JSON with orjson, as kserve's app does, so that numbers look the same."""

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)


def _protocol_error(status: int) -> ExceptionHandler:
    async def answer(_: Request, exc: Exception) -> JSONResponse:
        logger.debug("%s: %r", type(exc).__name__, str(exc))
        return JSONResponse({"error": str(exc)}, status_code=status)

    return answer


async def _predictor_error(_: Request, exc: Exception) -> JSONResponse:
    error = exc if isinstance(exc, PredictorError) else internal_error()
    admitted = admitted_call.get()
    answer = answer_of(error, trace_id=admitted.trace_id if admitted is not None else None)
    return JSONResponse(answer.body, status_code=answer.status, headers=answer.headers)


async def _defect(request: Request, _: Exception) -> JSONResponse:
    """Starlette raises the exception again after this answer; the edge logs it."""
    return await _predictor_error(request, internal_error())
