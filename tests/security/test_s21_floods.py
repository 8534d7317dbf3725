"""RELIABILITY S21: a tenant that floods waits for itself, is told so, and leaves room for the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from agentflow_serve.call import CallMeta
from agentflow_serve.kserve_app import build_predictor_app
from agentflow_serve.limits import EdgeLimits
from agentflow_serve.request_headers import RawHeaders, values
from runtime_core.context import Identity
from support.predictor_server import SHOUT, Runner, serving, shout
from support.waiting import until

PREDICT = "/v1/models/m:predict"
BODY = {"instances": [{"text": "hi"}]}


class ByName:
    """Believes who says its name, which is what a key proves."""

    async def identify(self, headers: RawHeaders) -> Identity:
        return Identity(scope_id=values(headers, b"x-api-key")[0])


class Held:
    """A flow that answers when it may; `running` are the scopes that are in it, `most` is how many ever were."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.order: list[str] = []
        self.most = 0
        self.may = asyncio.Event()

    async def __call__(self, request: dict[str, Any], call: CallMeta) -> Any:
        self.order.append(call.identity.scope_id)
        self.running.append(call.identity.scope_id)
        self.most = max(self.most, len(self.running))
        try:
            await self.may.wait()
            return await shout(request, call)
        finally:
            self.running.remove(call.identity.scope_id)


@asynccontextmanager
async def service(held: Held, **limits: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = build_predictor_app(
        name="m", signature=SHOUT, runner=Runner(held), limits=EdgeLimits(**limits), auth=ByName()
    )
    async with serving(app) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        yield client


def asks(client: httpx.AsyncClient, scope: str, **headers: str) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(client.post(PREDICT, json=BODY, headers={"x-api-key": scope, **headers}))


async def test_a_flood_is_bounded_and_told_so_while_another_tenant_is_served():
    held = Held()
    async with service(held, per_scope_concurrency=2, per_scope_queue=3) as client:
        flood = [asks(client, "flood") for _ in range(12)]
        await until(lambda: sum(task.done() for task in flood) == 7)
        refused = [task.result() for task in flood if task.done()]
        assert {(each.status_code, each.json()["code"], each.headers["retry-after"]) for each in refused} == {
            (429, "rate_limited", "1")
        }
        quiet = asks(client, "quiet")
        await until(lambda: "quiet" in held.running)
        assert held.running.count("flood") == 2
        ready = await client.get("/v2/health/ready", headers={"x-api-key": "flood"})
        assert ready.status_code == 200, "a probe waits for nobody's turn"
        held.may.set()
        answers = await asyncio.gather(quiet, *flood)
        assert [each.status_code for each in answers].count(200) == 6 and held.most == 3


async def test_bodies_that_never_end_fill_only_their_own_tenants_places():
    held = Held()
    held.may.set()
    async with service(held, per_scope_concurrency=1, per_scope_queue=2) as client:

        async def slow() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.Event().wait()

        hold = [
            asyncio.create_task(client.post(PREDICT, content=slow(), headers={"x-api-key": "slow"})) for _ in range(3)
        ]
        while (await asks(client, "slow")).status_code != 429:
            await asyncio.sleep(0.02)
        assert (await asks(client, "quiet")).status_code == 200
        for task in hold:
            task.cancel()
        await asyncio.gather(*hold, return_exceptions=True)
        while (await asks(client, "slow")).status_code != 200:
            await asyncio.sleep(0.02)


async def test_the_last_places_of_a_replica_go_round():
    held = Held()
    async with service(held, per_scope_concurrency=1, max_concurrent_requests=1) as client:
        flood = [asks(client, "flood") for _ in range(6)]
        await until(lambda: held.running == ["flood"])
        others: list[asyncio.Task[httpx.Response]] = []
        for scope in ("a", "b"):
            others.append(asks(client, scope))
            await asyncio.sleep(0.05)
        held.may.set()
        answers = await asyncio.gather(*flood, *others)
        assert {each.status_code for each in answers} == {200} and held.most == 1
        assert max(held.order.index("a"), held.order.index("b")) <= 4, "the flood went first"


async def test_a_client_that_leaves_or_is_out_of_time_leaves_the_queue():
    held = Held()
    async with service(held, per_scope_concurrency=1, per_scope_queue=1) as client:
        first = asks(client, "a")
        await until(lambda: held.running == ["a"])
        assert (await asks(client, "a", **{"x-deadline-seconds": "0.2"})).status_code == 408
        gone = asks(client, "a")
        await asyncio.wait({gone}, timeout=0.1)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        last = await _takes_the_free_place(client)
        held.may.set()
        assert [(await each).status_code for each in (first, last)] == [200, 200]
        assert held.order == ["a", "a"], "one that had left ran"


async def _takes_the_free_place(client: httpx.AsyncClient) -> asyncio.Task[httpx.Response]:
    """The server learns of a client that has left a moment later."""
    while True:
        task = asks(client, "a")
        done, _ = await asyncio.wait({task}, timeout=0.3)
        if not done:
            return task
        assert task.result().status_code == 429
