"""GET and DELETE /v1/sessions/{id}: the caller's own sessions, and nobody else's, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from agentflow.signature import Signature
from agentflow_serve.kserve_app import build_predictor_app
from agentflow_serve.limits import EdgeLimits
from runtime_core.clock import ManualClock
from runtime_core.sessions.store import StoredSessions
from runtime_core.stores import open_database
from support.predictor_server import Runner, serving
from support.stored_sessions import FULL, prepared_sessions, said


@asynccontextmanager
async def predictor(sessions: StoredSessions | None) -> AsyncIterator[httpx.AsyncClient]:
    app = build_predictor_app(name="m", signature=Signature(), runner=Runner(), limits=EdgeLimits(), sessions=sessions)
    async with (
        serving(app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/v1/sessions", timeout=20) as client,
    ):
        yield client


@pytest.fixture
async def sessions() -> AsyncIterator[StoredSessions]:
    async with open_database("memory:") as database:
        yield await prepared_sessions(database, ManualClock(), ttl_s=100)


async def keep(sessions: StoredSessions, *, scope_id: str = "default", session_id: str = "s") -> None:
    await sessions.append(scope_id=scope_id, session_id=session_id, records=[said("hi"), FULL], base=0)


async def test_a_session_is_shown_whole_or_since_a_version(sessions: StoredSessions):
    await keep(sessions, session_id="a/b c")
    async with predictor(sessions) as client:
        shown: dict[str, Any] = (await client.get("/a%2Fb%20c")).json()
        assert (shown["session_id"], shown["version"], shown["expires_at"] - shown["updated_at"]) == ("a/b c", 2, 100)
        assert shown["records"] == [said("hi").model_dump(mode="json"), FULL.model_dump(mode="json")]
        assert len((await client.get("/a%2Fb%20c?since=1")).json()["records"]) == 1
        wrong = await client.get("/a%2Fb%20c?since=-1")
        assert (wrong.status_code, wrong.json()["code"]) == (400, "bad_input")


async def test_a_parameter_that_is_not_there_is_refused_and_nothing_is_deleted(sessions: StoredSessions):
    await keep(sessions)
    async with predictor(sessions) as client:
        for method, known in (("DELETE", "there are none"), ("GET", "there are since")):
            answer = await client.request(method, "/s?dry_run=1")
            assert (answer.status_code, answer.json()["code"]) == (400, "bad_input")
            assert f"There is no parameter 'dry_run' here; {known}." in answer.json()["error"]
        assert (await client.get("/s")).status_code == 200


async def test_a_deleted_session_is_gone(sessions: StoredSessions):
    await keep(sessions)
    async with predictor(sessions) as client:
        assert (await client.delete("/s")).status_code == 204
        for answer in (await client.get("/s"), await client.delete("/s")):
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("header", ["x-scope-id", "x-tenant-id", "x-session-id", "forwarded"])
async def test_another_scopes_session_is_none_whatever_a_request_says(sessions: StoredSessions, header: str):
    await keep(sessions, scope_id="tenant-2")
    async with predictor(sessions) as client:
        for method in ("GET", "DELETE"):
            assert (await client.request(method, "/s", headers={header: "tenant-2"})).status_code == 404
            assert (await client.request(method, "/s?scope_id=tenant-2")).status_code == 400
    assert (await sessions.read(scope_id="tenant-2", session_id="s")).version == 2


async def test_a_wrong_id_is_the_clients_mistake_and_a_closed_store_is_not(sessions: StoredSessions):
    async with predictor(sessions) as client:
        answer = await client.get("/%20a")
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_input")
    database = open_database("memory:")
    closed = await prepared_sessions(database, ManualClock())
    await database.close()
    async with predictor(closed) as client:
        for method in ("GET", "DELETE"):
            answer = await client.request(method, "/s")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_a_flow_that_remembers_nothing_has_no_such_routes():
    async with predictor(None) as client:
        assert (await client.get("/s")).status_code == 404
