"""One private event loop in a thread, so that the sync calls work everywhere, also while a loop runs here."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

from .errors import HubClosedError, LLMHubRuntimeError

T = TypeVar("T")


class BackgroundLoop:
    """Starts with the first `run` and ends with `close`, or with the last reference to it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: weakref.finalize[Any, BackgroundLoop] | None = None
        self._closed = False

    @property
    def is_running(self) -> bool:
        """Whether there is a thread to wait for."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether the calling thread is the loop's own."""
        return threading.current_thread() is self._thread

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work` on the loop with this thread's context variables, and waits for it.

        An interrupt of the waiting thread cancels the work. Raises HubClosedError when the loop is closed
        before the work is done.
        """
        try:
            self.refuse_own_thread()
            future = self.submit(work)
        except BaseException:
            work.close()
            raise
        try:
            return future.result()
        except concurrent.futures.CancelledError as exc:
            if self._closed:
                raise HubClosedError("The hub was closed during the call.") from exc
            raise
        except BaseException:
            future.cancel()
            raise

    def run_later(self, work: Coroutine[Any, Any, Any]) -> None:
        """Runs `work` on the loop and does not wait; drops it when the loop is closed."""
        try:
            self.submit(work)
        except HubClosedError:
            work.close()

    def close(self) -> None:
        """Cancels what runs, closes what lives on the loop, ends the thread. May be called again."""
        self.refuse_own_thread()
        with self._lock:
            self._closed = True
        if self._thread is not None and self._stop is not None:
            self._stop()
            self._thread.join()

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Runs `work` on the loop with this thread's context variables. Raises HubClosedError."""
        # Under the lock, so that nothing is handed to a loop that has begun to close: it would never finish.
        with self._lock:
            if self._closed:
                raise HubClosedError("The hub is closed; make a new one.")
            return asyncio.run_coroutine_threadsafe(work, self._loop or self._start())

    def _start(self) -> asyncio.AbstractEventLoop:
        ready: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
        self._thread = threading.Thread(target=_serve, args=(ready,), name=self._name, daemon=True)
        self._thread.start()
        self._loop = ready.result()
        self._stop = weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)
        self._stop.atexit = False
        return self._loop

    def refuse_own_thread(self) -> None:
        """Raises LLMHubRuntimeError on the loop's own thread, where waiting for the loop would never end."""
        if self.is_current:
            raise LLMHubRuntimeError(
                "A hook may not use a sync method of its hub: it would wait for itself; use the async one."
            )


def _serve(ready: concurrent.futures.Future[asyncio.AbstractEventLoop]) -> None:
    # The Runner's exit cancels tasks, closes async generators (and with them their clients), then the loop.
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        loop.call_soon(ready.set_result, loop)
        loop.run_forever()
