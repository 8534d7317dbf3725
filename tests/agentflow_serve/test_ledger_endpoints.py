"""GET /v1/ledger/...: what the caller's own scope has spent, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from agent_runtime.ledger.view import LedgerView
from runtime_core.stores import Database, open_database
from support.ledger_door import ROUTES, predictor, two_tenants


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    async with open_database("memory:") as database:
        yield database


@pytest.fixture
async def ledger(database: Database) -> LedgerView:
    return await two_tenants(database)


async def pages(client: httpx.AsyncClient, route: str, what: str, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        answer = await client.get(f"/{route}", params=query)
        assert answer.status_code == 200, answer.text
        document = answer.json()
        found += document[what]
        if document["next"] is None:
            return found
        query["after"] = document["next"]


async def test_a_caller_sees_its_scope_page_by_page(ledger: LedgerView):
    async with predictor(ledger) as client:
        usage = (await client.get("/usage")).json()
        assert (usage["scope_id"], usage["by"], usage["total"]["events"]) == ("default", "role", 6)
        for by in ("role", "principal", "run", "model", "day", "hour"):
            groups = await pages(client, "usage", "groups", by=by, limit=1)
            assert sum(each["events"] for each in groups) == 6
        attempts = await pages(client, "attempts", "attempts", limit=4)
        assert [each["attempt_id"] for each in attempts] == [f"att-{n}" for n in range(6, 0, -1)]
        assert len(await pages(client, "attempts", "attempts", status="settled", principal="ann", limit=1)) == 2
        budgets = await pages(client, "budgets", "budgets", limit=1)
        assert [each["role"] for each in budgets] == [None, "llm.writer"]
        assert budgets[0]["limits"][0] == {
            "limit": "max_tokens_total",
            "measure": "tokens",
            "window": "total",
            "most": 2000,
            "spent": 650,
            "reserved": 200,
            "left": 1150,
            "resets_at": None,
        }
        assert len(await pages(client, "budgets", "budgets", runs="true")) == 3


async def test_times_are_moments_or_so_long_ago(ledger: LedgerView):
    async with predictor(ledger) as client:
        for since, events in (("2026-01-01T02:00:00+02:00", 6), ("2026-01-02", 0), ("1h", 0)):
            for query in (f"since={since}", str(httpx.QueryParams({"since": since}))):
                assert (await client.get(f"/usage?{query}")).json()["total"]["events"] == events, query


WRONG = (
    "usage?by=colour",
    "usage?limit=0",
    "usage?limit=1001",
    "usage?limit=many",
    "usage?since=yesterday",
    "usage?until=",
    "usage?after=e30",
    "usage?after=%00",
    "usage?after=WyJhIiwxLDFd&by=day",
    "usage?after=W05hTiwxXQ",
    "usage?scope_id=tenant-2",
    "usage?role=a&role=b",
    "usage?role=%20a",
    "attempts?status=noted",
    "attempts?after=W05hTiwiYSJd",
    "attempts?status=lost",
    "attempts?by=role",
    "budgets?runs=perhaps",
    "budgets?since=1h",
)


async def test_a_wrong_parameter_is_the_clients_mistake_and_named(ledger: LedgerView):
    async with predictor(ledger) as client:
        for wrong in WRONG:
            answer = await client.get(f"/{wrong}")
            assert (answer.status_code, answer.json()["code"]) == (400, "bad_input"), (wrong, answer.text)
            assert ".." not in answer.json()["error"]
            assert list(answer.json()) == ["error", "code", "node", "trace_id", "retry_after"]
            assert "Value error" not in answer.text


async def test_nobody_looks_without_a_key_and_a_closed_store_is_not_the_clients_mistake(
    ledger: LedgerView, database: Database
):
    async with predictor(ledger, key=None) as client:
        assert [(await client.get(f"/{route}")).status_code for route in ROUTES] == [401] * 3
    await database.close()
    async with predictor(ledger) as client:
        for route in ROUTES:
            answer = await client.get(f"/{route}")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_the_routes_are_described_and_a_flow_without_models_has_none(ledger: LedgerView):
    async with predictor(ledger) as client:
        described = (await client.get(client.base_url.copy_with(path="/openapi.json"))).json()["paths"]
        for name in ROUTES:
            route = described[f"/v1/ledger/{name}"]["get"]
            schemas = {each["name"]: each["schema"] for each in route["parameters"]}
            assert {"limit", "after", "principal", "role", "run"} <= set(schemas)
            assert (schemas["limit"]["maximum"], set(route["responses"])) == (1000, {"200", "4XX"})
    async with predictor(None) as client:
        assert [(await client.get(f"/{route}")).status_code for route in ROUTES] == [404] * 3
