"""The call log in processes that are killed, or that want the same keys.

AGENTFLOW_KILL_ROUNDS is the number of kills at each failpoint.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

from runtime_core.call_log.keys import Done, InFlight, Started
from runtime_core.call_log.log import CallLog
from runtime_core.call_log.records import AttemptStatus, LoggedAttempt
from runtime_core.clock import ManualClock, SystemClock
from runtime_core.stores.sqlite import SqliteDatabase
from support.call_log import SETTLED, claim_of, prepared
from support.processes import lines_of

ROUNDS = int(os.environ.get("AGENTFLOW_KILL_ROUNDS", "10"))
FAILPOINTS = (
    "call_log.before_reserve",
    "call_log.after_reserve",
    "call_log.before_end",
    "call_log.after_end",
    "store.before_commit",
    "store.after_commit",
)
WORKERS = 4


async def rows_of(log: CallLog) -> dict[str, LoggedAttempt]:
    page = await log.attempts("tenant-1", limit=1_000_000)
    return {row.attempt.attempt_id: row for row in page.attempts}


async def test_kill_9_at_every_failpoint_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    # Another hit each time, so that the kill falls between other steps of the workers.
    points = [f"{name}@{1 + turn}" for turn in range(ROUNDS) for name in FAILPOINTS]
    said = await lines_of("call_log_process", "kill", tmp_path / "calls.db", *points)
    assert [status for _, status in said["died"]] == ["-9"] * len(points)

    async with SqliteDatabase(tmp_path / "calls.db", node_id="node-1") as database:
        clock = ManualClock(SystemClock().now())
        log = await prepared(database, clock)
        rows = await rows_of(log)
        assert {key for [key] in said["reserved"]} <= set(rows)
        for key, attempt_id, answer in said["done"]:
            assert (attempt_id, rows[key].status) == (key, SETTLED)
            assert await log.answer("tenant-1", rows[key].answer_hash or "") == answer
        assert len(rows) - len(said["reserved"]) <= WORKERS * len(points)
        assert len(rows) - len(said["done"]) <= WORKERS * len(points)

        await check_keys(log, rows)
        await check_recovery(log, clock, rows)


async def check_keys(log: CallLog, rows: dict[str, LoggedAttempt]) -> None:
    """Settled and answered are one commit: no attempt is settled whose key does not say so."""
    for key, row in rows.items():
        state = await log.begin(claim_of("visitor", key=key))
        assert isinstance(state, Done if row.status is SETTLED else InFlight)
        if isinstance(state, Done):
            assert (state.answer.attempt_id, state.answer.text) == (key, f'"to-{key}"')


async def check_recovery(log: CallLog, clock: ManualClock, rows: dict[str, LoggedAttempt]) -> None:
    """After its lease every open attempt is counted as unknown, and its key is somebody else's."""
    clock.advance(120)
    opened = {key for key, row in rows.items() if row.status is AttemptStatus.RESERVED}
    assert opened, "the kills fell outside of every call"
    assert {row.attempt.attempt_id for row in await log.expire(limit=1_000_000)} == opened
    sums = await log.totals("tenant-1", "run-1")
    assert (sums.open, sums.unknown, sums.attempts) == (0, len(opened), len(rows))
    for key in opened:
        assert isinstance(await log.begin(claim_of("heir", key=key)), Started)


async def test_two_processes_that_want_one_key_execute_it_once(tmp_path: Path) -> None:
    said = await lines_of("call_log_process", "race", tmp_path / "calls.db")

    answers: dict[str, set[str]] = defaultdict(set)
    for key, _, answer in said["done"]:
        answers[key].add(answer)
    assert len(answers) > 30
    assert [len(found) for found in answers.values()] == [1] * len(answers)
    async with SqliteDatabase(tmp_path / "calls.db", node_id="node-1") as database:
        rows = await rows_of(await prepared(database, SystemClock()))
    assert len(rows) == len(answers)
    assert {row.status for row in rows.values()} == {SETTLED}
