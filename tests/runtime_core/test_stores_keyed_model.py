"""The keyed store against a dictionary: any sequence of operations, two tenants, a clock moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runtime_core.errors import StoreConflictError
from runtime_core.stores import Bucket, Entry, KeyedStore, open_database

T = TypeVar("T")

BUCKETS = [Bucket(scope, "state", name) for scope in ("tenant-1", "tenant-2") for name in ("a", "b")]
buckets = st.sampled_from(BUCKETS)
keys = st.sampled_from(["x", "y"])
values = st.integers() | st.text(max_size=5) | st.none()
lifetimes = st.none() | st.integers(1, 20)


class KeyedStoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = 1_800_000_000.0
        self.model: dict[Bucket, dict[str, Entry]] = {bucket: {} for bucket in BUCKETS}
        self.expiry: dict[Bucket, float | None] = dict.fromkeys(BUCKETS)
        self.versions: dict[tuple[Bucket, str], set[int]] = {}
        self.database = open_database("memory:")
        self.store = KeyedStore(self.database)
        self.wait(self.store.prepare())

    def wait(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.wait(self.database.close())
        self.runner.close()

    def live(self, bucket: Bucket) -> dict[str, Entry]:
        expires_at = self.expiry[bucket]
        return {} if expires_at is not None and expires_at <= self.now else self.model[bucket]

    def remember(self, bucket: Bucket, key: str, value: Any, version: int, ttl_s: int | None) -> None:
        used = self.versions.setdefault((bucket, key), set())
        assert version not in used
        used.add(version)
        self.model[bucket] = {**self.live(bucket), key: Entry(value, version)}
        self.expiry[bucket] = None if ttl_s is None else self.now + ttl_s

    @rule(bucket=buckets, key=keys, value=values, ttl_s=lifetimes)
    def set(self, bucket: Bucket, key: str, value: Any, ttl_s: int | None) -> None:
        self.now += 0.001  # every write takes time; versions are made of it
        version = self.wait(self.store.set(bucket, key, value, now=self.now, ttl_s=ttl_s))
        self.remember(bucket, key, value, version, ttl_s)

    @rule(bucket=buckets, key=keys, value=values, ttl_s=lifetimes, offset=st.sampled_from([0, 0, 0, -1, 1]))
    def compare_and_set(self, bucket: Bucket, key: str, value: Any, ttl_s: int | None, offset: int) -> None:
        self.now += 0.001
        stored = self.live(bucket).get(key)
        actual = stored.version if stored else 0
        try:
            version = self.wait(
                self.store.compare_and_set(
                    bucket, key, value, expected_version=actual + offset, now=self.now, ttl_s=ttl_s
                )
            )
        except StoreConflictError as conflict:
            assert offset != 0 and conflict.actual == actual
        else:
            assert offset == 0
            self.remember(bucket, key, value, version, ttl_s)

    @rule(bucket=buckets)
    def delete_bucket(self, bucket: Bucket) -> None:
        self.wait(self.store.delete_bucket(bucket))
        self.model[bucket] = {}

    @rule(seconds=st.integers(1, 10))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(limit=st.integers(1, 3))
    def sweep(self, limit: int) -> None:
        assert self.wait(self.store.sweep(now=self.now, limit=limit)) <= limit

    @invariant()
    def the_store_agrees_with_the_model(self) -> None:
        for bucket in BUCKETS:
            live = self.live(bucket)
            assert self.wait(self.store.keys(bucket, now=self.now)) == sorted(live)
            for key in ("x", "y"):
                assert self.wait(self.store.get(bucket, key, now=self.now)) == live.get(key)


KeyedStoreMachine.TestCase.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_the_keyed_store_behaves_like_a_dictionary_with_expiry = KeyedStoreMachine.TestCase
