"""The any-llm clients of a hub: one per endpoint and event loop, reused, and closed here.

A client belongs to the event loop that first used it, and making one costs about 20 ms of CPU, so it is kept.
Each loop's clients hang on an async generator of that loop. Whoever ends the loop properly (`asyncio.run`, a
Runner) closes its async generators, and so closes the clients, on the right loop, even when nobody called
`close`.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import sys
import threading
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from .endpoints import Endpoint, missing_package
from .errors import HubClosedError, LLMHubRuntimeError

if TYPE_CHECKING:
    from any_llm import AnyLLM

log = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S = 5.0


def loaded_any_llm() -> type[AnyLLM] | None:
    """`any_llm.AnyLLM`, None before somebody has imported it."""
    return getattr(sys.modules.get("any_llm"), "AnyLLM", None)


async def load_any_llm() -> type[AnyLLM]:
    """`any_llm.AnyLLM`. The first import takes over a second, so it does not happen on the event loop."""
    if "any_llm" not in sys.modules:
        await asyncio.to_thread(importlib.import_module, "any_llm")
    from any_llm import AnyLLM

    return AnyLLM


class _LoopClients:
    """The clients of one event loop."""

    def __init__(self) -> None:
        self._clients: dict[Endpoint, AnyLLM] = {}
        self._holder = _close_at_end(self._clients)

    async def start(self) -> None:
        await anext(self._holder)

    def get(self, endpoint: Endpoint, any_llm: type[AnyLLM]) -> AnyLLM:
        client = self._clients.get(endpoint)
        if client is None:
            client = self._clients[endpoint] = create_client(endpoint, any_llm)
        return client

    async def aclose(self) -> None:
        await self._holder.aclose()


class ClientPool:
    """Safe to use from several threads and loops at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loops: dict[asyncio.AbstractEventLoop, _LoopClients] = {}
        self._closed = False

    async def get(self, endpoint: Endpoint, any_llm: type[AnyLLM]) -> AnyLLM:
        """The endpoint's client on the running loop. Raises HubClosedError, and what creating one raises."""
        loop = asyncio.get_running_loop()
        if (known := self._loops.get(loop)) is not None:
            return known.get(endpoint, any_llm)
        with self._lock:
            if self._closed:
                raise HubClosedError("The hub is closed; make a new one.")
            clients = self._loops.get(loop)
            if clients is None:
                self._forget_dead_loops()
                clients = self._loops[loop] = _LoopClients()
                is_new = True
            else:
                is_new = False
        if is_new:
            await clients.start()
        return clients.get(endpoint, any_llm)

    async def aclose(self) -> None:
        """Closes the clients of this loop and, through their own loops, all others."""
        here = asyncio.get_running_loop()
        for loop, clients in self._take_all():
            if loop is here:
                await clients.aclose()
            elif loop.is_running():
                closing = asyncio.run_coroutine_threadsafe(clients.aclose(), loop)
                try:
                    await asyncio.wait_for(asyncio.wrap_future(closing), _CLOSE_TIMEOUT_S)
                except TimeoutError:
                    log.warning("An event loop in another thread did not close its model clients in time.")
            elif not loop.is_closed():
                log.warning("The model clients of an event loop that is not running were not closed.")

    def close(self) -> None:
        """The same from synchronous code. Refused on a loop with clients: they need that loop to close."""
        self.check_closable_here()
        here = _running_loop()
        for loop, clients in self._take_all():
            if loop.is_running():
                closing = asyncio.run_coroutine_threadsafe(clients.aclose(), loop)
                try:
                    closing.result(_CLOSE_TIMEOUT_S)
                except TimeoutError:
                    log.warning("An event loop in another thread did not close its model clients in time.")
            elif not loop.is_closed() and here is None:
                loop.run_until_complete(clients.aclose())

    def check_closable_here(self) -> None:
        """Raises LLMHubRuntimeError where `close` would be refused."""
        here = _running_loop()
        if here is not None and here in self._loops:
            raise LLMHubRuntimeError(
                "close() cannot close the clients of the event loop that is running here; "
                "use `await hub.aclose()` or `async with`."
            )

    def _take_all(self) -> list[tuple[asyncio.AbstractEventLoop, _LoopClients]]:
        with self._lock:
            self._closed = True
            taken = list(self._loops.items())
            self._loops.clear()
        return taken

    def _forget_dead_loops(self) -> None:
        for loop in [loop for loop in self._loops if loop.is_closed()]:
            del self._loops[loop]


def create_client(endpoint: Endpoint, any_llm: type[AnyLLM]) -> AnyLLM:
    """A client that raises any-llm's own errors and never retries: retries belong to one layer above.

    Raises ConfigError when the provider's package is missing, else what any-llm raises.
    """
    from any_llm.exceptions import MissingApiKeyError

    options: dict[str, Any] = {"unified_exceptions": True, **endpoint.client_args}
    if endpoint.provider_class is None:
        options.setdefault("max_retries", 0)
        return any_llm.create_openai_compatible(
            endpoint.provider, endpoint.api_base or "", api_key=endpoint.api_key, **options
        )
    if endpoint.provider_class.MAX_RETRIES_SUPPORT != "unsupported":
        options.setdefault("max_retries", 0)
    try:
        return any_llm.create(endpoint.provider, api_key=endpoint.api_key, api_base=endpoint.api_base, **options)
    except ImportError as exc:
        raise missing_package(endpoint.provider) from exc
    except MissingApiKeyError as exc:
        if endpoint.key_name is None:
            raise
        raise MissingApiKeyError(endpoint.provider, endpoint.key_name) from exc


async def _close_at_end(clients: dict[Endpoint, AnyLLM]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        while clients:
            _, client = clients.popitem()
            await _close_client(client)


async def _close_client(llm: AnyLLM) -> None:
    """any-llm has no close of its own; every SDK client under it has one, named in one of two ways."""
    sdk_client = getattr(llm, "client", None)
    close = getattr(sdk_client, "aclose", None) or getattr(sdk_client, "close", None)
    if not callable(close):
        return
    try:
        closing = close()
        if inspect.isawaitable(closing):
            await closing
    except Exception:
        log.warning("Closing a client of %s failed.", llm.PROVIDER_NAME, exc_info=True)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
