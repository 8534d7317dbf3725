"""Versioned JSON values by (scope, space, bucket, key), in buckets that expire as a whole.

A space is a use (`state`), a bucket is what lives and dies together (one session's state), a key is one value
in it. Buckets are meant to be small. Time comes in as `now`, in seconds since the epoch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from runtime_core.errors import StoreConflictError, StoreFullError, StoreValueError
from runtime_core.ids import check_name, check_scope_id
from runtime_core.stores.database import Database
from runtime_core.stores.migrations import Migration, migrate
from runtime_core.stores.scope import everywhere, in_scope
from runtime_core.stores.sql import Op, Sql

MAX_TEXT_CHARS = 512
DEFAULT_MAX_VALUE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where values live. There is no bucket without a scope; raises IdentityError or StoreValueError."""

    scope_id: str
    space: str
    name: str

    def __post_init__(self) -> None:
        check_scope_id(self.scope_id)
        check_name(self.space, what="space")
        _check_text(self.name, what="bucket")


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored value. Its version grows with each write, also across a deletion."""

    value: Any
    version: int


class KeyedStore:
    """Values on a database that the caller opens and closes.

    A write sets when its whole bucket expires: `ttl_s` from now, or never with None. A value is what JSON can
    say, up to `max_value_bytes` of it. `max_scope_bytes` bounds what one scope keeps; each write then sums up
    the scope, so set it where scopes are small or many.
    """

    def __init__(
        self,
        database: Database,
        *,
        max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES,
        max_scope_bytes: int | None = None,
    ) -> None:
        self._database = database
        self._max_value_bytes = max_value_bytes
        self._max_scope_bytes = max_scope_bytes

    async def prepare(self) -> None:
        """Create or upgrade the table; call it once per process."""
        await migrate(self._database, "keyed", MIGRATIONS)

    async def get(self, bucket: Bucket, key: str, *, now: float) -> Entry | None:
        """The value, or None if it was never set or has expired."""
        found = await self._database.read(in_scope(bucket.scope_id, lambda: _get(bucket, key, now)))
        return None if found is None else Entry(value=json.loads(found[0]), version=found[1])

    async def keys(self, bucket: Bucket, *, now: float, limit: int = 1000) -> list[str]:
        """The first `limit` keys of the bucket, in order."""
        return await self._database.read(in_scope(bucket.scope_id, lambda: _keys(bucket, now, limit)))

    async def set(self, bucket: Bucket, key: str, value: Any, *, now: float, ttl_s: float | None = None) -> int:
        """Store the value, whatever was there, and return its version.

        Raises StoreValueError for a value that cannot be stored, StoreFullError over the scope's quota.
        """
        write = self._write(bucket, key, value, now=now, ttl_s=ttl_s)
        return await self._database.run(in_scope(bucket.scope_id, lambda: _put(write, expected_version=None)))

    async def compare_and_set(
        self,
        bucket: Bucket,
        key: str,
        value: Any,
        *,
        expected_version: int,
        now: float,
        ttl_s: float | None = None,
    ) -> int:
        """`set` if the stored version is the expected one (0: nothing is stored), else StoreConflictError."""
        write = self._write(bucket, key, value, now=now, ttl_s=ttl_s)
        return await self._database.run(
            in_scope(bucket.scope_id, lambda: _put(write, expected_version=expected_version))
        )

    async def delete(self, bucket: Bucket, key: str) -> None:
        """Forget one value; its bucket's expiry stays as it is."""
        await self._database.run(in_scope(bucket.scope_id, lambda: _delete(bucket, key)))

    async def delete_space(self, scope_id: str, space: str) -> int:
        """Forget every bucket of a space of one scope; how many values they had."""
        check_scope_id(scope_id)
        return await self._database.run(in_scope(scope_id, lambda: _delete_space(scope_id, space)))

    async def delete_bucket(self, bucket: Bucket) -> int:
        """Forget the bucket; how many values it had, expired ones included."""
        return await self._database.run(in_scope(bucket.scope_id, lambda: _delete_bucket(bucket)))

    async def sweep(self, *, now: float, limit: int = 1000) -> int:
        """Free the space of at most `limit` expired values of all scopes; how many there were.

        For the operator's clean-up: readers do not see expired values in any case.
        """
        return await self._database.run(everywhere(lambda: _sweep(now, limit)))

    def _write(self, bucket: Bucket, key: str, value: Any, *, now: float, ttl_s: float | None) -> _Write:
        _check_text(key, what="key")
        text = _to_json(value)
        if len(text) > self._max_value_bytes:
            raise StoreValueError(
                f"The value of {key!a} takes {len(text)} bytes; the limit is {self._max_value_bytes}.",
                size=len(text),
                limit=self._max_value_bytes,
            )
        return _Write(
            bucket=bucket,
            key=key,
            text=text,
            now=now,
            expires_at=None if ttl_s is None else now + ttl_s,
            quota=self._max_scope_bytes,
        )


@dataclass(frozen=True, slots=True)
class _Write:
    bucket: Bucket
    key: str
    text: str
    now: float
    expires_at: float | None
    quota: int | None


