"""A tenant asks what another one spends: it sees its own, whatever the request says and whatever the ids are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_runtime.ledger.view import LedgerView
from runtime_core.stores import open_database
from support.ledger_door import ROUTES, predictor, two_tenants


@pytest.fixture
async def ledger() -> AsyncIterator[LedgerView]:
    async with open_database("memory:") as database:
        yield await two_tenants(database)


async def test_two_tenants_never_see_each_other_whatever_a_request_says(ledger: LedgerView):
    seen: dict[str, Any] = {}
    for scope_id in ("default", "tenant-2", "nobody"):
        async with predictor(ledger, key=scope_id) as client:
            client.headers.update(dict.fromkeys(("x-scope-id", "x-tenant-id", "forwarded"), "tenant-2"))
            seen[scope_id] = [(await client.get(f"/{route}")).json() for route in ROUTES]
            assert all(each["scope_id"] == scope_id for each in seen[scope_id])
    usage = {scope_id: documents[0]["total"]["events"] for scope_id, documents in seen.items()}
    assert usage == {"default": 6, "tenant-2": 12, "nobody": 0}
    assert [len(seen[scope_id][1]["attempts"]) for scope_id in usage] == [6, 12, 0]
    assert [seen[scope_id][2]["budgets"][:1] != [] for scope_id in usage] == [True, True, False]
    assert seen["default"][2]["budgets"][0]["limits"][0]["most"] == 2000


async def test_a_cursor_leads_nobody_into_another_scope(ledger: LedgerView):
    async with predictor(ledger, key="tenant-2") as client:
        cursors = {route: (await client.get(f"/{route}?limit=1")).json()["next"] for route in ROUTES}
    async with predictor(ledger, key="nobody") as client:
        for route, cursor in cursors.items():
            assert cursor is not None
            document = (await client.get(f"/{route}", params={"after": cursor})).json()
            assert (document["next"], document["groups" if route == "usage" else route]) == (None, [])
