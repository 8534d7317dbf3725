"""A predictor whose callers look at ledgers over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from agent_runtime import Budget
from agent_runtime.ledger.view import LedgerView
from agentflow.signature import Signature
from agentflow_serve.errors import RequestRefused
from agentflow_serve.kserve_app import build_predictor_app
from agentflow_serve.limits import EdgeLimits
from agentflow_serve.request_headers import RawHeaders, values
from runtime_core.clock import ManualClock
from runtime_core.context import Identity
from runtime_core.stores import Database
from support.predictor_server import Runner, serving
from support.spending import Spending, some_of_everything

ROUTES = ("usage", "attempts", "budgets")


class ByName:
    """A caller's key is the name of its scope."""

    async def identify(self, headers: RawHeaders) -> Identity:
        for scope_id in values(headers, b"x-api-key"):
            return Identity(scope_id=scope_id, principal_id="ann")
        raise RequestRefused("no key", status=401, code="unauthorized")


@asynccontextmanager
async def predictor(ledger: LedgerView | None, *, key: str | None = "default") -> AsyncIterator[httpx.AsyncClient]:
    app = build_predictor_app(
        name="m", signature=Signature(), runner=Runner(), limits=EdgeLimits(), ledger=ledger, auth=ByName()
    )
    async with (
        serving(app) as port,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}/v1/ledger",
            timeout=20,
            headers={} if key is None else {"x-api-key": key},
        ) as client,
    ):
        yield client


async def two_tenants(database: Database) -> LedgerView:
    """`default` and `tenant-2` have spent under the same ids, the second twice as much, and have budgets."""
    clock = ManualClock()
    for scope_id, times in (("tenant-2", 2), ("default", 1)):
        spending = Spending(database, clock, scope_id=scope_id)
        for _ in range(times):
            await some_of_everything(spending)
        await spending.ledger.set_budget(Budget(scope_id=scope_id, max_tokens_total=2000 * times))
        await spending.ledger.set_budget(Budget(scope_id=scope_id, role="llm.writer", max_requests_total=10))
        await spending.ledger.set_budget(Budget(scope_id=scope_id, run_id="run-1", max_requests_total=10))
    return LedgerView(database, clock=clock)
