"""A session whose writers are killed. AGENTFLOW_KILL_ROUNDS is the number of kills at each failpoint; 50 are 200."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from runtime_core.clock import SystemClock
from runtime_core.stores.sqlite import SqliteDatabase
from support.processes import lines_of
from support.sessions_process import ROOMY, turns_of
from support.stored_sessions import prepared_sessions

ROUNDS = int(os.environ.get("AGENTFLOW_KILL_ROUNDS", "3"))
FAILPOINTS = ("sessions.before_append", "sessions.after_append", "store.before_commit", "store.after_commit")


async def test_kill_9_around_an_append_loses_no_acknowledged_record_and_doubles_none(tmp_path: Path) -> None:
    # Another hit each time, so that the kill falls between other steps of the writers.
    points = [f"{name}@{1 + turn}" for turn in range(ROUNDS) for name in FAILPOINTS]
    said = await lines_of("sessions_process", tmp_path / "sessions.db", *points)
    assert [status for _, status in said["died"]] == ["-9"] * len(points)
    sent, kept = {run for [run] in said["sending"]}, {run: int(version) for run, version in said["kept"]}
    assert sent > set(kept), "the kills fell outside of every append"

    async with SqliteDatabase(tmp_path / "sessions.db", node_id="node-1") as database:
        sessions = await prepared_sessions(database, SystemClock(), limits=ROOMY)
        found = (await sessions.read(scope_id="tenant-1", session_id="s")).records
        for run, version in kept.items():
            assert list(found[version - 2 : version]) == turns_of(run), "where its writer was told"
        # What callers that live do with an append that nobody answered: they send it again.
        for run in sent:
            await sessions.append(scope_id="tenant-1", session_id="s", records=turns_of(run), base=0)
        found = (await sessions.read(scope_id="tenant-1", session_id="s")).records
    assert Counter(record.record_id for record in found) == Counter(
        record.record_id for run in sent for record in turns_of(run)
    )