def _get(bucket: Bucket, key: str, now: float) -> Op[tuple[str, int] | None]:
    rows = yield Sql(
        "SELECT value, version FROM kv WHERE scope_id = ? AND space = ? AND bucket = ? AND key = ?"
        " AND (expires_at IS NULL OR expires_at > ?)",
        (*_place(bucket), key, now),
    )
    return (rows[0][0], rows[0][1]) if rows else None


def _keys(bucket: Bucket, now: float, limit: int) -> Op[list[str]]:
    rows = yield Sql(
        "SELECT key FROM kv WHERE scope_id = ? AND space = ? AND bucket = ?"
        " AND (expires_at IS NULL OR expires_at > ?) ORDER BY key LIMIT ?",
        (*_place(bucket), now, limit),
    )
    return [row[0] for row in rows]


def _put(write: _Write, expected_version: int | None) -> Op[int]:
    place = _place(write.bucket)
    # Or the refresh below would bring expired values back to life.
    yield Sql(
        "DELETE FROM kv WHERE scope_id = ? AND space = ? AND bucket = ? AND expires_at <= ?",
        (*place, write.now),
    )
    rows = yield Sql(
        "SELECT version FROM kv WHERE scope_id = ? AND space = ? AND bucket = ? AND key = ?",
        (*place, write.key),
    )
    current: int = rows[0][0] if rows else 0
    if expected_version is not None and expected_version != current:
        raise StoreConflictError(
            f"{write.key!a} is at version {current}, not {expected_version}; read it again.",
            expected=expected_version,
            actual=current,
        )
    # From the time: a value that was deleted and set again later must not pass for the one before.
    version = max(current + 1, int(write.now * 1_000_000))
    yield Sql(
        "INSERT INTO kv (scope_id, space, bucket, key, version, expires_at, size, value)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (scope_id, space, bucket, key) DO UPDATE"
        " SET version = excluded.version, expires_at = excluded.expires_at, size = excluded.size,"
        " value = excluded.value",
        (*place, write.key, version, write.expires_at, len(write.text), write.text),
    )
    yield from _move_expiry(write)
    if write.quota is not None:
        yield from _check_quota(write.bucket.scope_id, write.now, write.quota)
    return version


def _move_expiry(write: _Write) -> Op[None]:
    place = _place(write.bucket)
    if write.expires_at is None:
        yield Sql(
            "UPDATE kv SET expires_at = NULL WHERE scope_id = ? AND space = ? AND bucket = ?"
            " AND expires_at IS NOT NULL",
            place,
        )
    else:
        yield Sql(
            "UPDATE kv SET expires_at = ? WHERE scope_id = ? AND space = ? AND bucket = ? AND key <> ?",
            (write.expires_at, *place, write.key),
        )


def _check_quota(scope_id: str, now: float, quota: int) -> Op[None]:
    rows = yield Sql(
        "SELECT SUM(size) FROM kv WHERE scope_id = ? AND (expires_at IS NULL OR expires_at > ?)",
        (scope_id, now),
    )
    if rows[0][0] > quota:
        raise StoreFullError(f"The scope keeps {quota} bytes of values, and that is its limit.", limit=quota)


def _delete(bucket: Bucket, key: str) -> Op[None]:
    yield Sql("DELETE FROM kv WHERE scope_id = ? AND space = ? AND bucket = ? AND key = ?", (*_place(bucket), key))


def _delete_space(scope_id: str, space: str) -> Op[int]:
    rows = yield Sql("DELETE FROM kv WHERE scope_id = ? AND space = ? RETURNING version", (scope_id, space))
    return len(rows)


def _delete_bucket(bucket: Bucket) -> Op[int]:
    rows = yield Sql("DELETE FROM kv WHERE scope_id = ? AND space = ? AND bucket = ? RETURNING version", _place(bucket))
    return len(rows)


def _sweep(now: float, limit: int) -> Op[int]:
    rows = yield Sql(
        "DELETE FROM kv WHERE (scope_id, space, bucket, key) IN"
        " (SELECT scope_id, space, bucket, key FROM kv WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)"
        " RETURNING version",
        (now, limit),
    )
    return len(rows)


def _place(bucket: Bucket) -> tuple[str, str, str]:
    return (bucket.scope_id, bucket.space, bucket.name)


def _to_json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreValueError(f"The value is not JSON: {error}.") from error


def _check_text(value: str, *, what: str) -> str:
    legal = 1 <= len(value) <= MAX_TEXT_CHARS and "\0" not in value
    try:
        value.encode()
    except UnicodeEncodeError:
        legal = False
    if not legal:
        raise StoreValueError(
            f"The {what} {value[:40]!a} must be 1 to {MAX_TEXT_CHARS} Unicode characters without NUL.",
            size=len(value),
            limit=MAX_TEXT_CHARS,
        )
    return value


# `value` comes last: a change of the columns before it then leaves the pages of a long value alone.
MIGRATIONS = (
    Migration(
        version=1,
        statements=(
            "CREATE TABLE kv (scope_id {text} NOT NULL, space {text} NOT NULL, bucket {text} NOT NULL,"
            " key {text} NOT NULL, version {int} NOT NULL, expires_at {real}, size {int} NOT NULL,"
            " value {json} NOT NULL, PRIMARY KEY (scope_id, space, bucket, key))",
            "CREATE INDEX kv_expiry ON kv (expires_at) WHERE expires_at IS NOT NULL",
        ),
    ),
    Migration(version=2, scoped=("kv",)),
)
