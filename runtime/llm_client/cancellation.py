"""Calling off work that has been handed on: the token is given along, whoever holds it may cancel."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from llm_client.errors import CallCancelled


class CancellationToken:
    """Cancelled once, for ever, from any thread. A child is cancelled with its parent, never the other way round."""

    def __init__(self, *, parent: CancellationToken | None = None) -> None:
        self._lock = threading.Lock()
        self._callbacks: dict[object, Callable[[], object]] = {}
        self._reason: str | None = None
        if parent is not None:
            parent.on_cancel(lambda: self.cancel(parent.reason or ""))

    @property
    def is_cancelled(self) -> bool:
        return self._reason is not None

    @property
    def reason(self) -> str | None:
        """Why; None while it is not cancelled."""
        return self._reason

    def cancel(self, reason: str = "it was cancelled") -> None:
        """Does nothing the second time."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            callbacks = list(self._callbacks.values())
            self._callbacks.clear()
        for callback in callbacks:
            callback()

    def child(self) -> CancellationToken:
        return CancellationToken(parent=self)

    def raise_if_cancelled(self) -> None:
        """Raises CallCancelled."""
        if self._reason is not None:
            raise CallCancelled(f"The call was cancelled: {self._reason}.")

    def on_cancel(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` when it is cancelled, at once if it is already; what is returned takes it back."""
        mark = object()
        with self._lock:
            if self._reason is None:
                self._callbacks[mark] = callback
                return lambda: self._forget(mark)
        callback()
        return lambda: None

    async def wait(self) -> None:
        """Return when it is cancelled."""
        loop, cancelled = asyncio.get_running_loop(), asyncio.Event()
        take_back = self.on_cancel(lambda: loop.call_soon_threadsafe(cancelled.set))
        try:
            await cancelled.wait()
        finally:
            take_back()

    def scope(self) -> CancellationScope:
        """`async with`: the block ends with CallCancelled when the token is cancelled."""
        return CancellationScope(self)

    def _forget(self, mark: object) -> None:
        with self._lock:
            self._callbacks.pop(mark, None)


class CancellationScope:
    """Ends a block as asyncio.timeout does: the task is cancelled, and what comes out is an error of ours."""

    def __init__(self, token: CancellationToken) -> None:
        self._token = token
        self._struck = False

    async def __aenter__(self) -> Self:
        self._token.raise_if_cancelled()
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        if task is None:
            raise RuntimeError("a cancellation scope needs a task to cancel")
        self._task: asyncio.Task[object] | None = task
        self._before = task.cancelling()
        self._take_back = self._token.on_cancel(lambda: loop.call_soon_threadsafe(self._strike))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._take_back()
        task, self._task = self._task, None
        if self._struck and task is not None and task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise CallCancelled(f"The call was cancelled: {self._token.reason}.") from error

    def _strike(self) -> None:
        if self._task is not None:
            self._struck = True
            self._task.cancel()
