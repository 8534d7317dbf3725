"""Spenders in processes: `python -m support.ledger_process COMMAND URL ...`.

race URL CALLERS FIRST_SECOND   four processes with CALLERS callers each, on a clock that begins at FIRST_SECOND
kill FILE FAILPOINT@HIT...      one process per failpoint; each reserves and settles attempts until it dies

The processes are forked from this one, which spares each the imports. They tell what they know as lines:

admitted ID | refused REASON | reserved ID | settled ID | died ROUND SIGNAL
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from datetime import UTC, datetime, timedelta

from agent_runtime import BudgetExceededError, EngineLedger, Ledger
from agent_runtime.ledger.writers import SqlLedgerWriter
from llm_client import RequestSpec
from llm_client.providers.protocol import Target
from runtime_core.call_log.records import Usage
from runtime_core.clock import SystemClock
from runtime_core.stores import open_database
from runtime_core.stores.failpoints import VARIABLE, arm_from_environment
from runtime_core.stores.sqlite import SqliteDatabase
from support.call_log import attempt_of, claim_of, say, settled
from support.ledgers import WHO
from support.processes import forked
from support.stores import persist

PROCESSES = 4
REQUEST = RequestSpec.of("Hello there", role="writer", max_tokens=20)


class ShiftedClock(SystemClock):
    """All processes that are forked from one see the same time."""

    def __init__(self, first_second: float) -> None:
        self._shift = first_second - time.monotonic()

    def now(self) -> datetime:
        return datetime.fromtimestamp(0, UTC) + timedelta(seconds=self._shift + time.monotonic())


class OneModel:
    """A provider of which only the name and the price are asked."""

    target = Target(role="writer", provider="sim", model="sim-1")


def main(command: str, place: str, *arguments: str) -> None:
    if command == "kill":
        for number, failpoint in enumerate(arguments):
            name, _, hit = failpoint.partition("@")
            child = forked(_spend_until_killed(place, number, f"{name}:kill@{hit}"))
            say("died", number, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        return
    callers, first_second = int(arguments[0]), arguments[1]
    clock = ShiftedClock(float(first_second))
    names = [f"{first_second}-{process}" for process in range(PROCESSES)]
    for child in [forked(_race(place, name, callers, clock)) for name in names]:
        assert os.waitpid(child, 0)[1] == 0


async def _race(url: str, name: str, callers: int, clock: ShiftedClock) -> None:
    async with open_database(url, node_id="node-1") as database:
        ledger = Ledger(SqlLedgerWriter(database), clock=clock)
        await asyncio.gather(*(_want(ledger, f"{name}-{number}") for number in range(callers)))


async def _want(ledger: Ledger, name: str) -> None:
    """One call with its full price; the store's own trouble is no refusal."""
    try:
        reservation = await persist(lambda: ledger.reserve(WHO, tokens=10, requests=1, reservation_id=name))
    except BudgetExceededError as exc:
        say("refused", exc.reason)
        return
    await asyncio.sleep(0)
    await persist(lambda: ledger.settle(reservation, Usage(input=4, output=6)))
    say("admitted", name)


async def _spend_until_killed(file: str, number: int, failpoints: str) -> None:
    async with SqliteDatabase(file, node_id="node-1") as database:
        accounts = EngineLedger(database, provider=OneModel(), clock=SystemClock())  # type: ignore[arg-type]
        await accounts.log.prepare()
        arm_from_environment({VARIABLE: failpoints})
        await asyncio.gather(*(_spend_for_ever(accounts, f"{number}-{worker}") for worker in range(4)))


async def _spend_for_ever(accounts: EngineLedger, name: str) -> None:
    log = accounts.log
    for step in range(1000):
        key = f"{name}-{step}"
        claim, attempt = claim_of(key, key=key), attempt_of(log, key, run_id="run-1", max_output_tokens=20)
        await accounts.guard.begin(attempt, REQUEST)
        await log.begin(claim)
        await log.reserve(attempt)
        say("reserved", key)
        await log.end_with_claim(attempt, settled(log, f'"to-{key}"'), claim)
        say("settled", key)


if __name__ == "__main__":
    main(*sys.argv[1:])
