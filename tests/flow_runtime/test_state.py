"""Node state: who shares a bucket, how long it lives, and that one scope never sees another's (IR.md Q22, Q23)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flow_runtime import LocalFlow, LocalSettings
from flow_runtime.state import StoredState
from runtime_core.clock import ManualClock, SystemClock
from runtime_core.context import Identity
from runtime_core.stores.keyed import Bucket
from runtime_core.stores.memory import MemoryDatabase
from runtime_core.stores.sql import Op, Sql
from support.flows import run_flow, small_flow
from support.postgres import PostgresServer

CHAT = """
read:
  inputs: [{name: x, type: string}]
  outputs: [{name: seen, type: array}]
  state: {scope: %(scope)s, key: "chat_{context.session_id}", %(more)s backend: %(backend)s}
  transform:
    mode: code
    spec: |
      async def transform(inputs, context, state):
          return {"seen": await state.get("said", [])}
write:
  inputs: [{name: x, type: string}, {name: seen, type: array}]
  outputs: [{name: said, type: array}]
  state: {scope: %(scope)s, key: "chat_{session_id}", %(more)s backend: %(backend)s}
  transform:
    mode: code
    spec: |
      async def transform(inputs, context, state):
          return {"said": await state.update("said", lambda said: [*said, inputs["x"]], default=[])}
again:
  inputs: [{name: said, type: array}]
  outputs: [{name: seen, type: array}]
  state: {scope: %(scope)s, key: "chat_{context.session_id}", %(more)s backend: %(backend)s}
  transform:
    mode: code
    spec: |
      async def transform(inputs, context, state):
          return {"seen": await state.get("said", [])}
"""
EDGES = [
    "_input.x -> read.x",
    "_input.x -> write.x",
    "read.seen -> write.seen",
    "write.said -> again.said",
    "again.seen -> _output",
]


def chat(scope: str = "session", backend: str = "memory", more: str = "") -> Any:
    text = CHAT % {"scope": scope, "backend": backend, "more": more}
    return small_flow(text, EDGES, requires=["x", "session_id"])


def said(x: str, session: Any = "s1") -> dict[str, Any]:
    return {"x": x, "session_id": session}


@pytest.fixture(params=["memory", "store"])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def settings(tmp_path: Path) -> LocalSettings:
    return LocalSettings(store=f"sqlite:///{tmp_path / 'state.sqlite'}")


async def test_nodes_whose_keys_resolve_alike_share_a_bucket_across_runs(backend: str, settings: LocalSettings):
    async with LocalFlow(chat(backend=backend), settings=settings) as runner:
        assert (await runner.run(said("one"))).output == ["one"]
        assert (await runner.run(said("two"))).output == ["one", "two"]
        assert (await runner.run(said("other", session="s2"))).output == ["other"]


async def test_scopes_never_share_even_with_the_same_session_id(backend: str, settings: LocalSettings):
    async with LocalFlow(chat(backend=backend), settings=settings) as runner:
        await runner.run(said("secret"), identity=Identity(scope_id="a"))
        assert (await runner.run(said("mine"), identity=Identity(scope_id="b"))).output == ["mine"]


async def test_request_state_dies_with_the_request(backend: str, settings: LocalSettings):
    async with LocalFlow(chat(scope="request", backend=backend), settings=settings) as runner:
        assert (await runner.run(said("one"))).output == ["one"]
        assert (await runner.run(said("two"))).output == ["two"]


async def test_a_session_expires_after_its_ttl_and_each_write_renews_it():
    clock = ManualClock()
    flow = chat(more="ttl_seconds: 60,")
    async with LocalFlow(flow, settings=LocalSettings(clock=clock)) as runner:
        await runner.run(said("one"))
        clock.advance(50)
        await runner.run(said("two"))
        clock.advance(50)
        assert (await runner.run(said("three"))).output == ["one", "two", "three"]
        clock.advance(61)
        assert (await runner.run(said("four"))).output == ["four"]


async def test_concurrent_updates_of_one_bucket_lose_nothing(backend: str, settings: LocalSettings):
    async with LocalFlow(chat(backend=backend), settings=settings) as runner:
        await asyncio.gather(*(runner.run(said(str(number))) for number in range(20)))
        report = await runner.run(said("last"))
    assert sorted(report.output) == sorted([*map(str, range(20)), "last"])


async def test_the_store_outlives_the_process_that_wrote_it(settings: LocalSettings):
    assert (await run_flow(chat(backend="store"), said("one"), settings=settings)).output == ["one"]
    assert (await run_flow(chat(backend="store"), said("two"), settings=settings)).output == ["one", "two"]


async def test_machines_share_state_through_postgresql(postgres_server: PostgresServer):
    settings = LocalSettings(store=await postgres_server.fresh_url())
    flow = chat(backend="store")
    async with LocalFlow(flow, settings=settings) as here, LocalFlow(flow, settings=settings) as there:
        await asyncio.gather(*((here, there)[number % 2].run(said(str(number))) for number in range(20)))
        await there.run(said("secret"), identity=Identity(scope_id="other"))
        report = await here.run(said("last"))
    assert sorted(report.output) == sorted([*map(str, range(20)), "last"])


@pytest.mark.parametrize("session", [None, {"a": 1}, ["s1"]])
async def test_a_key_that_cannot_be_resolved_is_an_error_and_not_literal_text(session: Any):
    report = await run_flow(chat(), said("one", session=session))
    assert report.error.code == "node_failed"
    assert "session_id" in report.error.message


async def test_values_that_differ_never_meet_in_one_bucket():
    flow = small_flow(
        """
        put:
          inputs: [{name: a, type: string}, {name: b, type: string}]
          outputs: [{name: all, type: array}]
          state: {scope: session, key: "{context.session_id}_{a}_{b}"}
          transform:
            mode: code
            spec: |
              async def transform(inputs, context, state):
                  return {"all": await state.update("all", lambda all: [*all, 1], default=[])}
        """,
        ["_input.a -> put.a", "_input.b -> put.b", "put.all -> _output"],
        requires=["a", "b", "session_id"],
    )
    async with LocalFlow(flow) as runner:
        for a, b in (("x_y", "z"), ("x", "y_z"), ("x_y", "z_")):
            assert (await runner.run({"a": a, "b": b, "session_id": "s"})).output == [1]


async def test_code_without_declared_state_is_told_to_declare_it():
    flow = small_flow(
        """
        put:
          inputs: [{name: x, type: number}]
          outputs: [{name: y, type: number}]
          transform:
            mode: code
            spec: |
              async def transform(inputs, context, state):
                  return {"y": await state.get("y", 1)}
        """,
        ["_input.x -> put.x", "put.y -> _output"],
    )
    report = await run_flow(flow)
    assert "declare `state" in report.error.message


async def test_expired_buckets_are_freed_while_new_ones_are_written():
    database = MemoryDatabase()
    state = await StoredState.open(database, SystemClock())
    for number in range(1000):
        await state.put(Bucket("default", "session", f"b{number}"), "k", number, ttl_s=0.000001)

    def count() -> Op[int]:
        rows = yield Sql("SELECT COUNT(*) FROM kv")
        return rows[0][0]

    assert await database.read(count) < 100
    await database.close()
