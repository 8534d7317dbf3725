"""The simulated model on a port of its own, inside a running event loop.

Uses uvicorn's protocol without its server loop: no signal handlers, no logging set-up, no exit of the
process, and a stop that ends hanging answers at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from llmhub_runtime.sim.app import SimApp, create_app
from llmhub_runtime.sim.channel import HANG_UP
from llmhub_runtime.sim.errors import SimStartError
from llmhub_runtime.sim.log import LogEntry
from llmhub_runtime.sim.script import Script

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.server import ServerState

_BACKLOG = 2048
# Clients keep idle connections for a while; a server that closes them first causes spurious resets.
_KEEP_ALIVE_S = 600
_STOP_S = 5.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class SimServer:
    """The simulated model, from `start()` to `stop()` or as `async with`.

    `port=0` picks a free port. All methods belong to the event loop that started it. `read_only` keeps the
    script and the log from being changed over HTTP.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        script: Script | None = None,
        log_path: str | Path | None = None,
        read_only: bool = False,
    ) -> None:
        self._host = host
        self._port = port
        self._script = script
        self._log_path = log_path
        self._read_only = read_only
        self._app: SimApp | None = None
        self._server: asyncio.Server | None = None
        self._state: ServerState | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen. Raises SimStartError when the address or the log file cannot be used."""
        listener = _listen(self._host, self._port)
        try:
            app = create_app(self._script, self._log_path, read_only=self._read_only)
        except OSError as exc:
            listener.close()
            raise SimStartError(f"Cannot write the log file {self._log_path}: {exc.strerror}.") from exc
        self._port = listener.getsockname()[1]
        self._state, factory = _protocol(app)
        self._server = await asyncio.get_running_loop().create_server(factory, sock=listener, backlog=_BACKLOG)
        self._app = app

    async def stop(self) -> None:
        """Close every connection and end every answer. Does nothing when it is not running."""
        server, state, app = self._server, self._state, self._app
        self._server = None
        if server is None or state is None or app is None:
            return
        app.stopping = True
        server.close()
        for connection in list(state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        if state.tasks:
            _, late = await asyncio.wait(set(state.tasks), timeout=_STOP_S)
            for task in late:
                task.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), _STOP_S)
        # Aborted transports report their end one turn of the loop later.
        await asyncio.sleep(0)
        app.log.close()

    @property
    def port(self) -> int:
        return self._port

    @property
    def base_url(self) -> str:
        """Where Ollama clients and the control client connect."""
        host = "127.0.0.1" if self._host in ("0.0.0.0", "") else "[::1]" if self._host == "::" else self._host
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self._port}"

    @property
    def openai_base(self) -> str:
        """Where OpenAI clients connect."""
        return f"{self.base_url}/v1"

    def set_script(self, script: Script) -> None:
        """Use another script; its counters start at zero."""
        self._running().director.replace(script)

    def reset(self) -> None:
        """Back to the default answers and an empty log."""
        self.set_script(Script())
        self._running().log.clear()

    def log(self, *, since: int = 0) -> list[LogEntry]:
        """Entries with a `seq` above `since`, oldest first."""
        return self._running().log.entries(since=since)

    def applied(self) -> tuple[int, ...]:
        """How often each rule of the script has decided a request."""
        return self._running().director.applied

    def _running(self) -> SimApp:
        if self._app is None:
            raise SimStartError("The simulated model is not running; call start() first.")
        return self._app


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as exc:
        raise SimStartError(f"Cannot listen on {host}:{port}: {exc}. Choose another host or port.") from exc
    listener.setblocking(False)
    return listener


def _protocol(app: SimApp) -> tuple[ServerState, Any]:
    from uvicorn import Config
    from uvicorn.server import ServerState

    config = Config(
        app,  # pyright: ignore[reportArgumentType] - our scope is the plain dictionary
        interface="asgi3",
        lifespan="off",
        ws="none",
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
    config.load()
    state = ServerState()
    kind = _protocol_class()

    def factory() -> asyncio.Protocol:
        return kind(config=config, server_state=state, app_state={})

    return state, factory


def _protocol_class() -> Any:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class SimProtocol(HttpToolsProtocol):
        """uvicorn's protocol, which also lets the application hang up."""

        def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
            super().__init__(config=config, server_state=server_state, app_state=app_state)
            self.access_log = False

        def on_message_begin(self) -> None:
            super().on_message_begin()
            scope: Any = self.scope
            scope["extensions"] = {HANG_UP: self.hang_up}

        def hang_up(self, *, reset: bool) -> None:
            if reset:
                _reset_on_close(self.transport)
                self.transport.abort()
            else:
                self.transport.close()

    return SimProtocol


def _reset_on_close(transport: asyncio.Transport) -> None:
    """Closing will send RST, not FIN. Options belong to the socket, so a duplicate descriptor will do."""
    descriptor = transport.get_extra_info("socket").fileno()
    with socket.socket(fileno=os.dup(descriptor)) as duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
