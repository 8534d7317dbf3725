"""The simulated model as a child process that cannot outlive its parent.

The child's stdin is a pipe whose other end only the parent holds: when the parent ends, however it ends,
the pipe closes and the child exits by itself.
"""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from llmhub_runtime.sim.control import SimControl
from llmhub_runtime.sim.errors import SimStartError
from llmhub_runtime.sim.script import Script

READY = "agentflow-sim listening on "
FAILED = "agentflow-sim failed: "

_GRACE_S = 5.0


class SimProcess:
    """The child, from `start()` to `stop()`; also `with` and `async with`.

    `script` is a script or the path of a script file. Raises SimStartError when the child does not
    listen within `start_timeout_s`.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        script: Script | str | Path | None = None,
        log_path: str | Path | None = None,
        start_timeout_s: float = 30.0,
    ) -> None:
        self._host = host
        self._port = port
        self._script = script
        self._log_path = log_path
        self._start_timeout_s = start_timeout_s
        self._child: subprocess.Popen[bytes] | None = None
        self._base_url = ""
        self._lock = threading.Lock()

    def start(self) -> Self:
        """Start the child and wait until it listens. Does nothing when it runs."""
        with self._lock:
            if self._child is None:
                # A session of its own: Ctrl-C in the terminal reaches the parent, which then stops the child.
                self._child = subprocess.Popen(
                    self._command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
                )
                try:
                    self._base_url = self._await_url(self._child)
                    self._send_script()
                except BaseException:
                    self._end()
                    raise
        return self

    def stop(self) -> None:
        """End the child within a few seconds, by force if it must be. Does nothing when it does not run."""
        with self._lock:
            self._end()

    async def astart(self) -> Self:
        """`start()` without blocking the event loop."""
        try:
            return await asyncio.to_thread(self.start)
        except asyncio.CancelledError:
            # The thread goes on starting; stop() waits for it.
            await asyncio.shield(asyncio.to_thread(self.stop))
            raise

    async def astop(self) -> None:
        """`stop()` without blocking the event loop."""
        await asyncio.to_thread(self.stop)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await self.astart()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.astop()

    @property
    def base_url(self) -> str:
        """Where Ollama clients and the control client connect."""
        if not self._base_url:
            raise SimStartError("The simulated model is not running; call start() first.")
        return self._base_url

    @property
    def openai_base(self) -> str:
        """Where OpenAI clients connect."""
        return f"{self.base_url}/v1"

    @property
    def pid(self) -> int | None:
        """The child's process id, or None when it does not run."""
        return self._child.pid if self._child is not None else None

    def control(self) -> SimControl:
        """A client for the script and the log; the caller closes it."""
        return SimControl(self.base_url)

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "llmhub_runtime.sim", "--exit-with-stdin"]
        command += ["--host", self._host, "--port", str(self._port)]
        if self._script is not None and not isinstance(self._script, Script):
            command += ["--script", str(self._script)]
        if self._log_path is not None:
            command += ["--log", str(self._log_path)]
        return command

    def _send_script(self) -> None:
        if isinstance(self._script, Script):
            with self.control() as control:
                control.set_script(self._script)

    def _await_url(self, child: subprocess.Popen[bytes]) -> str:
        line = _first_line(child, time.monotonic() + self._start_timeout_s)
        if line.startswith(READY):
            return line.removeprefix(READY)
        if line.startswith(FAILED):
            raise SimStartError(line.removeprefix(FAILED), returncode=child.wait(_GRACE_S))
        if line:
            raise SimStartError(f"The simulated model's process said {line!r} instead of its address.")
        if child.poll() is None:
            raise SimStartError(f"The simulated model did not listen within {self._start_timeout_s:g} s.")
        raise SimStartError(
            f"The simulated model's process ended with code {child.returncode} before it listened.",
            returncode=child.returncode,
        )

    def _end(self) -> None:
        child, self._child, self._base_url = self._child, None, ""
        if child is None:
            return
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        try:
            child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _first_line(child: subprocess.Popen[bytes], deadline: float) -> str:
    """The first line of the child's output; shorter when it ended or the deadline passed."""
    assert child.stdout is not None
    descriptor = child.stdout.fileno()
    read = b""
    while not read.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        part = os.read(descriptor, 4096) if ready else b""
        if not part:
            if ready:
                child.wait(_GRACE_S)
            break
        read += part
    return read.decode("utf-8", "replace").strip()
