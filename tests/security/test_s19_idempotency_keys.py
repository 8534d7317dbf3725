"""A scope cannot fill the tables of idempotency keys, nor get another one's answer by its key (S19)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agent_runtime.jobs.machine import Cancel
from agent_runtime.jobs.sql_store import SqlJobStore
from agent_runtime.testing.records import job_of, later
from runtime_core.call_log.keys import Done, Started
from runtime_core.call_log.log import CallLog
from runtime_core.clock import ManualClock
from runtime_core.errors import StoreQuotaError
from runtime_core.quota import Quota
from runtime_core.stores import Database, open_database
from support.call_log import RepeatingLog, claim_of, execute_once
from support.stores import fresh_store_url

LIMIT = 40


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(await fresh_store_url(request.param, request, tmp_path)) as opened:
        yield opened


async def log_on(database: Database, clock: ManualClock) -> RepeatingLog:
    log = CallLog(database, clock=clock, max_keys=LIMIT)
    await log.prepare()
    return RepeatingLog(log)


async def refusals(*calls: Any) -> list[StoreQuotaError]:
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    refused = [each for each in outcomes if isinstance(each, BaseException)]
    assert all(isinstance(each, StoreQuotaError) for each in refused), refused
    return [each for each in refused if isinstance(each, StoreQuotaError)]


async def test_a_scope_keeps_so_many_keys_and_other_scopes_theirs(database: Database, clock: ManualClock) -> None:
    logs = [await log_on(database, clock) for _ in range(2)]
    answer = await execute_once(logs[0], claim_of("me", key="first", ttl_s=100), "a")
    claims = [claim_of("me", key=f"k{n}", lease_s=50, ttl_s=100) for n in range(3 * LIMIT)]
    refused = await refusals(*(logs[n % 2].begin(claim) for n, claim in enumerate(claims)))
    assert 2 * LIMIT - 1 <= len(refused) <= 2 * LIMIT + 1, "two processes may exceed the limit by what they add at once"
    assert {(each.limit, each.retry_after) for each in refused} == {(LIMIT, 100)}
    assert "40 idempotency keys" in str(refused[0])
    for log in logs:
        assert isinstance(await log.begin(claim_of("me", key="first")), Done), "what is kept is still given"
        theirs = await log.begin(claim_of("me", key="first", scope_id="tenant-2"))
        assert isinstance(theirs, Started), "no answer of another scope"
    assert await execute_once(logs[1], claim_of("you", key="first"), "b") == (answer[0], False)


async def test_keys_that_expire_make_room(database: Database, clock: ManualClock) -> None:
    log = await log_on(database, clock)
    claims = [claim_of("me", key=f"k{n}", lease_s=10, ttl_s=100) for n in range(2 * LIMIT)]
    assert len(await refusals(*(log.begin(claim) for claim in claims))) == LIMIT, "one process never exceeds it"
    clock.advance(109)
    assert len(await refusals(log.begin(claim_of("me", key="new")))) == 1
    clock.advance(1)
    assert await refusals(*(log.begin(claim_of("me", key=f"n{n}")) for n in range(LIMIT))) == []
    assert len(await refusals(log.begin(claim_of("me", key="new")))) == 1
    await log.fail(claim_of("me", key="n0"))
    clock.advance(1)
    assert await refusals(log.begin(claim_of("me", key="new"))) == []


async def test_a_scope_has_so_many_jobs_with_keys(database: Database, clock: ManualClock) -> None:
    stores = [SqlJobStore(database, max_keys=LIMIT, clock=clock) for _ in range(2)]
    first = await stores[0].create(job_of("first", idempotency_key="first"))
    wanted = [job_of(f"job-{n}", idempotency_key=f"k{n}") for n in range(3 * LIMIT)]
    refused = await refusals(*(stores[n % 2].create(job) for n, job in enumerate(wanted)))
    assert 2 * LIMIT - 1 <= len(refused) <= 2 * LIMIT + 1
    assert {(each.limit, each.retry_after) for each in refused} == {(LIMIT, None)}
    for store in stores:
        assert await store.create(job_of("again", idempotency_key="first")) == first
        assert (await store.create(job_of(f"free-{id(store)}"))).idempotency_key is None
        await store.create(job_of("theirs", scope_id="tenant-2", idempotency_key="first"))
    for job in wanted:
        if (await stores[0].get("tenant-1", job.job_id)) is not None:
            await stores[0].apply("tenant-1", job.job_id, Cancel(), now=later(1))
    await stores[0].forget("tenant-1", older_than=later(2))
    clock.advance(1)
    assert await refusals(stores[0].create(job_of("new", idempotency_key="new"))) == []


@pytest.mark.parametrize("seed", range(20))
async def test_a_process_never_exceeds_a_quota_whatever_comes_when(seed: int) -> None:
    rng, kept = Random(seed), 0
    quota = Quota(rng.randint(1, 60), monotonic=ManualClock().monotonic)

    async def count() -> int:
        found = kept
        for _ in range(rng.randint(0, 3)):
            await asyncio.sleep(0)
        return found

    async def add() -> bool:
        nonlocal kept
        async with quota.place("tenant-1", count) as may_add:
            for _ in range(rng.randint(0, 5)):
                await asyncio.sleep(0)
            kept += may_add
            assert kept <= quota.limit
            return may_add

    added = 0
    for _ in range(8):
        added += sum(await asyncio.gather(*(add() for _ in range(20))))
    assert added == kept == quota.limit
