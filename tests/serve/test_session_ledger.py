"""The shared actor: one bucket for all replicas, back after a crash without its memory, gone when nobody needs it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from agentflow_serve.errors import LedgerAway
from agentflow_serve.session_ledger import (
    NAMESPACE,
    LedgerCalls,
    SessionLedger,
    SharedState,
    actor_name,
    session_ledger,
)
from runtime_core.errors import StoreConflictError
from runtime_core.stores.keyed import Bucket

pytestmark = pytest.mark.serve

BUCKET = Bucket(scope_id="default", space="session", name="b")


async def test_two_clients_of_one_app_see_one_bucket_and_other_apps_do_not(cluster: int):
    mine, yours, other = SharedState("one-app"), SharedState("one-app"), SharedState("other-app")
    version = await mine.put(BUCKET, "k", {"n": 1}, ttl_s=None)
    entry = await yours.get(BUCKET, "k")
    assert entry is not None
    assert (entry.value, entry.version) == ({"n": 1}, version)
    assert await other.get(BUCKET, "k") is None


async def test_a_conflict_comes_back_as_the_stores_own_error(cluster: int):
    state = SharedState("one-app")
    await state.put(BUCKET, "taken", 1, ttl_s=None)
    with pytest.raises(StoreConflictError):
        await state.put(BUCKET, "taken", 2, ttl_s=None, expected=0)


async def test_concurrent_compare_and_set_loses_no_increment(cluster: int):
    async def add(state: SharedState) -> None:
        while True:
            entry = await state.get(BUCKET, "count")
            value, version = (entry.value, entry.version) if entry else (0, 0)
            try:
                await state.put(BUCKET, "count", value + 1, ttl_s=None, expected=version)
            except StoreConflictError:
                continue
            return

    clients = [SharedState("one-app") for _ in range(20)]
    await asyncio.gather(*(add(client) for client in clients))
    entry = await clients[0].get(BUCKET, "count")
    assert entry is not None
    assert entry.value == 20


async def test_after_a_crash_the_same_calls_work_on_empty_memory(cluster: int):
    import ray

    state = SharedState("crashing")
    await state.put(BUCKET, "k", "lost", ttl_s=None)
    ray.kill(session_ledger("crashing"), no_restart=False)
    give_up = time.monotonic() + 30
    while await state.get(BUCKET, "k") is not None:
        assert time.monotonic() < give_up, "the kill never arrived"
    await state.put(BUCKET, "k", "new", ttl_s=None)
    entry = await state.get(BUCKET, "k")
    assert entry is not None
    assert entry.value == "new"


async def test_an_actor_of_a_release_that_knows_no_ledger_is_passed_by(cluster: int):
    import ray

    class Older:
        async def heartbeat(self) -> None: ...

    actor: Any = ray.remote(num_cpus=0)(Older)
    handle = actor.options(name=actor_name("older"), namespace=NAMESPACE, lifetime="detached").remote()
    await handle.heartbeat.remote()
    for method, args in (("ledger", ("memory:", [])), ("heartbeat", (None,))):
        with pytest.raises(LedgerAway, match="another release"):
            await LedgerCalls("older").call(method, *args, timeout_s=10)
    ray.kill(handle)


async def test_it_ends_by_itself_when_no_predictor_shows_itself(cluster: int):
    import ray

    name = actor_name("idle")
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1)(SessionLedger)
    handle = actor.options(name=name, namespace=NAMESPACE, lifetime="detached").remote(1.0)
    await handle.heartbeat.remote()
    give_up = time.monotonic() + 30
    while {"name": name, "namespace": NAMESPACE} in ray.util.list_named_actors(all_namespaces=True):
        assert time.monotonic() < give_up
        await asyncio.sleep(0.1)
