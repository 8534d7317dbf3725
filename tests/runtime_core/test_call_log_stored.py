"""The stored form of the call log, which older and newer programs share, and the wall between scopes in its SQL."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from runtime_core.call_log.log import CallLog
from runtime_core.clock import ManualClock
from runtime_core.stores import Op, OpFactory, Rows, Sql
from runtime_core.stores.memory import MemoryDatabase
from support.call_log import attempt_of, claim_of, open_log_database, prepared, settled

T = TypeVar("T")
T0 = 1767225600.0
ANSWER = "5aa762ae383fbb727af3c7a36d4940a5b8c40a989452d2304fc958ff3f354e7a"  # SHA-256, of "hello" and its quotes
KEY_1 = "be2974546978e3739e6d6da85c4be9f334ce32df2b9fd4b6ff1b55c0d57e9d44"
KEY_2 = "7c36b0a9dedde119c75165957c6c9c187e65df1ee5db87c4c58ad503ad88cbe3"


async def test_rows_are_stored_in_this_form(tmp_path: Path) -> None:
    async with open_log_database(f"sqlite:///{tmp_path}/calls.db") as database:
        log = await prepared(database, ManualClock())
        attempt = attempt_of(
            log,
            max_output_tokens=99,
            principal_id="ann",
            run_id="run-1",
            node="draft",
            session_id="session-1",
            job_id="job-1",
            trace_id="trace-1",
        )
        await log.begin(claim_of("owner-1"))
        await log.reserve(attempt)
        await log.end_with_claim(attempt, settled(log), claim_of("owner-1"))
        await log.reserve(attempt_of(log, "attempt-2", kind="stream", number=2))
        await log.begin(claim_of("owner-2", key="key-2"))

        def stored() -> Op[dict[str, Rows]]:
            return {
                "calls": (yield Sql("SELECT * FROM calls ORDER BY attempt_id")),
                "answers": (yield Sql("SELECT * FROM answers")),
                "idempotency": (yield Sql("SELECT * FROM idempotency ORDER BY owner")),
                "schema_versions": (yield Sql("SELECT * FROM schema_versions")),
            }

        assert await database.read(stored) == STORED


STORED: dict[str, Rows] = {
    "calls": [
        (
            *("tenant-1", "attempt-1", "call-1", 1, "chat", "writer", "sim", "sim-1", "request-1", T0, T0 + 60, 99),
            *("ann", "run-1", "draft", "session-1", "job-1", "trace-1"),
            *("settled", T0, 10, 5, 2, 1, 0, 7, None, ANSWER),
        ),
        (
            *("tenant-1", "attempt-2", "call-1", 2, "stream", "writer", "sim", "sim-1", "request-1", T0, T0 + 60, None),
            *("anonymous", None, None, None, None, None),
            *("reserved", None, None, None, None, None, None, None, None, None),
        ),
    ],
    "answers": [("tenant-1", ANSWER, 7, T0, '"hello"')],
    "idempotency": [
        ("tenant-1", KEY_1, "request-1", "owner-1", "done", T0 + 60, T0 + 86_400, ANSWER, "attempt-1"),
        ("tenant-1", KEY_2, "request-1", "owner-2", "in_flight", T0 + 60, T0 + 86_460, None, None),
    ],
    "schema_versions": [("call_log", 2)],
}


class Listening(MemoryDatabase):
    """Remembers the text of every statement."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: set[str] = set()

    async def run(self, op_factory: OpFactory[T]) -> T:
        return await super().run(lambda: self._listen(op_factory()))

    async def read(self, op_factory: OpFactory[T]) -> T:
        return await super().read(lambda: self._listen(op_factory()))

    def _listen(self, operation: Op[T]) -> Op[T]:
        rows: Rows | None = None
        try:
            while True:
                statement = next(operation) if rows is None else operation.send(rows)
                self.texts.add(statement.text)
                rows = yield statement
        except StopIteration as finished:
            return finished.value


async def test_every_statement_names_the_scope() -> None:
    async with Listening() as database:
        clock = ManualClock()
        log: CallLog = await prepared(database, clock)
        database.texts.clear()
        attempt, claim = attempt_of(log), claim_of("owner-1")
        for _ in range(2):  # the second time takes the other branches
            await log.begin(claim)
            await log.reserve(attempt)
            await log.end_with_claim(attempt, settled(log), claim)
        clock.advance(1e6)
        await log.expire()
        await log.renew(attempt.key, lease_until=log.now())
        await log.renew_claim(claim)
        await log.fail(claim)
        await log.totals("tenant-1", "run-1")
        await log.attempts("tenant-1")
        await log.answer("tenant-1", "hash")
        await log.cached("tenant-1", "request-1", newer_than=0)
        for forget in (log.forget_answers, log.forget):
            await forget(older_than=0)
            await forget(older_than=log.now(), scope_id="tenant-1")
        await log.forget_keys()

    assert len(database.texts) >= 20
    assert [text for text in database.texts if "scope_id" not in text] == []
