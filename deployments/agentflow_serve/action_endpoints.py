"""What a flow asks people, for the caller's own scope, and the answers.

`GET /v1/actions`, `GET /v1/actions/{action_id}`, `POST /v1/actions/{action_id}/resolve`. The scope is the caller's, as
the edge has it, and never part of a request. Whoever may call for the scope may answer, except where a policy or a
budget wants leave for that caller; a `resume_token` in the body is enough for the action whose token it is. Tokens
stand in bodies only, since addresses are logged.
"""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from agent_runtime.actions.manager import ActionManager
from agent_runtime.actions.records import ActionRecord, ActionStatus
from agent_runtime.actions.store import ActionFilter
from agent_runtime.errors import ActionConflictError, ActionExpiredError, ActionNotFoundError
from agent_runtime.policy.approval import APPROVE
from agentflow_serve.action_documents import action_cursor, actions_document
from agentflow_serve.action_routes import PATH
from agentflow_serve.call import ANYBODY, CallMeta, admitted_call
from agentflow_serve.errors import RETRY_AFTER_S, PredictorError, RequestRefused
from agentflow_serve.query_routes import PageQuery, page_after, query_router
from flow_runtime.exceeding import RAISE_BUDGET
from runtime_core.errors import AgentflowError, IdentityError, StoreValueError
from runtime_core.ids import check_id

OF_SOMEBODY_ELSE = frozenset({APPROVE, RAISE_BUDGET})


class _Actions(PageQuery):
    status: ActionStatus | None = None


class Answer(BaseModel):
    """The body of a resolve: what is answered, and the action's token where the caller has one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    resolution: dict[str, JsonValue]
    resume_token: str | None = None


def register_action_endpoints(app: FastAPI, actions: ActionManager) -> None:
    """Add the routes of actions to a predictor's application."""

    async def list_actions(asked: Annotated[_Actions, Query()]) -> dict[str, Any]:
        """The scope's actions, the newest first."""
        mine, which = actions.for_scope(_caller().identity.scope_id), ActionFilter(status=asked.status)
        place = page_after(asked.after, action_cursor)
        try:
            found = await mine.list(which, after=place, limit=asked.limit + 1)
        except AgentflowError as exc:
            raise _refused(exc) from exc
        return actions_document(found, asked.limit)

    async def show(action_id: str) -> dict[str, Any]:
        """One action, with its answer if there is one."""
        try:
            found = await actions.for_scope(_caller().identity.scope_id).get(check_id(action_id, what="action id"))
        except AgentflowError as exc:
            raise _refused(exc) from exc
        return found.model_dump(mode="json")

    async def resolve(action_id: str, request: Request) -> dict[str, Any]:
        """Answer an action, once."""
        caller, answer = _caller(), _answer(await request.body())
        mine = actions.for_scope(caller.identity.scope_id)
        try:
            check_id(action_id, what="action id")
            if answer.resume_token is None:
                _check_leave(await mine.get(action_id), caller)
            resolved = await mine.resolve(
                answer.resume_token,
                action_id=action_id,
                resolution=answer.resolution,
                resolved_by=caller.identity.principal_id,
            )
        except AgentflowError as exc:
            raise _refused(exc) from exc
        return resolved.model_dump(mode="json")

    routes = query_router()
    routes.add_api_route(PATH, list_actions, methods=["GET"])
    routes.add_api_route(PATH + "/{action_id:path}/resolve", resolve, methods=["POST"])
    routes.add_api_route(PATH + "/{action_id:path}", show, methods=["GET"])
    app.include_router(routes)


def _caller() -> CallMeta:
    admitted = admitted_call.get()
    return CallMeta() if admitted is None else admitted.call(0, of=1)


def _check_leave(action: ActionRecord, caller: CallMeta) -> None:
    """Nobody gives himself leave. Without keys nobody knows who is who, and who reaches the port may answer."""
    asked_by = action.payload.get("principal_id")
    if action.type in OF_SOMEBODY_ELSE and asked_by == caller.identity.principal_id != ANYBODY.principal_id:
        message = "Somebody else has to answer this: it asks for leave for the principal of your key."
        raise RequestRefused(message, status=403, code="forbidden")


def _answer(body: bytes) -> Answer:
    try:
        return Answer.model_validate(orjson.loads(body))
    except (orjson.JSONDecodeError, ValidationError) as exc:
        message = 'The body of an answer is {"resolution": {...}}, and may have the "resume_token" of the action.'
        raise RequestRefused(message, status=400, code="bad_input") from exc


def _refused(error: AgentflowError) -> PredictorError:
    match error:
        case ActionNotFoundError():
            return RequestRefused("There is no such action.", status=404, code="not_found")
        case ActionConflictError():
            return RequestRefused(str(error), status=409, code="action_conflict")
        case ActionExpiredError():
            return RequestRefused(str(error), status=410, code="action_expired")
        case IdentityError() | StoreValueError():
            return RequestRefused(str(error), status=400, code="bad_input")
        case _:
            message = "Actions cannot be reached now; try again."
            return RequestRefused(message, status=503, code="unavailable", retry_after=RETRY_AFTER_S)
