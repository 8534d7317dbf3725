"""kill -9 around a call: the log and the model's own log agree row by row, and each key gets one answer.

AGENTFLOW_KILL_ROUNDS is the number of kills at each place.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from llmhub_runtime.sim import SimServer, parse_script
from runtime_core.call_log.log import CallLog
from runtime_core.call_log.records import AttemptStatus, LoggedAttempt
from runtime_core.clock import SystemClock
from runtime_core.stores.sqlite import SqliteDatabase
from support.engine import check_books
from support.engine_process import zygote
from support.waiting import until

ROUNDS = int(os.environ.get("AGENTFLOW_KILL_ROUNDS", "2"))

PLACES = {
    # where the process is killed: whether the model has then been asked
    "call_log.before_reserve": False,
    "call_log.after_reserve": False,
    "call_log.before_end": True,
    "call_log.after_end": True,
    "store.before_commit@2": False,  # the key is being claimed
    "store.after_commit@2": False,
    "store.before_commit@3": False,  # the row is being reserved
    "store.after_commit@3": False,
    "store.before_commit@4": True,  # the answer is being stored
    "store.after_commit@4": True,
    "while the model answers": True,
}


async def books(file: Path) -> list[LoggedAttempt]:
    """Every row, once what the dead had in flight has been given up."""
    async with SqliteDatabase(file) as database:
        log = CallLog(database, clock=SystemClock())
        async with asyncio.timeout(60):
            while True:
                await log.expire()
                rows = (await log.attempts("default", limit=1000)).attempts
                if all(row.status is not AttemptStatus.RESERVED for row in rows):
                    return rows
                await asyncio.sleep(0.02)


@pytest.mark.timeout(3600)
async def test_a_killed_process_leaves_true_books_and_its_key_to_the_next_one(tmp_path: Path) -> None:
    async with SimServer() as sim, zygote() as mother:
        for place, asked in PLACES.items():
            during = place.startswith("while")
            name, _, hit = place.partition("@")
            failpoints = "" if during else f"{name}:kill" + (f"@{hit}" if hit else "")
            file, reply = tmp_path / f"{place}.db", {"latency_ms": 2000 if during else 0}
            sim.reset()
            key, first = "", None
            for number in range(ROUNDS):
                stream, before = number % 2 == 1, len(sim.log())
                sim.set_script(parse_script({"rules": [{"match": {"times": 1}, "reply": reply}]}))
                child = await mother.fork(
                    base=sim.openai_base, file=file, key=f"k{number}", failpoints=failpoints, stream=stream
                )
                if during:
                    await until(lambda before=before: len(sim.log()) > before, within_s=60, what=f"{place}: a request")
                    os.kill(child.pid, signal.SIGKILL)
                assert await child.ended() == (-signal.SIGKILL, None), place
                assert (len(sim.log()) > before) is asked, place

            # Who comes after takes over, or is given the answer if it was stored.
            for number in range(ROUNDS):
                key = f"k{number}"
                child = await mother.fork(base=sim.openai_base, file=file, key=key)
                status, first = await child.ended()
                assert status == 0 and first is not None
                assert first.cached is (place in ("call_log.after_end", "store.after_commit@4")), place
            child = await mother.fork(base=sim.openai_base, file=file, key=key)
            assert first is not None
            assert await child.ended() == (0, first.model_copy(update={"cached": True}))
            await until(
                lambda: all(entry.outcome != "open" for entry in sim.log()), what=f"{place}: every answer's end"
            )
            rows = await books(file)
            check_books(rows, sim.log())
            settled = [row for row in rows if row.status is AttemptStatus.SETTLED]
            assert len(settled) == ROUNDS, place
            lost = [row for row in rows if row.status is AttemptStatus.UNKNOWN]
            has_row_of_the_dead = name in ("call_log.after_reserve", "call_log.before_end") or place in (
                "store.after_commit@3",
                "store.before_commit@4",
                "while the model answers",
            )
            assert len(lost) == (ROUNDS if has_row_of_the_dead else 0), place
