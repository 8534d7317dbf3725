"""Routes whose query is a model: it describes its parameters and checks them; what is wrong is refused in our form."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from agentflow_serve.cursors import MOST_AT_ONCE
from agentflow_serve.errors import PredictorError, RequestRefused

T = TypeVar("T")


class PageQuery(BaseModel):
    """The query of a request for one page of a list; a parameter that is not a field is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: Annotated[int, Field(ge=1, le=MOST_AT_ONCE)] = 100
    after: str | None = None


class QueryRoute(APIRoute):
    """Answers 400 in our form for a parameter that is wrong, unknown or given twice."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, known = super().get_route_handler(), _names(self)

        async def checked(request: Request) -> Response:
            if len(request.query_params) < len(request.query_params.multi_items()):
                raise _bad("Give each parameter once.")
            if unknown := [name for name in request.query_params if name not in known]:
                here = f"there are {', '.join(known)}" if known else "there are none"
                raise _bad(f"There is no parameter {unknown[0][:40]!a} here; {here}.")
            try:
                return await handle(request)
            except RequestValidationError as exc:
                raise _refused(exc.errors()[0]) from exc

        return checked


def query_router() -> APIRouter:
    """For such routes; the description of the API says how they refuse, which is not FastAPI's way."""
    return APIRouter(route_class=QueryRoute, responses={"4XX": {"description": "Refused: error, code, trace_id"}})


def page_after(text: str | None, read: Callable[[str], T]) -> T | None:
    """The place where a page begins, as `read` has it. Raises RequestRefused (400) where that raises ValueError."""
    if text is None:
        return None
    try:
        return read(text)
    except ValueError as exc:
        raise _bad("No page of such a request has given this `after` as its `next`.") from exc


def _names(route: APIRoute) -> list[str]:
    """Of the fields of a query's model, and of parameters that stand by themselves."""
    fields = route.dependant.query_params
    return [name for each in fields for name in getattr(each.field_info.annotation, "model_fields", (each.alias,))]


def _refused(problem: dict[str, Any]) -> PredictorError:
    name, why = ascii(str(problem["loc"][-1])[:40]), problem["msg"].removeprefix("Value error, ").rstrip(".")
    return _bad(f"The parameter {name} is wrong: {why}.")


def _bad(message: str) -> PredictorError:
    return RequestRefused(message, status=400, code="bad_input")
