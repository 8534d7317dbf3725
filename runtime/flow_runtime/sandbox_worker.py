"""The other side of a sandbox: a process that runs one node's sync transform, call after call.

Started by path with the number of its socket and its parent's process id. It takes one frame that names the
code, then one per call. It may be killed at any moment, and it ends by itself when its parent does.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PARENT_IS_GONE = 0
# two that cannot change, and two that Python ignores so that writing fails with an error instead
KEEP = {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}


def main() -> None:
    channel, parent = int(sys.argv[1]), int(sys.argv[2])
    _tie_to(parent)
    _plain_signals()
    _keep_private(channel)
    sys.stdout.reconfigure(line_buffering=True)  # pyright: ignore[reportAttributeAccessIssue]
    hello = _read(channel)
    sys.path[:] = hello["sys_path"]
    serve(channel, hello)


def serve(channel: int, hello: dict[str, Any]) -> None:
    """Load the code that `hello` names, then answer calls until the parent hangs up."""
    from flow_runtime.sandbox_frames import encode
    from flow_runtime.user_code import explain

    filename = hello["filename"]
    try:
        fresh, filename = _load(hello)
    except BaseException as exc:  # noqa: BLE001 - a process edge: whatever foreign code raises becomes an answer
        _write(channel, encode(_failure(explain(exc, filename))))
        return
    _write(channel, encode({"ok": True}))
    while True:
        call = _read(channel)
        threads = _thread_count()
        try:
            answer = {"ok": True, "result": _run(fresh(), call)}
        except BaseException as exc:  # noqa: BLE001 - as above, SystemExit included
            answer = _failure(explain(exc, filename))
        answer["left_behind"] = _thread_count() > threads or _has_children()
        _write(channel, _encoded(answer))


def _load(hello: dict[str, Any]) -> tuple[Callable[[], Any], str]:
    """A way to get the transform for one call, and the file name of its code in tracebacks."""
    from flow_runtime import user_code

    if hello["module"] is not None:
        transform = user_code.import_transform(hello["module"])
        code = getattr(transform, "__code__", None)
        return lambda: transform, getattr(code, "co_filename", hello["filename"])
    code = user_code.compile_transform(hello["source"], hello["filename"])
    user_code.define_transform(code)
    return lambda: user_code.define_transform(code), hello["filename"]


def _run(transform: Callable[..., Any], call: dict[str, Any]) -> Any:
    from flow_runtime.context import FlowContext

    result = transform(call["inputs"], FlowContext(call["context"]), NoState())
    if not hasattr(result, "__await__"):
        return result
    import asyncio

    async def finish() -> Any:
        return await result

    return asyncio.run(finish())


class NoState:
    """Stands where the state would be, to say why it is not there."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"state.{name} is not there: a sync transform runs in a sandbox process without state; "
            "write 'async def transform' and 'await state.get(...)'"
        )


def _encoded(answer: dict[str, Any]) -> bytes:
    from flow_runtime.sandbox_frames import NotJson, encode

    try:
        return encode(answer)
    except NotJson as exc:
        failure = _failure((type(exc).__name__, f"the result {exc}", None))
        return encode({**failure, "not_json": True, "left_behind": answer["left_behind"]})


def _failure(explained: tuple[str, str, int | None]) -> dict[str, Any]:
    kind, message, line = explained
    return {"ok": False, "error": kind, "message": message, "line": line}


def _has_children() -> bool:
    """Whether a child process, or a child's orphan, still runs; reaps those that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _thread_count() -> int:
    import _thread

    return _thread._count()


def _tie_to(parent: int) -> None:
    """Die with the parent, and adopt the orphans of what the transform starts, so that none gets lost."""
    if sys.platform != "linux":
        return
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        os._exit(PARENT_IS_GONE)


def _plain_signals() -> None:
    """What the parent ignored or blocked, such as a server's SIGINT, means nothing here."""
    for number in signal.valid_signals() - KEEP:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _keep_private(channel: int) -> None:
    """A child of the transform must not hold the channel open after this process died."""
    os.set_inheritable(channel, False)
    still_open = [channel]

    def close() -> None:
        # a grandchild's number may be another file by now
        while still_open:
            os.close(still_open.pop())

    os.register_at_fork(after_in_child=close)


def _read(channel: int) -> dict[str, Any]:
    # the length and the parser are the parent's; the first frame comes before sys.path is known
    import json

    length = int.from_bytes(_read_exactly(channel, 4), "big")
    return json.loads(_read_exactly(channel, length))


def _read_exactly(channel: int, size: int) -> bytearray:
    received = bytearray()
    while len(received) < size:
        chunk = os.read(channel, min(size - len(received), 1 << 20))
        if not chunk:
            os._exit(PARENT_IS_GONE)
        received += chunk
    return received


def _write(channel: int, frame: bytes) -> None:
    rest = memoryview(frame)
    while rest:
        rest = rest[os.write(channel, rest) :]


if __name__ == "__main__":
    main()
