"""RELIABILITY S8: random operations of two tenants that use the same session ids on purpose, against dictionaries.

AGENTFLOW_SESSION_OPERATIONS is how many; they are the same ones in every run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from runtime_core.clock import ManualClock
from runtime_core.errors import StoreConflictError, StoreFullError
from runtime_core.sessions import branches, catalog, ops
from runtime_core.sessions.cache import CachedSessions
from runtime_core.sessions.ops import SessionLimits
from runtime_core.sessions.records import SessionRecord
from support.stored_sessions import RepeatingSessions, open_session_database, prepared_sessions, said

OPERATIONS = int(os.environ.get("AGENTFLOW_SESSION_OPERATIONS", "10000"))
TENANTS = ("tenant-1", "tenant-2")
IDS = ("s", "t", "u")
TTL_S, MAX_RECORDS = 50.0, 12

Place = tuple[str, str]


class Model:
    """What sessions should hold: per tenant and id the records, when they expire, and where they came from."""

    def __init__(self) -> None:
        self.records: dict[Place, list[SessionRecord]] = {}
        self.ends: dict[Place, float] = {}
        self.forks: dict[Place, tuple[str, int]] = {}

    def of(self, place: Place) -> list[SessionRecord]:
        return self.records.get(place, [])

    def forget(self, place: Place) -> None:
        self.records.pop(place, None)
        self.forks.pop(place, None)

    def pass_time(self, now: float) -> None:
        for place, end in self.ends.items():
            if end <= now:
                self.forget(place)

    def add(self, place: Place, records: list[SessionRecord], now: float) -> int | None:
        """The version that has them all; None where there is no room."""
        there = self.of(place)
        new = [record for record in records if record not in there]
        if not new:
            return max((there.index(record) + 1 for record in records), default=len(there))
        if len(there) + len(new) > MAX_RECORDS:
            return None
        self.records[place] = there + new
        self.ends[place] = now + TTL_S
        return len(there) + len(new)


class Tenants:
    """Random operations on the store and on the model, one after the other."""

    def __init__(self, sessions: RepeatingSessions, cached: RepeatingSessions, clock: ManualClock) -> None:
        self.random = Random(11)
        self.sessions = sessions
        self.cached = cached
        self.clock = clock
        self.model = Model()
        self.fresh: Iterator[int] = iter(range(10**9))
        self.done: dict[str, int] = {}

    def draw(self) -> tuple[Place, dict[str, Any]]:
        place = (self.random.choice(TENANTS), self.random.choice(IDS))
        return place, {"scope_id": place[0], "session_id": place[1]}

    async def append(self) -> None:
        place, where = self.draw()
        again = self.random.random() < 0.2 and self.model.of(place)
        # The tenants' records have the same ids, and texts that say whose they are.
        records = (
            list(again[-2:])
            if again
            else [
                said(f"{next(self.fresh) % 40}", run_id=f"run of {place[0]}") for _ in range(self.random.randint(1, 3))
            ]
        )
        records = [record.model_copy(update={"record_id": record.text}) for record in dict.fromkeys(records)]
        expected = self.model.add(place, records, self.clock.monotonic())
        try:
            assert await self.sessions.append(**where, records=records, base=0) == expected
        except StoreFullError:
            assert expected is None

    async def fork(self) -> None:
        place, where = self.draw()
        into = self.random.choice(IDS)
        target, version = (place[0], into), len(self.model.of(place))
        taken = target in self.model.records
        origin = self.model.forks.get(target)
        try:
            found = await self.sessions.fork(**where, into=into)
        except StoreConflictError:
            assert taken and (origin is None or origin[0] != place[1])
            return
        if taken:
            assert origin is not None and (place[1], found) == origin
            return
        assert found == version
        self.model.records[target] = list(self.model.of(place))
        self.model.forks[target] = (place[1], version)
        self.model.ends[target] = self.clock.monotonic() + TTL_S

    async def merge(self) -> None:
        place, where = self.draw()
        source = self.random.choice(IDS)
        expected = self.model.add(place, self.model.of((place[0], source)), self.clock.monotonic())
        try:
            assert await self.sessions.merge(**where, sources=[source]) == len(self.model.of(place))
        except StoreFullError:
            assert expected is None

    async def delete(self) -> None:
        place, where = self.draw()
        await self.sessions.delete(**where)
        self.model.forget(place)

    async def time_passes(self) -> None:
        self.clock.advance(self.random.choice([1.0, 5.0, 20.0]))
        self.model.pass_time(self.clock.monotonic())
        if self.random.random() < 0.3:
            await self.sessions.expire(limit=2)

    async def look(self) -> None:
        place, where = self.draw()
        since = self.random.choice([0, 0, 1, 5])
        for door in (self.sessions, self.cached):
            found = await door.read(**where, since=since)
            assert (found.version, list(found.records)) == (len(self.model.of(place)), self.model.of(place)[since:])
            assert {record.run_id for record in found.records} <= {f"run of {place[0]}"}, "another tenant's"

    async def list(self) -> None:
        tenant = self.random.choice(TENANTS)
        page = await self.sessions.list(scope_id=tenant)
        live = {place[1]: len(found) for place, found in self.model.records.items() if place[0] == tenant}
        assert {each.session_id: each.version for each in page.sessions} == live

    async def step(self) -> None:
        weights = {"append": 8, "look": 5, "fork": 2, "merge": 2, "delete": 1, "time_passes": 1, "list": 1}
        [name] = self.random.choices(list(weights), list(weights.values()))
        await getattr(self, name)()
        self.done[name] = self.done.get(name, 0) + 1


@pytest.mark.parametrize(("fault_rate", "operations"), [(0.0, OPERATIONS), (0.33, OPERATIONS // 5)])
async def test_two_tenants_with_the_same_ids_never_see_each_others_records(fault_rate: float, operations: int) -> None:
    clock = ManualClock()
    async with open_session_database("memory:", fault_rate=fault_rate) as database:
        store = await prepared_sessions(database, clock, ttl_s=TTL_S, limits=SessionLimits(max_records=MAX_RECORDS))
        cached = RepeatingSessions(CachedSessions(store, max_chars=20_000))
        tenants = Tenants(RepeatingSessions(store), cached, clock)
        for _ in range(operations):
            await tenants.step()
    assert len(tenants.done) == 7


def test_no_statement_about_sessions_can_be_asked_without_a_scope():
    statements = [
        value
        for module in (ops, branches, catalog)
        for value in vars(module).values()
        if isinstance(value, str) and value.startswith(("SELECT ", "INSERT ", "DELETE ", "UPDATE "))
    ]
    assert len(statements) > 10
    assert [statement for statement in statements if "scope_id" not in statement] == []
