"""An actor to be killed and a replica that goes on: `python -m support.commits_process URL FAILPOINT@HIT...`.

For each failpoint one actor and one replica, in processes of their own; they talk over a socket. They are
forked from this one, which spares each the imports, and tell what they know as lines:

settled ID | died NUMBER SIGNAL
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from agentflow_serve.actor_or_store import AWAY_S
from agentflow_serve.errors import LedgerAway
from agentflow_serve.ledger_commits import LedgerCommits
from agentflow_serve.run_store import RunStore
from agentflow_serve.shared_commits import SharedCommits
from runtime_core.call_log.log import CallLog
from runtime_core.clock import SystemClock
from runtime_core.stores.failpoints import VARIABLE, arm_from_environment
from support.call_log import say, settled
from support.commits import booked
from support.processes import forked

WORKERS = 4
ATTEMPTS = 8


def main(url: str, *failpoints: str) -> None:
    with tempfile.TemporaryDirectory(prefix="af-") as folder:
        for number, failpoint in enumerate(failpoints):
            name, _, hit = failpoint.partition("@")
            socket = Path(folder) / f"{number}.sock"
            actor = forked(_serve(url, socket, f"{name}:kill@{hit}"))
            replica = forked(_spend(url, socket, number))
            assert os.waitpid(replica, 0)[1] == 0
            say("died", number, os.waitstatus_to_exitcode(os.waitpid(actor, 0)[1]))


async def _serve(url: str, socket: Path, failpoints: str) -> None:
    """The actor: a call is a line, and so is its answer."""
    async with AsyncExitStack() as stack:
        commits = LedgerCommits(RunStore(stack, url))
        gone = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                answers = await commits.commit(json.loads(line))
                writer.write(json.dumps(answers).encode() + b"\n")
            writer.close()
            gone.set()

        arm_from_environment({VARIABLE: failpoints})
        async with await asyncio.start_unix_server(serve, socket, limit=2**22):
            await gone.wait()


class _Calls:
    """The replica's end of the socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._pipe: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        _, commands = args
        try:
            if self._pipe is None:
                self._pipe = await asyncio.open_unix_connection(self._socket, limit=2**22)
            reader, writer = self._pipe
            writer.write(json.dumps(commands).encode() + b"\n")
            if line := await reader.readline():
                return json.loads(line)
        except OSError as exc:
            raise LedgerAway("no connection") from exc
        raise LedgerAway("it died under the call")

    def close(self) -> None:
        if self._pipe is not None:
            self._pipe[1].close()


async def _spend(url: str, socket: Path, number: int) -> None:
    while not socket.exists():
        await asyncio.sleep(0.002)
    calls = _Calls(socket)
    async with AsyncExitStack() as stack:
        database = await RunStore(stack, url).database()
        log, hurried = CallLog(database, clock=SystemClock()), itertools.count(step=AWAY_S)
        commits = SharedCommits(calls, url, database, clock=lambda: next(hurried))
        await asyncio.gather(*(_attempts(log, commits, f"{number}-{worker}") for worker in range(WORKERS)))
    calls.close()


async def _attempts(log: CallLog, commits: SharedCommits, name: str) -> None:
    for step in range(ATTEMPTS):
        attempt, entry = booked(log, f"{name}-{step}")
        assert await commits.reserve(attempt, entry) is None
        await commits.end(attempt, settled(log), entry)
        say("settled", attempt.attempt_id)


if __name__ == "__main__":
    main(*sys.argv[1:])
