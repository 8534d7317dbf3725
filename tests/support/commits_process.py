"""An actor to be killed and a replica that goes on: `python -m support.commits_process HOW URL FAILPOINT@HIT...`.

HOW is `kill`, or `stop`: the actor stands still at the failpoint and goes on when the replica has done its work.

For each failpoint one actor and one replica, in processes of their own; they talk over a socket. They are
forked from this one, which spares each the imports, and tell what they know as lines:

settled ID | died NUMBER SIGNAL
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import tempfile
import time
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
from runtime_core.stores.failpoints import arm
from support.call_log import say, settled
from support.commits import booked
from support.processes import forked

WORKERS = 4
ATTEMPTS = 8


def main(how: str, url: str, *failpoints: str) -> None:
    with tempfile.TemporaryDirectory(prefix="af-") as folder:
        for number, failpoint in enumerate(failpoints):
            socket = Path(folder) / f"{number}.sock"
            actor = forked(_serve(url, socket, failpoint, signal.SIGKILL if how == "kill" else signal.SIGSTOP))
            replica = forked(_spend(url, socket, number, hurried=how == "kill"))
            if os.waitpid(replica, 0)[1] != 0:
                os.kill(actor, signal.SIGKILL)
                raise SystemExit("the replica failed")
            if how == "stop":
                assert os.WIFSTOPPED(os.waitpid(actor, os.WUNTRACED)[1]), "it was never at the failpoint"
                os.kill(actor, signal.SIGCONT)
            say("died", number, os.waitstatus_to_exitcode(os.waitpid(actor, 0)[1]))


async def _serve(url: str, socket: Path, failpoint: str, ends_by: signal.Signals) -> None:
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

        name, _, hit = failpoint.partition("@")
        hits = itertools.count(1)
        arm(name, lambda: os.kill(os.getpid(), ends_by) if next(hits) == int(hit) else None)
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
            async with asyncio.timeout(timeout_s):
                if self._pipe is None:
                    self._pipe = await asyncio.open_unix_connection(self._socket, limit=2**22)
                reader, writer = self._pipe
                writer.write(json.dumps(commands).encode() + b"\n")
                if line := await reader.readline():
                    return json.loads(line)
        except OSError as exc:  # a TimeoutError is one
            raise LedgerAway("no connection, or no answer") from exc
        raise LedgerAway("it died under the call")

    def close(self) -> None:
        if self._pipe is not None:
            self._pipe[1].close()


async def _spend(url: str, socket: Path, number: int, *, hurried: bool) -> None:
    """`hurried` asks an actor again that did not answer a moment ago."""
    while not socket.exists():
        await asyncio.sleep(0.002)
    calls = _Calls(socket)
    async with AsyncExitStack() as stack:
        database = await RunStore(stack, url).database()
        log, leaps = CallLog(database, clock=SystemClock()), itertools.count(step=AWAY_S)
        clock = (lambda: next(leaps)) if hurried else time.monotonic
        commits = SharedCommits(calls, url, database, clock=clock)
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
