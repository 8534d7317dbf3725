"""A node's sandbox: processes that run its sync transform, so that it can be stopped at its timeout.

It bounds time and keeps a crash out of the server. It is no security boundary: the code is the operator's
(IR.md Q43) and has the rights and the environment of the server.

Each call has a worker process to itself and a fresh namespace in it, so that calls of different tenants do
not meet in a global; what the code imports is shared between the calls of a worker. A call that is stopped,
crashes its worker or leaves threads or processes behind costs that worker; the next call starts another.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any, Self

from agentflow.ir import Code
from flow_runtime.errors import CodeFailed, CodeTimeout
from flow_runtime.sandbox_frames import NotJson, encode
from flow_runtime.sandbox_process import Reply, SandboxProcess
from flow_runtime.user_code import filename_of

MOST_WORKERS = 8
LOAD_TIMEOUT_S = 30.0


class Sandbox:
    """Worker processes for one node's code, as many as calls are running, at most `size` (and MOST_WORKERS).

    Belongs to the event loop that uses it. `async with` starts the first worker and ends all of them.
    """

    def __init__(self, *, code: Code, node_id: str, size: int | None = None) -> None:
        self._node_id = node_id
        self._code = code
        self._size = min(size or MOST_WORKERS, MOST_WORKERS)
        self._slots = asyncio.Semaphore(self._size)
        self._idle: list[SandboxProcess] = []
        self._busy: set[SandboxProcess] = set()
        self._starting: list[asyncio.Task[SandboxProcess]] = []
        self._reaping: set[asyncio.Future[int]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Have one worker ready. Raises CodeFailed when the code does not load."""
        async with self._slots:
            self._put_back(await self._take())

    async def call(self, inputs: Mapping[str, Any], context: Mapping[str, Any], *, timeout_s: float) -> Any:
        """What `transform(inputs, context, state)` returns.

        Raises CodeTimeout after `timeout_s` seconds, with the worker and all that it started killed;
        CodeFailed when the transform raises, dies or returns what is not JSON, or an input is not JSON.
        """
        try:
            frame = encode({"inputs": dict(inputs), "context": dict(context)})
        except NotJson as exc:
            raise CodeFailed(f"the inputs cannot go to the sandbox: the data {exc}") from exc
        started = False
        try:
            async with asyncio.timeout(timeout_s), self._slots:
                process = await self._take()
                started = True
                reply = await self._ask(process, frame)
        except TimeoutError as exc:
            waited = f"no sandbox process was free and ready within {timeout_s:g} s"
            message = f"the transform was stopped after {timeout_s:g} s" if started else waited
            raise CodeTimeout(message, timeout_s=timeout_s) from exc
        return _result(reply)

    async def aclose(self) -> None:
        """End every worker, also those at work: their calls fail."""
        self._closed = True
        for process in self._busy:
            self._reap(process)
        await self._until_no_call_is_left()
        for start in await asyncio.gather(*self._starting, return_exceptions=True):
            if isinstance(start, SandboxProcess):
                self._retire(start)
        self._starting.clear()
        while self._idle:
            self._retire(self._idle.pop())
        await asyncio.gather(*self._reaping)

    async def _ask(self, process: SandboxProcess, frame: bytes) -> Reply:
        try:
            reply = await self._exchange(process, frame)
        except BaseException:
            await self._retired(process)
            raise
        if reply.left_behind:
            await self._retired(process)
        else:
            self._put_back(process)
        return reply

    async def _exchange(self, process: SandboxProcess, frame: bytes) -> Reply:
        self._busy.add(process)
        try:
            return await process.exchange(frame)
        finally:
            self._busy.discard(process)

    async def _until_no_call_is_left(self) -> None:
        for _ in range(self._size):
            await self._slots.acquire()
        for _ in range(self._size):
            self._slots.release()

    async def _take(self) -> SandboxProcess:
        while self._idle:
            process = self._idle.pop()
            if process.is_usable():
                return process
            self._retire(process)
        # A start outlives the call that asked for it: else code that takes longer to load than the
        # timeout of its node would never be loaded at all. The next call goes on waiting for it.
        start = self._starting.pop() if self._starting else asyncio.create_task(self._start_worker())
        try:
            return await asyncio.shield(start)
        except asyncio.CancelledError:
            self._starting.append(start)
            raise

    def _put_back(self, process: SandboxProcess) -> None:
        if self._closed:
            self._retire(process)
        else:
            self._idle.append(process)

    async def _retired(self, process: SandboxProcess) -> None:
        """Retire a process and wait until nothing of it runs. It goes on if the wait is cancelled."""
        await asyncio.wait({self._retire(process)})

    def _retire(self, process: SandboxProcess) -> asyncio.Future[int]:
        process.close()
        return self._reap(process)

    def _reap(self, process: SandboxProcess) -> asyncio.Future[int]:
        reaping = asyncio.get_running_loop().run_in_executor(None, process.reap)
        self._reaping.add(reaping)
        reaping.add_done_callback(self._reaping.discard)
        return reaping

    async def _start_worker(self) -> SandboxProcess:
        if self._closed:
            raise CodeFailed(f"the sandbox of node '{self._node_id}' is closed")
        hello = {
            "source": self._code.spec,
            "module": self._code.module,
            "filename": filename_of(self._node_id),
            "sys_path": sys.path,
        }
        try:
            process = SandboxProcess()
        except OSError as exc:
            raise CodeFailed(f"no sandbox process could be started: {os.strerror(exc.errno or 0)}") from exc
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                _result(await self._exchange(process, encode(hello)))
        except BaseException as exc:
            self._retire(process)
            if isinstance(exc, TimeoutError):
                message = f"the code took longer than {LOAD_TIMEOUT_S:g} s to load"
                raise CodeFailed(message) from exc
            raise
        return process


def _result(reply: Reply) -> Any:
    if reply.ok:
        return reply.result
    if reply.not_json:
        raise CodeFailed(reply.message)
    raise code_failed(str(reply.error), reply.message, reply.line)


def code_failed(error: str, message: str, line: int | None) -> CodeFailed:
    """What a transform raised, as an error of ours."""
    text = f"{error}: {message}" if message else error
    where = "" if line is None else f" at line {line}"
    return CodeFailed(f"the transform raised {text}{where}", error=error, line=line)
