"""Executors of idempotency keys in processes to be killed: `python -m support.call_log_process COMMAND FILE ...`.

kill FILE FAILPOINT@HIT...   one process per failpoint, one after the other; each executes keys until it dies
race FILE                    two processes at once that want the answers to the same keys, one after the other

The processes are forked from this one, which spares each the imports. They tell what they know as lines:

reserved ID | done KEY ID ANSWER | died ROUND SIGNAL
"""

from __future__ import annotations

import asyncio
import os
import sys

from runtime_core.call_log.keys import Done
from runtime_core.call_log.log import CallLog
from runtime_core.clock import SystemClock
from runtime_core.stores.failpoints import VARIABLE, arm_from_environment
from runtime_core.stores.sqlite import SqliteDatabase
from support.call_log import attempt_of, claim_of, execute_once, prepared, say, settled
from support.processes import forked


def main(command: str, file: str, *arguments: str) -> None:
    if command == "kill":
        for number, failpoint in enumerate(arguments):
            name, _, hit = failpoint.partition("@")
            child = forked(_execute_until_killed(file, number, f"{name}:kill@{hit}"))
            say("died", number, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    else:
        for child in [forked(_want_all(file, number)) for number in range(2)]:
            assert os.waitpid(child, 0)[1] == 0


async def _execute_until_killed(file: str, number: int, failpoints: str) -> None:
    async with SqliteDatabase(file, node_id="node-1") as database:
        log = await prepared(database, SystemClock())
        arm_from_environment({VARIABLE: failpoints})
        await asyncio.gather(*(_execute_for_ever(log, f"{number}-{worker}") for worker in range(4)))


async def _execute_for_ever(log: CallLog, name: str) -> None:
    for step in range(1000):
        key = f"{name}-{step}"
        claim, attempt = claim_of(key, key=key), attempt_of(log, key, run_id="run-1")
        await log.begin(claim)
        await log.reserve(attempt)
        say("reserved", key)
        completion = await log.end_with_claim(attempt, settled(log, f'"to-{key}"'), claim)
        assert isinstance(completion.key, Done)
        say("done", key, completion.key.answer.attempt_id, completion.key.answer.text)


async def _want_all(file: str, number: int) -> None:
    """At least 30 keys, and until this process has executed some of them and the other one some."""
    async with SqliteDatabase(file, node_id="node-1") as database:
        log = await prepared(database, SystemClock())
        executed: set[bool] = set()
        for step in range(3000):
            name = f"{number}-{step}"
            answer, mine = await execute_once(log, claim_of(name, key=f"key-{step}"), name)
            say("done", f"key-{step}", name, answer)
            executed.add(mine)
            if mine:  # whoever is ahead lets the other catch up: else it stays ahead on a busy machine
                await asyncio.sleep(0.002)
            if step >= 30 and len(executed) == 2:
                return
        raise SystemExit("the other process never got a key")


if __name__ == "__main__":
    main(*sys.argv[1:])
