"""Engines over a simulated model, and the check that the call log and the model's own log tell the same story."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from llm_client import ExecutionEngine, HubRouter, RetryPolicy
from llmhub_runtime import LLMHub, parse_runtime_config
from llmhub_runtime.sim import LogEntry, SimServer, parse_script
from runtime_core.call_log.keys import MAX_KEYS
from runtime_core.call_log.log import CallLog
from runtime_core.call_log.records import AttemptStatus, LoggedAttempt
from runtime_core.clock import Clock, SystemClock
from runtime_core.stores import Database
from runtime_core.stores.memory import MemoryDatabase

SCOPE = "default"
QUICK = RetryPolicy(attempts=3, backoff_s=0.001)
"""Three tries, hardly a pause."""
ROLES: dict[str, dict[str, Any]] = {
    "chat": {"provider": "sim", "model": "m", "mode": "chat", "price": {"input": 2, "output": 10}},
    "other": {"provider": "sim", "model": "o", "mode": "chat"},
    "embed": {"provider": "sim", "model": "e", "mode": "embedding"},
}


def hub_for(sim: SimServer, roles: Mapping[str, Mapping[str, Any]] | None = None, *, base: str = "") -> LLMHub:
    """`roles` change or extend ROLES."""
    merged = {name: {**ROLES.get(name, {}), **changes} for name, changes in (roles or {}).items()}
    document = {
        "project": "tests",
        "env": "test",
        "providers": {"sim": {"api_base": base or sim.openai_base}},
        "roles": {**ROLES, **merged},
    }
    return LLMHub(config_obj=parse_runtime_config(document))


@dataclass
class Rig:
    """An engine, the simulated model that it talks to, and the log that it writes."""

    engine: ExecutionEngine
    sim: SimServer
    log: CallLog
    events: list[str]

    def script(self, *rules: Mapping[str, Any]) -> None:
        self.sim.set_script(parse_script({"rules": list(rules)}))

    def reply(self, **reply: Any) -> None:
        """Every request gets this one."""
        self.script({"reply": reply})

    async def rows(self, scope_id: str = SCOPE) -> list[LoggedAttempt]:
        return (await self.log.attempts(scope_id, limit=10_000)).attempts

    async def row(self) -> LoggedAttempt:
        [row] = await self.rows()
        return row

    def sent(self) -> list[LogEntry]:
        return [entry for entry in self.sim.log() if entry.kind in ("chat", "embedding")]


@asynccontextmanager
async def rig(
    *,
    roles: Mapping[str, Mapping[str, Any]] | None = None,
    database: Database | None = None,
    clock: Clock | None = None,
    sim: SimServer | None = None,
    base: Callable[[SimServer], str] = lambda sim: sim.openai_base,
    max_keys: int = MAX_KEYS,
    **options: Any,
) -> AsyncIterator[Rig]:
    """An engine with every role of ROLES. What the test leaves behind is checked by the caller."""
    events: list[str] = []
    own = sim or SimServer()
    if sim is None:
        await own.start()
    try:
        async with database or MemoryDatabase() as opened, hub_for(own, roles, base=base(own)) as hub:
            log = CallLog(opened, clock=clock or SystemClock(), max_keys=max_keys)
            await log.prepare()
            options.setdefault("retry", QUICK)
            async with ExecutionEngine(
                router=HubRouter(hub), log=log, hooks=lambda event: events.append(event.name), clock=clock, **options
            ) as engine:
                yield Rig(engine, own, log, events)
    finally:
        if sim is None:
            await own.stop()


def check_books(rows: Sequence[LoggedAttempt], sent: Sequence[LogEntry], *, ended: bool = True) -> None:
    """The invariants I1 and I2, with the attempt id as the only link.

    Every request that the model saw has one row; every settled row was seen, with the model's own counts; what is
    only estimated is not below what the model delivered as text.
    """
    by_id = {row.attempt.attempt_id: row for row in rows}
    assert len(by_id) == len(rows)
    seen = {entry.attempt_id: entry for entry in sent}
    assert len(seen) == len(sent), "a request without an attempt id of its own"
    assert seen.keys() <= by_id.keys(), "the model saw a request that has no row"
    for attempt_id, row in by_id.items():
        entry = seen.get(attempt_id or "")
        if ended:
            assert row.status is not AttemptStatus.RESERVED, row
        if row.status is AttemptStatus.SETTLED:
            assert entry is not None, "a settled row for a request that the model never saw"
            _check_counts(row, entry)
        elif row.ending is not None and row.ending.usage is not None and entry is not None:
            usage = row.ending.usage
            assert usage.estimated
            assert usage.input >= (entry.prompt_tokens or 0)


def _check_counts(row: LoggedAttempt, entry: LogEntry) -> None:
    assert row.ending is not None
    usage = row.ending.usage
    assert usage is not None
    told = entry.usage
    if told is None or usage.estimated:
        assert usage.estimated
        assert usage.input >= 1
        assert usage.output >= entry.completion_tokens_sent
    else:
        assert (usage.input, usage.output) == (told.prompt_tokens, told.completion_tokens)
