"""The store of API keys, for those who operate a service: no request of a tenant gets further than `find`."""

from __future__ import annotations

import json
from typing import Any

from agentflow_serve.auth.keys import ApiKey
from runtime_core.ids import check_scope_id
from runtime_core.stores.database import Database
from runtime_core.stores.migrations import Migration, migrate
from runtime_core.stores.scope import everywhere, in_scope, in_scope_or_everywhere
from runtime_core.stores.sql import Op, Sql

_COLUMNS = "key_id, scope_id, principal_id, name, flows, created_at, expires_at, revoked_at"


class ApiKeys:
    """Keys on a database that the caller opens and closes. Every method raises StoreError where that cannot be read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prepare(self) -> None:
        """Create or upgrade the table; call it once per process."""
        await migrate(self._database, "api_keys", MIGRATIONS)

    async def add(self, key: ApiKey, *, digest: str) -> None:
        """Keep a new key, by the digest of its text."""
        await self._database.run(in_scope(key.scope_id, lambda: _add(key, digest)))

    async def find(self, digest: str) -> ApiKey | None:
        """The key with this digest, expired and revoked ones included."""
        return await self._database.read(everywhere(lambda: _find(digest)))

    async def list(self, *, scope_id: str | None = None, limit: int = 1000) -> list[ApiKey]:
        """The latest `limit` keys of a scope, or of all scopes, the newest first."""
        scope = None if scope_id is None else check_scope_id(scope_id)
        return await self._database.read(in_scope_or_everywhere(scope, lambda: _list(scope, limit)))

    async def revoke(self, key_id: str, *, now: float) -> ApiKey | None:
        """End a key for good, and give it as it is then; None where there is none. A second time changes nothing."""
        return await self._database.run(everywhere(lambda: _revoke(key_id, now)))


def _add(key: ApiKey, digest: str) -> Op[None]:
    yield Sql(
        f"INSERT INTO api_keys ({_COLUMNS}, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            key.key_id,
            key.scope_id,
            key.principal_id,
            key.name,
            json.dumps(key.flows),
            key.created_at,
            key.expires_at,
            key.revoked_at,
            digest,
        ),
    )


def _find(digest: str) -> Op[ApiKey | None]:
    rows = yield Sql(f"SELECT {_COLUMNS} FROM api_keys WHERE digest = ?", (digest,))
    return _key(rows[0]) if rows else None


def _list(scope_id: str | None, limit: int) -> Op[list[ApiKey]]:
    newest = f"SELECT {_COLUMNS} FROM api_keys"
    order = " ORDER BY created_at DESC, key_id LIMIT ?"
    if scope_id is None:
        rows = yield Sql(newest + order, (limit,))
    else:
        rows = yield Sql(newest + " WHERE scope_id = ?" + order, (scope_id, limit))
    return [_key(row) for row in rows]


def _revoke(key_id: str, now: float) -> Op[ApiKey | None]:
    yield Sql("UPDATE api_keys SET revoked_at = ? WHERE key_id = ? AND revoked_at IS NULL", (now, key_id))
    rows = yield Sql(f"SELECT {_COLUMNS} FROM api_keys WHERE key_id = ?", (key_id,))
    return _key(rows[0]) if rows else None


def _key(row: tuple[Any, ...]) -> ApiKey:
    fields = dict(zip(_COLUMNS.split(", "), row, strict=True))
    return ApiKey.model_validate({**fields, "flows": json.loads(fields["flows"])})


MIGRATIONS = (
    Migration(
        version=1,
        statements=(
            "CREATE TABLE api_keys (scope_id {text} NOT NULL, key_id {text} NOT NULL, digest {text} NOT NULL,"
            " principal_id {text} NOT NULL, name {text}, flows {json} NOT NULL, created_at {real} NOT NULL,"
            " expires_at {real}, revoked_at {real}, PRIMARY KEY (scope_id, key_id))",
            "CREATE UNIQUE INDEX api_keys_digest ON api_keys (digest)",
            "CREATE UNIQUE INDEX api_keys_id ON api_keys (key_id)",
        ),
    ),
    Migration(version=2, scoped=("api_keys",)),
)
