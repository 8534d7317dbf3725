"""One sandbox process, seen from the node that owns it: started, asked, stopped.

The socket is used through the loop's `sock_*` calls and the process is waited for in a thread: that works on
every event loop (uvloop too) and in every thread, where asyncio's own subprocesses do not.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flow_runtime.errors import CodeFailed
from flow_runtime.process_tree import kill_tree, stop_group
from flow_runtime.sandbox_frames import HEADER_BYTES, NotJson, decode, decode_length

WORKER = Path(__file__).with_name("sandbox_worker.py")
STDERR = 2


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one call. `left_behind`: the transform left threads or processes running."""

    ok: bool
    result: Any = None
    error: str | None = None
    message: str = ""
    line: int | None = None
    not_json: bool = False
    left_behind: bool = False


class SandboxProcess:
    """A worker process and the socket to it. Close it after any method that was cancelled or raised."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            self._socket = ours
            self._killed = False
            self._reaping = threading.Lock()
            try:
                self._process = subprocess.Popen(
                    # isolated from PYTHON* variables and the current directory; sys.path is sent to it
                    [sys.executable, "-I", str(WORKER), str(theirs.fileno()), str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=STDERR,  # what a transform prints belongs with the logs
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_usable(self) -> bool:
        """False once the process has hung up, or said something that nobody asked for."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    async def exchange(self, frame: bytes) -> Reply:
        """Send one frame and wait for its answer. Raises CodeFailed when the process dies over it."""
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._socket, frame)
            size = decode_length(await self._receive(loop, HEADER_BYTES))
            return Reply(**decode(await self._receive(loop, size)))
        except (OSError, EOFError):
            self.stop()
            status = await asyncio.to_thread(self.reap)
            raise CodeFailed(f"the sandbox process {_end(status)} before the transform returned") from None
        except NotJson as exc:
            raise CodeFailed(f"the sandbox's answer {exc}") from exc
        except (ValueError, TypeError) as exc:
            raise CodeFailed("the transform wrote into the sandbox's own channel") from exc

    def stop(self) -> None:
        """Nothing in its process group runs on, from now. Takes microseconds; `reap` has to follow."""
        if not self._killed:  # never after it was waited for: its id may be another's by then
            stop_group(self.pid)

    def close(self) -> None:
        """Stop it and let go of the socket; no exchange may be under way."""
        self.stop()
        self._socket.close()

    def reap(self) -> int:
        """Kill it with all that it started, wait for its end, give its status. Blocks: call in a thread."""
        with self._reaping:
            if not self._killed:
                self._killed = True
                kill_tree(self.pid)
        return self._process.wait()

    async def _receive(self, loop: asyncio.AbstractEventLoop, size: int) -> bytearray:
        received = bytearray()
        while len(received) < size:
            chunk = await loop.sock_recv(self._socket, min(size - len(received), 1 << 20))
            if not chunk:
                raise EOFError
            received += chunk
        return received


def _end(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "a real-time signal"
    return f"died with signal {-status} ({name})"
