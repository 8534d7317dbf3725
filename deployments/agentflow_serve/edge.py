"""The outermost part of a predictor: what holds for a request whatever the application does.

Serve's proxy has no body limit and takes its deadline and its disconnect switch from headers that clients can
send, so the replica keeps its own: bounded headers and body, one deadline, and a watch on the connection that
cancels the run when the client leaves, whether or not the server cancels the request. Who is asking is found out
here too, and whose turn it is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from agentflow_serve import request_headers
from agentflow_serve.action_routes import is_about_actions
from agentflow_serve.auth.authenticator import Authenticator
from agentflow_serve.auth.open_routes import open_to_all
from agentflow_serve.call import Admitted, admitted_call
from agentflow_serve.errors import RequestRefused, cancelled_inside, internal_error
from agentflow_serve.limits import EdgeLimits
from agentflow_serve.reply import Message, Receive, Reply, Send
from agentflow_serve.request_body import ClientLeft, check_json, read_body
from agentflow_serve.turns import Turns, turns_of
from runtime_core.ids import new_trace_id

Scope = MutableMapping[str, Any]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)

CANCEL_GRACE_S = 5.0  # how long a cancelled request may clean up before we stop waiting for it
WATCH_AFTER_S = 0.1  # a watch costs a task, and most requests of a fast flow are over by then, under load too


class Edge:
    """ASGI middleware around a predictor's application. One instance serves one event loop.

    Without `auth` everybody may call, as the same identity.
    `on_waiting` hears how many requests wait for their scope's turn.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: EdgeLimits,
        auth: Authenticator | None = None,
        on_waiting: Callable[[int], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        new_trace_id: Callable[[], str] = new_trace_id,
    ) -> None:
        self._app = app
        self._limits = limits
        self._auth = auth
        self._turns: Turns | None = turns_of(limits, on_waiting)
        self._clock = clock
        self._new_trace_id = new_trace_id
        self._in_flight = 0
        self._stuck: set[asyncio.Task[None]] = set()

    @property
    def routes(self) -> Sequence[Any]:
        """The application's, from which Serve names the route in its metrics."""
        return getattr(self._app, "routes", ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = request_headers.lowered(scope["headers"])
        reply = Reply(send, trace_id=request_headers.trace_id(headers) or self._new_trace_id())
        counted = scope["method"] == "POST" and not is_about_actions(scope)
        self._in_flight += counted
        try:
            await self._serve(scope, headers, receive, reply)
        except ClientLeft:
            return
        except RequestRefused as refusal:
            await reply.refuse(refusal, receive)
        finally:
            self._in_flight -= counted

    async def _serve(self, scope: Scope, headers: request_headers.RawHeaders, receive: Receive, reply: Reply) -> None:
        admitted = self._admit(headers, trace_id=reply.trace_id)
        if (self._auth is None and self._turns is None) or open_to_all(scope):
            await self._run(scope, headers, receive, reply, admitted)
            return
        if self._auth is not None:
            admitted = replace(admitted, identity=await self._auth.identify(headers))
        scope_id, answers = admitted.identity.scope_id, is_about_actions(scope)
        with nullcontext() if self._turns is None else self._turns.place(scope_id, answers=answers):
            await self._run(scope, headers, receive, reply, admitted)

    def _admit(self, headers: request_headers.RawHeaders, *, trace_id: str) -> Admitted:
        """The call's terms, read from its headers before any of its body. Raises RequestRefused."""
        started = self._clock()
        request_headers.check_size(headers, limits=self._limits)
        request_headers.check_encoding(headers)
        allowed = self._limits.max_concurrent_requests
        if allowed is not None and self._turns is None and self._in_flight > allowed:
            raise RequestRefused(
                f"This replica already handles {allowed} requests; try again shortly.",
                status=503,
                code="overloaded",
                retry_after=1.0,
            )
        seconds = request_headers.deadline_s(headers, limit_s=self._limits.deadline_s)
        return Admitted(
            trace_id=trace_id,
            ends_at=started + seconds,
            clock=self._clock,
            idempotency_key=request_headers.idempotency_key(headers),
            headers=request_headers.travelling(headers),
        )

    async def _run(
        self, scope: Scope, headers: request_headers.RawHeaders, receive: Receive, reply: Reply, admitted: Admitted
    ) -> None:
        """Takes the request until the application is done, the client has left, or the deadline has passed."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watch = _Watch(receive, over)

        async def take() -> None:
            admitted_call.set(admitted)
            body = await read_body(receive, headers, limits=self._limits)
            reply.body_was_read = True
            watch.start_soon()
            check_json(body, path=scope["path"], headers=headers, limits=self._limits)
            theirs = {**scope, "headers": request_headers.for_application(headers)}
            if self._turns is None or open_to_all(scope) or is_about_actions(scope):
                await self._app(theirs, _replay(body, watch.left), reply)
                return
            async with self._turns.turn(admitted.identity.scope_id):
                await self._app(theirs, _replay(body, watch.left), reply)

        app = asyncio.create_task(take())
        try:
            await self._first_of(app, over, reply, ends_at=admitted.ends_at)
            if app.done():
                await self._finish(app, reply)
            elif not reply.body_was_read:
                raise _too_late("The request body did not arrive in time.")
            elif not watch.left.is_set():
                app.cancel()
                await reply.error(_too_late("The deadline of the request passed before the flow had an answer."))
        finally:
            reply.close()
            await self._stop(*watch.stop(), app, trace_id=reply.trace_id)

    async def _first_of(
        self, app: asyncio.Task[None], over: asyncio.Future[None], reply: Reply, *, ends_at: float
    ) -> None:
        """Returns when `app` is done, when somebody else says that it is `over`, or at the deadline."""
        left_s = max(0.0, ends_at - self._clock())
        app.add_done_callback(partial(_end, over))
        timer = asyncio.get_running_loop().call_later(left_s, _end, over)
        try:
            await over
        finally:
            timer.cancel()
        if reply.complete and not app.done():
            # Servers also report a disconnect once the answer is out; the application may still tidy up.
            await asyncio.wait({app}, timeout=max(0.0, ends_at - self._clock()))

    async def _finish(self, app: asyncio.Task[None], reply: Reply) -> None:
        if app.cancelled():
            await reply.error(cancelled_inside())
            return
        error = app.exception()
        if isinstance(error, ClientLeft | RequestRefused):
            raise error
        if error is not None:
            logger.error("The predictor failed on request %s.", reply.trace_id, exc_info=error)
            await reply.error(internal_error())

    async def _stop(self, *tasks: asyncio.Task[None], trace_id: str) -> None:
        """Cancels what still runs. A task that does not stop is logged, and waited for no longer."""
        running = [task for task in tasks if not task.done()]
        for task in running:
            task.cancel()
        stuck = (await asyncio.wait(running, timeout=CANCEL_GRACE_S))[1] if running else ()
        for task in tasks:
            if task.done():
                _retrieve(task)
        for task in stuck:
            logger.warning("Request %s was cancelled %.0f s ago and still runs.", trace_id, CANCEL_GRACE_S)
            self._stuck.add(task)
            task.add_done_callback(self._stuck.discard)
            task.add_done_callback(_retrieve)


class _Watch:
    """Waits for the client to leave, from a while after it was told to start. When it has, `left` is set and all is
    `over`."""

    def __init__(self, receive: Receive, over: asyncio.Future[None]) -> None:
        self._receive = receive
        self._over = over
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.left = asyncio.Event()

    def start_soon(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._start)

    def stop(self) -> tuple[asyncio.Task[None], ...]:
        """Starts no more; what there is to cancel."""
        if self._timer is not None:
            self._timer.cancel()
        return () if self._task is None else (self._task,)

    def _start(self) -> None:
        self._task = asyncio.create_task(self._watch())
        self._task.add_done_callback(partial(_end, self._over))

    async def _watch(self) -> None:
        try:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        finally:
            self.left.set()


def _end(over: asyncio.Future[None], _: object = None) -> None:
    if not over.done():
        over.set_result(None)


def _retrieve(task: asyncio.Task[None]) -> None:
    """What a request raises after it was given up interests nobody, least of all the event loop."""
    if not task.cancelled():
        task.exception()


def _replay(body: bytes, left: asyncio.Event) -> Receive:
    """A `receive` that gives the application the whole body at once, and then waits for the disconnect."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if pending:
            return pending.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    return receive


def _too_late(message: str) -> RequestRefused:
    return RequestRefused(message, status=408, code="deadline_exceeded")
