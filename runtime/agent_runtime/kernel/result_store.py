"""Where results are kept, beside their jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from agent_runtime.kernel.request import ExecutionResult
from agent_runtime.stores import SqlStore
from runtime_core.ids import check_scope_id
from runtime_core.stores.memory import MemoryDatabase
from runtime_core.stores.migrations import Migration
from runtime_core.stores.scope import in_scope
from runtime_core.stores.sql import Op, Sql

_PUT = (
    "INSERT INTO runtime_results (scope_id, job_id, result, stored_at) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (scope_id, job_id) DO UPDATE SET result = excluded.result, stored_at = excluded.stored_at"
)
_GET = "SELECT result FROM runtime_results WHERE scope_id = ? AND job_id = ?"
_FORGET = (
    "DELETE FROM runtime_results WHERE scope_id = ? AND job_id IN (SELECT job_id FROM runtime_results"
    " WHERE scope_id = ? AND stored_at < ? ORDER BY stored_at LIMIT ?) RETURNING 1"
)


class ResultStore(Protocol):
    async def put(self, scope_id: str, result: ExecutionResult, *, now: datetime) -> None:
        """Keep the result of its job; a later one of the same job takes its place."""
        ...

    async def get(self, scope_id: str, job_id: str) -> ExecutionResult | None: ...

    async def forget(self, scope_id: str, *, older_than: datetime, limit: int) -> int:
        """Delete up to `limit` results; how many."""
        ...


class SqlResultStore(SqlStore):
    """A ResultStore. The database stays its caller's to close."""

    COMPONENT = "runtime_results"
    MIGRATIONS = (
        Migration(
            version=1,
            statements=(
                "CREATE TABLE runtime_results (scope_id {text} NOT NULL, job_id {text} NOT NULL,"
                " result {text} NOT NULL, stored_at {time} NOT NULL, PRIMARY KEY (scope_id, job_id))",
                "CREATE INDEX runtime_results_time ON runtime_results (scope_id, stored_at)",
            ),
        ),
        Migration(version=2, scoped=("runtime_results",)),
    )

    async def put(self, scope_id: str, result: ExecutionResult, *, now: datetime) -> None:
        check_scope_id(scope_id)
        row = (scope_id, result.job_id, result.model_dump_json(), now.timestamp())

        def write() -> Op[None]:
            yield Sql(_PUT, row)

        await self._run(in_scope(scope_id, write))

    async def get(self, scope_id: str, job_id: str) -> ExecutionResult | None:
        check_scope_id(scope_id)

        def read() -> Op[ExecutionResult | None]:
            rows = yield Sql(_GET, (scope_id, job_id))
            return ExecutionResult.model_validate_json(rows[0][0]) if rows else None

        return await self._read(in_scope(scope_id, read))

    async def forget(self, scope_id: str, *, older_than: datetime, limit: int = 1000) -> int:
        check_scope_id(scope_id)

        def delete() -> Op[int]:
            return len((yield Sql(_FORGET, (scope_id, scope_id, older_than.timestamp(), limit))))

        return await self._run(in_scope(scope_id, delete))


class InMemoryResultStore(SqlResultStore):
    """For one process and for tests: the results end with it."""

    def __init__(self) -> None:
        super().__init__(MemoryDatabase(), owns=True)


def beside(store: object) -> ResultStore:
    """Results in the database of another store, where it has one; else in memory."""
    return SqlResultStore(store.database) if isinstance(store, SqlStore) else InMemoryResultStore()
