"""`GET` and `DELETE /v1/sessions/{session_id}`: what a flow remembers of the caller's own sessions.

The scope is the caller's, as the edge has it, and never part of a request.
"""

from __future__ import annotations

from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Query, Response

from agentflow_serve.call import caller_scope
from agentflow_serve.errors import RETRY_AFTER_S, PredictorError, RequestRefused
from agentflow_serve.query_routes import query_router
from runtime_core.errors import AgentflowError, IdentityError
from runtime_core.sessions.catalog import SessionInfo
from runtime_core.sessions.protocol import SessionRead

PATH = "/v1/sessions/{session_id:path}"


class SessionDoor(Protocol):
    """Sessions of every scope, one at a time."""

    async def info(self, *, scope_id: str, session_id: str) -> SessionInfo | None: ...

    async def read(self, *, scope_id: str, session_id: str, since: int = 0) -> SessionRead: ...

    async def delete(self, *, scope_id: str, session_id: str) -> bool: ...


def register_session_endpoints(app: FastAPI, sessions: SessionDoor) -> None:
    """Add the routes of sessions to a predictor's application."""

    async def show(session_id: str, since: Annotated[int, Query(ge=0)] = 0) -> dict[str, Any]:
        """The session, and its records after version `since`."""
        where = {"scope_id": caller_scope(), "session_id": session_id}
        try:
            info = await sessions.info(**where)
            found = await sessions.read(**where, since=since)
        except AgentflowError as exc:
            raise _refused(exc) from exc
        if info is None:
            raise _absent()
        records = [record.model_dump(mode="json") for record in found.records]
        return {**info.model_dump(mode="json"), "version": found.version, "records": records}

    async def delete(session_id: str) -> Response:
        """Forget the session."""
        try:
            existed = await sessions.delete(scope_id=caller_scope(), session_id=session_id)
        except AgentflowError as exc:
            raise _refused(exc) from exc
        if not existed:
            raise _absent()
        return Response(status_code=204)

    routes = query_router()
    routes.add_api_route(PATH, show, methods=["GET"])
    routes.add_api_route(PATH, delete, methods=["DELETE"])
    app.include_router(routes)


def _absent() -> PredictorError:
    return RequestRefused("There is no such session.", status=404, code="not_found")


def _refused(error: AgentflowError) -> PredictorError:
    if isinstance(error, IdentityError):
        return RequestRefused(str(error), status=400, code="bad_input")
    message = "Sessions cannot be reached now; try again."
    return RequestRefused(message, status=503, code="unavailable", retry_after=RETRY_AFTER_S)
