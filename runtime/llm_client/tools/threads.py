"""A blocking function beside the event loop.

Each call has a thread of its own, a daemon: a function that never returns costs that thread, and neither the
loop's shared pool, which also resolves host names, nor the end of the process.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[[], T], *, ended: Callable[[], None]) -> T:
    """The result of `call`. When the caller is cancelled the function goes on; `ended` is called when it is over."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
    context = contextvars.copy_context()

    def settle(value: Any, error: BaseException | None) -> None:
        if not answer.done():
            answer.set_result((value, error))

    def work() -> None:
        value, error = None, None
        try:
            value = context.run(call)
        except BaseException as exc:  # noqa: BLE001 - raised again in the caller's task
            error = exc
        finally:
            ended()
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, value, error)

    try:
        threading.Thread(target=work, name="llm-tool", daemon=True).start()
    except RuntimeError:
        ended()
        raise
    value, error = await answer
    if error is not None:
        raise error
    return value
