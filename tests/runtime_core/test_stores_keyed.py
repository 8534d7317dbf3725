"""The keyed store: who sees what, for how long, and who wins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from runtime_core.errors import IdentityError, StoreConflictError, StoreFullError, StoreValueError
from runtime_core.stores import Bucket, Database, Entry, KeyedStore, Op, OpFactory, Sql, open_database
from runtime_core.stores.faults import FaultyDatabase
from runtime_core.stores.scope import ScopedOp, scope_ids_of
from support.stores import fresh_store_url, persist

NOW = 1_800_000_000.0
CHAT = Bucket("tenant-1", "state", "conversation_1")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(await fresh_store_url(request.param, request, tmp_path)) as opened:
        yield opened


@pytest.fixture
async def store(database: Database) -> KeyedStore:
    store = KeyedStore(database)
    await store.prepare()
    return store


async def value(store: KeyedStore, key: str, *, bucket: Bucket = CHAT, now: float = NOW) -> Any:
    entry = await store.get(bucket, key, now=now)
    return None if entry is None else entry.value


async def test_a_value_comes_back_with_the_version_that_its_write_returned(store: KeyedStore) -> None:
    stored = {"turns": [1, 2.5, None, True], "text": 'ünï "\\ud83d" \U0001f600', "half": "\ud83d"}
    assert await store.get(CHAT, "history", now=NOW) is None
    version = await store.set(CHAT, "history", stored, now=NOW)
    assert await store.get(CHAT, "history", now=NOW) == Entry(value=stored, version=version)


async def test_the_last_write_wins_and_versions_grow(store: KeyedStore) -> None:
    versions = [await store.set(CHAT, "n", number, now=NOW) for number in range(5)]
    assert versions == sorted(set(versions))
    assert await value(store, "n") == 4


@pytest.mark.parametrize(
    "other",
    [
        Bucket("tenant-2", "state", "conversation_1"),
        Bucket("tenant-1", "cache", "conversation_1"),
        Bucket("tenant-1", "state", "conversation_2"),
    ],
    ids=["scope", "space", "bucket"],
)
async def test_every_part_of_the_place_keeps_values_apart(store: KeyedStore, other: Bucket) -> None:
    await store.set(CHAT, "k", "mine", now=NOW)
    await store.set(other, "k", "theirs", now=NOW, ttl_s=1)
    await store.set(other, "only theirs", 1, now=NOW, ttl_s=1)

    assert (await value(store, "k"), await value(store, "k", bucket=other)) == ("mine", "theirs")
    assert await store.keys(CHAT, now=NOW) == ["k"]
    assert await store.delete_bucket(other) == 2
    assert await value(store, "k", now=NOW + 100) == "mine"


async def test_a_write_moves_the_expiry_of_its_whole_bucket(store: KeyedStore) -> None:
    await store.set(CHAT, "a", 1, now=NOW, ttl_s=10)
    await store.set(CHAT, "b", 2, now=NOW + 8, ttl_s=10)

    assert await value(store, "a", now=NOW + 17.9) == 1
    assert await store.keys(CHAT, now=NOW + 17.9) == ["a", "b"]
    assert await value(store, "a", now=NOW + 18) is None
    assert await store.keys(CHAT, now=NOW + 18) == []


async def test_a_write_without_a_ttl_keeps_the_bucket_for_good(store: KeyedStore) -> None:
    await store.set(CHAT, "a", 1, now=NOW, ttl_s=10)
    await store.set(CHAT, "b", 2, now=NOW + 1)
    assert await value(store, "a", now=NOW + 1e9) == 1


async def test_a_write_to_an_expired_bucket_brings_nothing_back(store: KeyedStore) -> None:
    await store.set(CHAT, "old", 1, now=NOW, ttl_s=10)
    await store.set(CHAT, "new", 2, now=NOW + 11, ttl_s=10)
    assert await store.keys(CHAT, now=NOW + 11) == ["new"]


async def test_sweeping_is_bounded_and_frees_only_what_has_expired(store: KeyedStore) -> None:
    for number in range(7):
        await store.set(Bucket(f"tenant-{number}", "state", "b"), "k", number, now=NOW, ttl_s=10)
    await store.set(CHAT, "kept", 1, now=NOW)
    await store.set(Bucket("tenant-9", "state", "b"), "later", 1, now=NOW, ttl_s=100)

    assert await store.sweep(now=NOW + 9.9) == 0
    assert [await store.sweep(now=NOW + 10, limit=4) for _ in range(3)] == [4, 3, 0]
    assert await value(store, "kept") == 1
    assert await value(store, "later", bucket=Bucket("tenant-9", "state", "b"), now=NOW + 99) == 1


async def test_compare_and_set_needs_the_version_that_is_stored(store: KeyedStore) -> None:
    first = await store.compare_and_set(CHAT, "k", "a", expected_version=0, now=NOW)
    second = await store.compare_and_set(CHAT, "k", "b", expected_version=first, now=NOW)
    for outdated in (0, first):
        with pytest.raises(StoreConflictError) as caught:
            await store.compare_and_set(CHAT, "k", "c", expected_version=outdated, now=NOW)
        assert (caught.value.expected, caught.value.actual) == (outdated, second)
    assert await value(store, "k") == "b"


@pytest.mark.parametrize("how", ["deleted", "expired"])
async def test_a_version_is_not_used_again_for_a_value_that_came_back(store: KeyedStore, how: str) -> None:
    before = await store.set(CHAT, "k", "a", now=NOW, ttl_s=1)
    if how == "deleted":
        await store.delete_bucket(CHAT)
    await store.set(CHAT, "k", "b", now=NOW + 2)
    with pytest.raises(StoreConflictError):
        await store.compare_and_set(CHAT, "k", "from the past", expected_version=before, now=NOW + 2)


async def test_an_expired_value_counts_as_absent_for_compare_and_set(store: KeyedStore) -> None:
    await store.set(CHAT, "k", "a", now=NOW, ttl_s=1)
    await store.compare_and_set(CHAT, "k", "b", expected_version=0, now=NOW + 1)
    assert await value(store, "k", now=NOW + 1) == "b"


async def test_fifty_concurrent_increments_by_compare_and_set_make_fifty(store: KeyedStore) -> None:
    async def increment() -> None:
        while True:
            entry = await store.get(CHAT, "n", now=NOW)
            count, version = (entry.value, entry.version) if entry else (0, 0)
            try:
                await store.compare_and_set(CHAT, "n", count + 1, expected_version=version, now=NOW)
                return
            except StoreConflictError:
                continue

    await asyncio.gather(*(increment() for _ in range(50)))
    assert await value(store, "n") == 50


async def test_writes_repeated_through_faults_end_at_the_last_value(database: Database) -> None:
    faulty = FaultyDatabase(database, Random(3), rate=0.3)
    store = KeyedStore(faulty)
    await persist(store.prepare)
    for number in range(30):
        await persist(lambda number=number: store.set(CHAT, f"k{number % 3}", number, now=NOW))
    assert [await persist(lambda key=key: value(store, key)) for key in ("k0", "k1", "k2")] == [27, 28, 29]
    assert faulty.faults > 5


async def test_a_value_that_is_too_long_is_refused_with_its_size(database: Database) -> None:
    store = KeyedStore(database, max_value_bytes=100)
    await store.prepare()
    await store.set(CHAT, "k", "x" * 98, now=NOW)
    with pytest.raises(StoreValueError) as caught:
        await store.set(CHAT, "k", "x" * 99, now=NOW)
    assert (caught.value.size, caught.value.limit) == (101, 100)


async def test_a_scope_over_its_quota_is_refused_and_others_are_not(database: Database) -> None:
    store = KeyedStore(database, max_scope_bytes=100)
    await store.prepare()
    await store.set(CHAT, "a", "x" * 58, now=NOW, ttl_s=10)
    with pytest.raises(StoreFullError) as caught:
        await store.set(CHAT, "b", "x" * 58, now=NOW, ttl_s=10)
    assert caught.value.limit == 100
    assert await store.keys(CHAT, now=NOW) == ["a"]

    await store.set(CHAT, "a", "y" * 88, now=NOW, ttl_s=10)
    await store.set(Bucket("tenant-2", "state", "b"), "b", "x" * 58, now=NOW)
    await store.set(Bucket("tenant-1", "state", "other"), "b", "x" * 58, now=NOW + 10)


@pytest.mark.parametrize("bad", [float("nan"), {1, 2}, b"bytes", object()], ids=str)
async def test_what_json_cannot_say_is_refused(store: KeyedStore, bad: object) -> None:
    with pytest.raises(StoreValueError, match="not JSON"):
        await store.set(CHAT, "k", bad, now=NOW)


async def test_a_value_nested_too_deep_is_refused(store: KeyedStore) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(StoreValueError):
        await store.set(CHAT, "k", deep, now=NOW)
    # Unwound here, level by level: freeing it in one go is the interpreter's worst case.
    while deep:
        deep = deep.pop()


@pytest.mark.parametrize("scope", ["", " ", "a\n", "e\u0301", "a\u200bb", "x" * 129])
def test_there_is_no_bucket_without_a_canonical_scope(scope: str) -> None:
    with pytest.raises(IdentityError):
        Bucket(scope, "state", "b")


@pytest.mark.parametrize("text", ["", "a\0b", "\ud800", "x" * 513])
async def test_a_key_or_bucket_that_no_database_holds_is_refused(store: KeyedStore, text: str) -> None:
    with pytest.raises(StoreValueError):
        Bucket("s", "state", text)
    with pytest.raises(StoreValueError):
        await store.set(CHAT, text, 1, now=NOW)


async def test_hostile_names_stay_data(store: KeyedStore) -> None:
    hostile = "k'; DROP TABLE kv; --"
    bucket = Bucket(hostile, "state", hostile)
    await store.set(bucket, hostile, hostile, now=NOW)
    assert await value(store, hostile, bucket=bucket) == hostile
    assert await store.keys(bucket, now=NOW) == [hostile]


class Listener:
    """Notes every statement on its way to a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.dialect = database.dialect
        self.heard: list[Sql] = []

    async def run(self, op_factory: OpFactory[Any]) -> Any:
        return await self._database.run(self._listening(op_factory))

    async def read(self, op_factory: OpFactory[Any]) -> Any:
        return await self._database.read(self._listening(op_factory))

    def _listening(self, op_factory: OpFactory[Any]) -> OpFactory[Any]:
        return ScopedOp(lambda: self._listen(op_factory()), scope_ids_of(op_factory))

    def _listen(self, operation: Op[Any]) -> Op[Any]:
        try:
            statement = next(operation)
            while True:
                self.heard.append(statement)
                statement = operation.send((yield statement))
        except StopIteration as finished:
            return finished.value


async def test_every_statement_names_the_scope(store: KeyedStore, database: Database) -> None:
    listener = Listener(database)
    listened = KeyedStore(listener, max_scope_bytes=1000)  # pyright: ignore[reportArgumentType]
    version = await listened.set(CHAT, "k", 1, now=NOW)
    await listened.compare_and_set(CHAT, "k", 1, expected_version=version, now=NOW, ttl_s=5)
    await listened.get(CHAT, "k", now=NOW)
    await listened.keys(CHAT, now=NOW)
    await listened.delete_bucket(CHAT)
    scoped = [heard for heard in listener.heard if "tenant-1" in heard.params and "scope_id = ?" in heard.text]
    inserts = [heard for heard in listener.heard if heard.text.startswith("INSERT INTO kv (scope_id,")]
    assert len(listener.heard) > 10
    assert len(scoped) + len(inserts) == len(listener.heard)
