"""Row-level security takes no index from any statement: the server plans it as for a role that no policy holds for.

It would where a condition of ours uses an operator that is not leakproof: then every row of the table is looked at.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import asyncpg

from agent_runtime import ActionManager, ActionSpec, JobManager, JobSpec
from agent_runtime.actions.sql_store import SqlActionStore
from agent_runtime.jobs.sql_store import SqlJobStore
from agent_runtime.ledger.run_ledger import RunLedger
from agent_runtime.ledger.tool_calls import ToolLedger
from agent_runtime.ledger.transactions import StoredTransactions
from agent_runtime.ledger.upkeep import Upkeep
from agent_runtime.ledger.writers import SqlLedgerWriter
from runtime_core.call_log.log import CallLog
from runtime_core.clock import ManualClock
from runtime_core.context import BudgetSpec, ExecutionContext
from runtime_core.sessions.records import SessionRecord
from runtime_core.sessions.store import StoredSessions
from runtime_core.stores.postgres import PostgresDatabase
from support.call_log import attempt_of, claim_of, settled
from support.commits import booked
from support.ledger_door import two_tenants
from support.postgres import SUPERUSER, PostgresServer
from support.scoped_tables import prepare_everything

_MANY = {
    "text": "'x' || i",
    "bigint": "i",
    "double precision": "i",
    "json": "'{}'",
    "timestamp with time zone": "to_timestamp(i)",
}
_SOMETHING = {"text": "s-1", "int8": 1, "float8": 1.0, "timestamptz": datetime(2026, 1, 1, tzinfo=UTC), "json": "{}"}


async def _work(database: PostgresDatabase) -> None:
    """Some of what stores do."""
    clock = ManualClock()
    await two_tenants(database)
    log = CallLog(database, clock=clock)
    await log.begin(claim_of("owner-1"))
    await log.reserve(attempt_of(log))
    await log.end_with_claim(attempt_of(log), settled(log), claim_of("owner-1"))
    attempts = [attempt_of(log, f"together-{number}", scope_id=f"tenant-{number % 3}") for number in range(12)]
    await asyncio.gather(*map(log.reserve, attempts))
    await asyncio.gather(*(log.end(attempt, settled(log)) for attempt in attempts))
    books = [booked(log, f"booked-{number}", scope_id=f"tenant-{number % 3}") for number in range(12)]
    await asyncio.gather(*(StoredTransactions(database).reserve(*book) for book in books))
    await asyncio.gather(*(StoredTransactions(database).end(book[0], settled(log), book[1]) for book in books))
    await log.attempts("tenant-1")
    await log.cached("tenant-1", "request-1", newer_than=0)
    await log.totals("tenant-1", "run-1")
    await Upkeep(database, owner="me", keep_s=60, clock=clock).once()
    run = ExecutionContext(scope_id="tenant-1", principal_id="ann", run_id="run-1")
    tools = ToolLedger(SqlLedgerWriter(database), clock=clock)
    runs = RunLedger(database, clock=clock)
    async with runs.budgeted(run, BudgetSpec(max_tool_calls=2), holds=True), tools.call(run, "look", budgeted=True):
        pass
    await runs.aclose()
    jobs = JobManager(SqlJobStore(database), clock=clock)
    job = await jobs.create(JobSpec(principal_id="ada", idempotency_key="key"))
    await jobs.start(job.job_id)
    await jobs.list()
    await jobs.store.overdue(now=clock.now(), limit=5)
    await jobs.store.lapsed(now=clock.now(), limit=5)
    actions = ActionManager(SqlActionStore(database), clock=clock)
    action = await actions.require_action(ActionSpec(type="confirm", timeout_seconds=5))
    await actions.resolve(action.resume_token, resolution={})
    await actions.store.due(now=clock.now(), limit=5)
    sessions = StoredSessions(database, clock=clock, ttl_s=5)
    records = [SessionRecord(record_id="r", run_id="run-1", role="user", text="hello")]
    await sessions.append(scope_id="tenant-1", session_id="s", records=records, base=0)
    await sessions.read(scope_id="tenant-1", session_id="s")
    await sessions.list(scope_id="tenant-1")
    await sessions.expire()


async def test_every_statement_keeps_its_indexes(postgres_server: PostgresServer) -> None:
    url = await postgres_server.fresh_url()
    async with PostgresDatabase(url) as database:
        await prepare_everything(database)
        await _work(database)
        forms = database._forms.values()  # pyright: ignore[reportPrivateUsage]
        texts = [each.text for each in forms if re.match("SELECT .*scope_id|INSERT|UPDATE|DELETE|WITH", each.text)]
    ordinary = await asyncpg.connect(url)
    superuser = await asyncpg.connect(postgres_server.url(url.rpartition("=")[2], role=SUPERUSER))
    try:
        await _fill(superuser)
        found = [(text, await _paths(ordinary, text), await _paths(superuser, text)) for text in texts]
    finally:
        await ordinary.close()
        await superuser.close()
    assert len(found) > 50
    assert sum(any("scope_id" in cond for *_, cond in paths) for _, paths, _ in found) > 30
    assert [text for text, ours, free in found if ours != free] == []


async def _fill(connection: asyncpg.Connection) -> None:
    """Tables in which the planner has something to choose between."""
    columns = await connection.fetch(
        "SELECT table_name, string_agg(quote_ident(column_name), ', '), array_agg(data_type::text)"
        " FROM information_schema.columns WHERE table_schema = current_schema() AND column_name <> 'scope_id'"
        " GROUP BY table_name HAVING table_name <> 'schema_versions'"
    )
    for table, names, types in columns:
        values = ", ".join(_MANY[each] for each in types)
        await connection.execute(
            f"INSERT INTO {table} (scope_id, {names}) SELECT 's-' || i % 20, {values} FROM generate_series(1, 2000) i"
        )
        await connection.execute(f"ANALYZE {table}")


async def _paths(connection: asyncpg.Connection, text: str) -> list[tuple[str, str, str]]:
    """How a statement gets at the rows of each table."""
    for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin"):
        await connection.execute(f"SET enable_{way} = off")
    explain = await connection.prepare(f"EXPLAIN (FORMAT JSON) {text}")
    # Of every type something: with NULL the server sees that there is nothing to look for.
    plan = await explain.fetchval(*(_SOMETHING[each.name] for each in explain.get_parameters()))
    return sorted(_scans(json.loads(plan or "")[0]["Plan"]))


def _scans(plan: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    if "Relation Name" in plan or "Index Name" in plan:
        yield plan["Node Type"], plan.get("Index Name", ""), plan.get("Index Cond", "")
    for part in plan.get("Plans", ()):
        yield from _scans(part)
