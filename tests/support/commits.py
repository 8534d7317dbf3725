"""The ledger's part of the shared actor without Ray, and attempts to put through it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from agent_runtime.ledger.amounts import Amounts
from agent_runtime.ledger.records import MODEL, Entry
from agentflow_serve.commit_wire import WireCommand
from agentflow_serve.errors import LedgerAway
from agentflow_serve.ledger_commits import LedgerCommits
from runtime_core.call_log.log import CallLog
from runtime_core.call_log.records import Attempt
from support.call_log import attempt_of

MOST = Amounts(tokens=100, cost_micro=1000, requests=1, turns=1)


class Actor:
    """What a replica calls. `away` calls never arrive, `lost` answers never come back; both as Ray says so.

    While `late` is an event, calls are given up at once and done when it is set.
    """

    def __init__(self, commits: LedgerCommits) -> None:
        self.commits = commits
        self.calls: list[int] = []
        self.away = self.lost = False
        self.gate: asyncio.Event | None = None
        self.late: asyncio.Event | None = None
        self.behind: list[asyncio.Task[None]] = []

    async def call(self, method: str, url: str, commands: Sequence[WireCommand], *, timeout_s: float) -> Any:
        assert method == "ledger"
        self.calls.append(len(commands))
        if self.away:
            raise LedgerAway("away")
        if self.late is not None:
            self.behind.append(asyncio.create_task(self._catch_up(self.late, commands)))
            raise LedgerAway("late")
        if self.gate is not None:
            await self.gate.wait()
        answers = await self.commits.commit(commands)
        if self.lost:
            raise LedgerAway("lost")
        return answers

    async def _catch_up(self, late: asyncio.Event, commands: Sequence[WireCommand]) -> None:
        await late.wait()
        await self.commits.commit(commands)


def booked(log: CallLog, attempt_id: str, **facts: Any) -> tuple[Attempt, Entry]:
    """An attempt that is reserved now, and its entry."""
    attempt = attempt_of(log, attempt_id, **facts)
    entry = Entry(
        scope_id=attempt.scope_id,
        event_id=attempt_id,
        type=MODEL,
        at=attempt.reserved_at,
        most=MOST,
        principal_id=attempt.principal_id,
        role=attempt.role,
        run_id=attempt.run_id,
    )
    return attempt, entry
