"""Writers of one session in processes to be killed: `python -m support.sessions_process FILE FAILPOINT@HIT...`.

One process per failpoint, one after the other; in each four runs at a time append their turns until it dies. The
processes are forked from this one, which spares each the imports. They tell what they know as lines:

sending RUN | kept RUN VERSION | died ROUND SIGNAL
"""

from __future__ import annotations

import asyncio
import os
import sys

from runtime_core.clock import SystemClock
from runtime_core.sessions.ops import SessionLimits
from runtime_core.sessions.records import SessionRecord
from runtime_core.sessions.store import StoredSessions
from runtime_core.stores.failpoints import VARIABLE, arm_from_environment
from runtime_core.stores.sqlite import SqliteDatabase
from support.call_log import say
from support.stored_sessions import prepared_sessions, said

ROOMY = SessionLimits(max_records=10**6, max_bytes=2**30)


def turns_of(run_id: str) -> list[SessionRecord]:
    return [said(text, run_id=run_id) for text in ("question", "answer")]


def main(file: str, *failpoints: str) -> None:
    for number, failpoint in enumerate(failpoints):
        name, _, hit = failpoint.partition("@")
        if (child := os.fork()) == 0:
            asyncio.run(_append_until_killed(file, number, f"{name}:kill@{hit}"))
            os._exit(1)
        say("died", number, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


async def _append_until_killed(file: str, number: int, failpoints: str) -> None:
    async with SqliteDatabase(file, node_id="node-1") as database:
        sessions = await prepared_sessions(database, SystemClock(), limits=ROOMY)
        arm_from_environment({VARIABLE: failpoints})
        await asyncio.gather(*(_append_for_ever(sessions, f"{number}-{worker}") for worker in range(4)))


async def _append_for_ever(sessions: StoredSessions, name: str) -> None:
    for step in range(1000):
        run_id = f"{name}-{step}"
        say("sending", run_id)
        version = await sessions.append(scope_id="tenant-1", session_id="s", records=turns_of(run_id), base=0)
        say("kept", run_id, version)


if __name__ == "__main__":
    main(*sys.argv[1:])
