"""Every table of the product on one database, and a row for any of them."""

from __future__ import annotations

import re
from pathlib import Path

from agent_runtime.actions.sql_store import SqlActionStore
from agent_runtime.jobs.sql_store import SqlJobStore
from agent_runtime.kernel.result_store import SqlResultStore
from agent_runtime.ledger.declared import DECLARED
from agent_runtime.ledger.transactions import prepare_ledger
from agentflow_serve.auth.store import ApiKeys
from runtime_core.clock import SystemClock
from runtime_core.sessions.store import StoredSessions
from runtime_core.stores import Database, KeyedStore, Op, Sql, migrate
from runtime_core.stores.sql import SqlValue

ROOT = Path(__file__).parents[2]
_CREATED = re.compile(r"CREATE TABLE (\w+) \(scope_id")
_VALUES: dict[str, SqlValue] = {
    "text": "x",
    "bigint": 1,
    "double precision": 1.0,
    "json": "{}",
    "timestamp with time zone": 1.0,
}


def created_in_the_source() -> set[str]:
    """The tables with scopes that some migration creates; those of shipped tests are no tables of the product."""
    sources = [path for folder in ("runtime", "deployments") for path in (ROOT / folder).rglob("*.py")]
    texts = [path.read_text() for path in sources if "testing" not in path.parts]
    return {table for text in texts for table in _CREATED.findall(text)}


async def prepare_everything(database: Database) -> None:
    clock = SystemClock()
    await prepare_ledger(database)
    await migrate(database, "ledger_declared", DECLARED)
    for store in (
        StoredSessions(database, clock=clock),
        KeyedStore(database),
        ApiKeys(database),
        SqlJobStore(database),
        SqlActionStore(database),
        SqlResultStore(database),
    ):
        await store.prepare()


def tables_with_scopes() -> Op[list[str]]:
    """Of the schema, on PostgreSQL."""
    rows = yield Sql(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = current_schema()"
        " AND column_name = 'scope_id' ORDER BY table_name"
    )
    return [table for (table,) in rows]


def insert(table: str, scope_id: str) -> Op[None]:
    """A row of that scope, with `x` and 1 in all other columns."""
    rows = yield Sql(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = current_schema()"
        " AND table_name = ? AND column_name <> 'scope_id'",
        (table,),
    )
    names = ", ".join(["scope_id", *(name for name, _ in rows)])
    values = (scope_id, *(f"{scope_id[:50]}-x" if kind == "text" else _VALUES[kind] for _, kind in rows))
    yield Sql(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(values))})", values)


def scopes_in(table: str) -> Op[set[str]]:
    """Whose rows it shows: a statement without a condition, which no store has."""
    rows = yield Sql(f"SELECT DISTINCT scope_id FROM {table}")
    return {scope_id for (scope_id,) in rows}
