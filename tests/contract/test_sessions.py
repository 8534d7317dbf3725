"""What sessions promise on every database, alone and behind injected faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from runtime_core.clock import ManualClock
from runtime_core.errors import IdentityError, StoreConflictError, StoreFullError, StoreValueError
from runtime_core.sessions.cache import CachedSessions
from runtime_core.sessions.ops import SessionLimits
from runtime_core.sessions.records import SessionRecord
from runtime_core.stores import Database
from support.stored_sessions import FULL, RepeatingSessions, open_session_database, prepared_sessions, said
from support.stores import fresh_store_url

HERE: dict[str, Any] = {"scope_id": "tenant-1", "session_id": "s"}
THERE: dict[str, Any] = {"scope_id": "tenant-2", "session_id": "s"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite", "postgres", "faulty memory", "faulty postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    *faulty, kind = request.param.split()
    url = await fresh_store_url(kind, request, tmp_path)
    async with open_session_database(url, fault_rate=0.33 if faulty else 0.0) as opened:
        yield opened


@pytest.fixture
async def sessions(database: Database, clock: ManualClock) -> RepeatingSessions:
    return RepeatingSessions(await prepared_sessions(database, clock, ttl_s=100))


def texts(records: Iterable[SessionRecord]) -> list[str]:
    return [record.text for record in records]


async def told(sessions: RepeatingSessions, **where: Any) -> list[str]:
    return texts((await sessions.read(**(where or HERE))).records)


async def test_a_record_is_read_as_it_was_appended(sessions: RepeatingSessions) -> None:
    assert (await sessions.read(**HERE)).version == 0
    assert await sessions.append(**HERE, records=[said("hi"), FULL], base=0) == 2
    found = await sessions.read(**HERE)
    assert (found.version, found.records) == (2, (said("hi"), FULL))
    since = await sessions.read(**HERE, since=1)
    assert (since.version, since.records) == (2, (FULL,))
    assert (await sessions.read(**HERE, since=2)).records == ()


async def test_an_append_that_is_repeated_adds_nothing_and_gives_the_same_version(sessions: RepeatingSessions) -> None:
    first = [said("a"), said("b")]
    assert await sessions.append(**HERE, records=first, base=0) == 2
    assert await sessions.append(**HERE, records=[said("c")], base=2) == 3
    assert await sessions.append(**HERE, records=first, base=0) == 2
    assert await sessions.append(**HERE, records=[said("b"), said("d"), said("d")], base=3) == 4
    assert await told(sessions) == ["a", "b", "c", "d"]
    assert await sessions.append(**HERE, records=[], base=4) == 4


async def test_whole_runs_interleave_and_none_of_20_branches_loses_a_record(sessions: RepeatingSessions) -> None:
    async def run(number: int) -> int:
        turns = [said(text, run_id=f"run-{number}") for text in ("question", "call", "result", "answer")]
        return await sessions.append(**HERE, records=turns, base=0)

    versions = await asyncio.gather(*(run(number) for number in range(20)))
    found = await sessions.read(**HERE)
    assert (found.version, sorted(versions)) == (80, [4 * (number + 1) for number in range(20)])
    runs = [record.run_id for record in found.records]
    assert all(len(set(runs[start : start + 4])) == 1 for start in range(0, 80, 4))
    assert texts(found.records[:4]) == ["question", "call", "result", "answer"]


async def test_the_same_session_id_in_two_scopes_is_two_sessions(sessions: RepeatingSessions) -> None:
    await sessions.append(**HERE, records=[said("mine")], base=0)
    assert await told(sessions, **THERE) == []
    await sessions.append(**THERE, records=[said("mine"), said("yours")], base=0)
    assert (await told(sessions), await told(sessions, **THERE)) == (["mine"], ["mine", "yours"])
    assert await sessions.merge(**HERE, sources=["s"]) == 1
    await sessions.delete(**THERE)
    assert (await told(sessions), await told(sessions, **THERE)) == (["mine"], [])
    for wrong in ({**HERE, "scope_id": ""}, {**HERE, "session_id": "a\nb"}, {**HERE, "scope_id": "x "}):
        with pytest.raises(IdentityError):
            await sessions.read(**wrong)


async def test_a_session_has_bounds_and_an_append_beyond_them_adds_nothing(
    database: Database, clock: ManualClock
) -> None:
    limits = SessionLimits(max_records=3, max_bytes=1000)
    sessions = RepeatingSessions(await prepared_sessions(database, clock, limits=limits))
    await sessions.append(**HERE, records=[said("a"), said("b")], base=0)
    with pytest.raises(StoreFullError, match="would have 4 records, where 3 are allowed") as full:
        await sessions.append(**HERE, records=[said("c"), said("d")], base=2)
    assert full.value.limit == 3
    with pytest.raises(StoreFullError, match="bytes, where 1000 are allowed"):
        await sessions.append(**HERE, records=[said("c" * 1000)], base=2)
    assert await sessions.append(**HERE, records=[said("a"), said("c")], base=2) == 3
    await sessions.append(scope_id="tenant-1", session_id="other", records=[said("x"), said("y")], base=0)
    with pytest.raises(StoreFullError):
        await sessions.merge(**HERE, sources=["other"])
    assert await told(sessions) == ["a", "b", "c"]


async def test_a_session_expires_after_its_last_write_and_begins_anew(
    sessions: RepeatingSessions, clock: ManualClock
) -> None:
    await sessions.append(**HERE, records=[said("old")], base=0)
    clock.advance(99)
    assert await sessions.append(**HERE, records=[said("newer")], base=1) == 2
    clock.advance(99)
    assert await told(sessions) == ["old", "newer"]
    clock.advance(1)
    assert (await told(sessions), (await sessions.list(scope_id="tenant-1")).sessions) == ([], [])
    assert await sessions.append(**HERE, records=[said("old")], base=2) == 1
    await sessions.append(**THERE, records=[said("x")], base=0)
    clock.advance(100)
    await sessions.append(scope_id="tenant-1", session_id="live", records=[said("x")], base=0)
    freed = 0
    while found := await sessions.expire(limit=1):
        freed += found
    assert await told(sessions, scope_id="tenant-1", session_id="live") == ["x"]
    assert [each.session_id for each in (await sessions.list(scope_id="tenant-1")).sessions] == ["live"]


async def test_a_wall_clock_that_jumps_expires_nothing(sessions: RepeatingSessions, clock: ManualClock) -> None:
    await sessions.append(**HERE, records=[said("a")], base=0)
    clock.step(86_400)
    assert await told(sessions) == ["a"]


async def test_a_fork_is_a_session_of_its_own_and_a_merge_brings_back_what_it_added(
    sessions: RepeatingSessions,
) -> None:
    left, right = ({**HERE, "session_id": name} for name in ("left", "right"))
    await sessions.append(**HERE, records=[said("a"), said("b"), said("c")], base=0)
    assert await sessions.fork(**HERE, into="left", at=2) == 2
    assert await sessions.fork(**HERE, into="right") == 3
    await sessions.append(**right, records=[said("r")], base=3)
    await sessions.append(**left, records=[said("l"), said("m")], base=2)
    assert (await told(sessions, **left), await told(sessions)) == (["a", "b", "l", "m"], ["a", "b", "c"])

    assert await sessions.fork(**HERE, into="left", at=2) == 2, "the same fork again changes nothing"
    for into, at in (("left", 3), ("s", None)):
        with pytest.raises(StoreConflictError):
            await sessions.fork(**HERE, into=into, at=at)
    with pytest.raises(StoreValueError, match="versions 0 to 3"):
        await sessions.fork(**HERE, into="new", at=4)

    assert await sessions.merge(**HERE, sources=["left", "right", "nobody"]) == 6
    assert await sessions.merge(**HERE, sources=["right", "left"]) == 6
    assert await told(sessions) == ["a", "b", "c", "l", "m", "r"]


async def test_a_fork_counts_against_the_bounds(database: Database, clock: ManualClock) -> None:
    sessions = RepeatingSessions(await prepared_sessions(database, clock, limits=SessionLimits(max_bytes=300)))
    await sessions.append(**HERE, records=[said("x" * 150)], base=0)
    await sessions.fork(**HERE, into="copy")
    with pytest.raises(StoreFullError):
        await sessions.append(scope_id="tenant-1", session_id="copy", records=[said("y" * 150)], base=1)


async def test_sessions_are_listed_the_latest_first_in_pages_and_forgotten_one_by_one(
    sessions: RepeatingSessions, clock: ManualClock
) -> None:
    for number in range(5):
        clock.advance(number % 2)
        where = {"scope_id": "tenant-1", "session_id": f"s{number}"}
        await sessions.append(**where, records=[said("a"), said("b")], base=0)
    page = await sessions.list(scope_id="tenant-1", limit=3)
    rest = await sessions.list(scope_id="tenant-1", after=page.next, limit=3)
    assert [each.session_id for each in (*page.sessions, *rest.sessions)] == ["s4", "s3", "s2", "s1", "s0"]
    assert rest.next is None
    info = await sessions.info(scope_id="tenant-1", session_id="s4")
    assert info == page.sessions[0]
    assert (info.version, info.size_bytes > 100, info.expires_at - info.updated_at) == (2, True, 100)
    assert await sessions.info(scope_id="tenant-2", session_id="s4") is None

    await sessions.delete(scope_id="tenant-1", session_id="s4")
    assert await told(sessions, scope_id="tenant-1", session_id="s4") == []
    assert not await sessions.delete(scope_id="tenant-1", session_id="s4")
    assert len((await sessions.list(scope_id="tenant-1")).sessions) == 4


async def test_a_cache_in_front_tells_what_the_store_tells_whoever_wrote(
    database: Database, clock: ManualClock
) -> None:
    store = await prepared_sessions(database, clock, ttl_s=100)
    cached, direct = RepeatingSessions(CachedSessions(store, max_chars=4000)), RepeatingSessions(store)

    async def agree() -> None:
        for since in (0, 1):
            assert await cached.read(**HERE, since=since) == await direct.read(**HERE, since=since)

    await cached.append(**HERE, records=[said("a"), said("b")], base=0)
    await agree()
    await direct.append(**HERE, records=[said("c")], base=2)
    await agree()
    await direct.delete(**HERE)
    await agree()
    await direct.append(**HERE, records=[said("x"), said("y"), said("z"), said("w")], base=0)
    await agree()
    await cached.append(**HERE, records=[said("long" * 1000)], base=4)
    await agree()
    clock.advance(100)
    await agree()


async def test_200_turns_stay_under_3_megabytes(database: Database, clock: ManualClock) -> None:
    import tracemalloc

    sessions = RepeatingSessions(await prepared_sessions(database, clock))
    for number in range(200):
        run_id, text = f"run-{number}", "words " * 150
        turns = [said(f"{number} {text}", run_id=run_id), said(f"re {text}", run_id=run_id, role="assistant")]
        await sessions.append(**HERE, records=turns, base=2 * number)
    info = await sessions.info(**HERE)
    assert info.size_bytes < 3_000_000
    tracemalloc.start()
    try:
        found = await sessions.read(**HERE)
        assert tracemalloc.get_traced_memory()[0] < 3_000_000
    finally:
        tracemalloc.stop()
    assert len(found.records) == 400
