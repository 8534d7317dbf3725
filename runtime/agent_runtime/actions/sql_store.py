"""Actions on any database of runtime_core, and the names under which each backend is known."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from agent_runtime.actions import ops
from agent_runtime.actions.machine import ActionEvent
from agent_runtime.actions.records import ActionRecord
from agent_runtime.actions.schema import MIGRATIONS
from agent_runtime.actions.store import ActionCursor, ActionFilter
from agent_runtime.stores import SqlStore, on_sqlite
from runtime_core.ids import check_scope_id
from runtime_core.stores.database import Database
from runtime_core.stores.memory import MemoryDatabase
from runtime_core.stores.scope import everywhere, in_scope


class SqlActionStore(SqlStore):
    """An ActionStore. The database stays its caller's to close."""

    COMPONENT = "runtime_actions"
    MIGRATIONS = MIGRATIONS

    async def create(self, action: ActionRecord, *, token_hash: str) -> ActionRecord:
        return await self._run(in_scope(action.scope_id, lambda: ops.create(action, token_hash)))

    async def get(self, scope_id: str, action_id: str) -> ActionRecord | None:
        check_scope_id(scope_id)
        return await self._read(in_scope(scope_id, lambda: ops.find(scope_id, action_id)))

    async def find(self, scope_id: str, *, token_hash: str) -> ActionRecord | None:
        check_scope_id(scope_id)
        return await self._read(in_scope(scope_id, lambda: ops.find_by_token(scope_id, token_hash)))

    async def apply(self, scope_id: str, action_id: str, event: ActionEvent, *, now: datetime) -> ActionRecord:
        check_scope_id(scope_id)
        return await self._run(in_scope(scope_id, lambda: ops.apply(scope_id, action_id, event, now)))

    async def list(
        self,
        scope_id: str,
        which: ActionFilter | None = None,
        *,
        after: ActionCursor | None = None,
        limit: int = 100,
    ) -> list[ActionRecord]:
        check_scope_id(scope_id)
        newest = in_scope(scope_id, lambda: ops.newest(scope_id, which or ActionFilter(), after, limit))
        return await self._read(newest)

    async def due(self, *, now: datetime, limit: int) -> list[ActionRecord]:
        return await self._read(everywhere(lambda: ops.due(now, limit)))

    async def untold(self, *, limit: int) -> list[ActionRecord]:
        return await self._read(everywhere(lambda: ops.untold(limit)))

    async def forget(self, scope_id: str, *, older_than: datetime, limit: int = 1000) -> int:
        check_scope_id(scope_id)
        return await self._run(in_scope(scope_id, lambda: ops.forget(scope_id, older_than.timestamp(), limit)))


class InMemoryActionStore(SqlActionStore):
    """For one process and for tests: the actions end with it."""

    def __init__(self) -> None:
        super().__init__(MemoryDatabase(), owns=True)


class SqliteActionStore(SqlActionStore):
    """In a file, for all processes of one machine; or on a database that is open already."""

    def __init__(self, database: Database | Path | str, *, node_id: str | None = None) -> None:
        opened, owns = on_sqlite(database, node_id)
        super().__init__(opened, owns=owns)
