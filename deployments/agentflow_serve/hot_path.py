"""V1 predict without the web framework around it.

FastAPI's routing, its resolving of arguments and its layers of middleware take as long as everything else that
happens to a small request. The endpoint is kserve's own, as are the answers to its errors.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from kserve.protocol.rest.v1_endpoints import V1Endpoints
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from agentflow_serve.reply import Receive, Send

ExceptionHandler = Callable[[Request, Exception], Awaitable[Response]]


class _Request(Request):
    """A request whose body is in its first message, as the edge hands it on."""

    async def body(self) -> bytes:
        return (await self.receive())["body"]


class HotPath:
    """Serves `POST /v1/models/<name>:predict` itself and leaves everything else to `app`.

    `handlers` answer the exceptions of the endpoint; what none of them answers is raised.
    """

    def __init__(
        self, app: Starlette, endpoints: V1Endpoints, handlers: Mapping[type[Exception], ExceptionHandler], *, name: str
    ) -> None:
        self._app = app
        self._endpoints = endpoints
        self._handlers = handlers
        self._name = name
        self._path = f"/v1/models/{name}:predict"

    @property
    def routes(self) -> Sequence[Any]:
        return self._app.routes

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        path = scope.get("root_path", "") + self._path
        if scope["type"] != "http" or scope["path"] != path or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        request = _Request(scope, receive, send)
        try:
            # kserve gives a dict only where its encoder gave one, and ours never does
            response = cast(Response, await self._endpoints.predict(self._name, request))
        except Exception as exc:  # noqa: BLE001 - a request's edge; raised again unless somebody answers it
            response = await self._answer(request, exc)
        await response(scope, receive, send)

    async def _answer(self, request: Request, error: Exception) -> Response:
        for kind in type(error).__mro__:
            if (handler := self._handlers.get(kind)) is not None:
                return await handler(request, error)
        raise error
