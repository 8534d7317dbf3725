"""/v1/actions: what a flow asks the caller's own scope, and one answer to each question, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from agent_runtime import ActionManager, ActionRecord, ActionSpec, InMemoryActionStore
from agentflow.signature import Signature
from agentflow_serve.auth.authenticator import Authenticator
from agentflow_serve.call import CallMeta
from agentflow_serve.kserve_app import build_predictor_app
from agentflow_serve.limits import EdgeLimits
from agentflow_serve.request_headers import RawHeaders
from runtime_core.clock import ManualClock
from runtime_core.context import Identity
from support.predictor_server import Answer, Runner, serving, shout

CONFIRM = ActionSpec(type="confirm", payload={"message": "Proceed?"}, timeout_seconds=10)
YES = {"resolution": {"approved": True}}


@asynccontextmanager
async def predictor(
    actions: ActionManager | None,
    *,
    answer: Answer = shout,
    limits: EdgeLimits | None = None,
    auth: Authenticator | None = None,
) -> AsyncIterator[httpx.AsyncClient]:
    app = build_predictor_app(
        name="m",
        signature=Signature(),
        runner=Runner(answer),
        limits=limits or EdgeLimits(),
        actions=actions,
        auth=auth,
    )
    async with serving(app) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        yield client


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def actions(clock: ManualClock) -> AsyncIterator[ActionManager]:
    async with InMemoryActionStore() as store:
        yield ActionManager(store, clock=clock)


def path_of(action: ActionRecord) -> str:
    return f"/v1/actions/{action.action_id}"


async def test_what_is_asked_is_listed_shown_and_answered(actions: ActionManager, clock: ManualClock):
    first = await actions.require_action(CONFIRM)
    clock.advance(1)
    second = await actions.require_action(CONFIRM.model_copy(update={"action_id": "a/b c"}))
    async with predictor(actions) as client:
        listed: dict[str, Any] = (await client.get("/v1/actions?status=pending")).json()
        assert [each["action_id"] for each in listed["actions"]] == ["a/b c", first.action_id]
        shown = (await client.get("/v1/actions/a%2Fb%20c")).json()
        assert (shown["status"], shown["payload"]) == ("pending", {"message": "Proceed?"})
        answer = await client.post("/v1/actions/a%2Fb%20c/resolve", json=YES)
        assert (answer.status_code, answer.json()["resolution"]) == (200, {"approved": True})
        assert (answer.json()["status"], answer.json()["resolved_by"]) == ("resolved", "anonymous")
        left = (await client.get("/v1/actions?status=pending")).json()["actions"]
        assert [each["action_id"] for each in left] == [first.action_id]
        everything = (await client.get("/v1/actions")).text
    assert second.resume_token is not None and second.resume_token not in everything
    assert "token" not in everything


async def test_a_list_is_read_page_by_page(actions: ActionManager, clock: ManualClock):
    for number in range(5):
        await actions.require_action(CONFIRM.model_copy(update={"action_id": f"a{number}"}))
        clock.advance(number % 2)
    seen, query = list[str](), {"status": "pending", "limit": "2"}
    async with predictor(actions) as client:
        while True:
            page = (await client.get("/v1/actions", params=query)).json()
            seen += [each["action_id"] for each in page["actions"]]
            if page["next"] is None:
                break
            query["after"] = page["next"]
    assert seen == ["a4", "a3", "a2", "a1", "a0"]


@pytest.mark.parametrize(
    "query",
    [
        "status=open",
        "limit=0",
        "limit=1001",
        "limit=x",
        "after=e30",
        "after=WzEsMl0",
        "after=WzFlKzE4LCJhIl0",
        "limit=1&limit=2",
        "x=1",
    ],
)
async def test_a_wrong_parameter_is_the_clients_mistake_and_named(actions: ActionManager, query: str):
    async with predictor(actions) as client:
        answer = await client.get(f"/v1/actions?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_input")
    assert list(answer.json()) == ["error", "code", "node", "trace_id", "retry_after"]
    assert query.partition("=")[0] in answer.json()["error"] or "once" in answer.json()["error"]


async def test_of_ten_answers_at_once_one_counts(actions: ActionManager):
    action = await actions.require_action(CONFIRM)
    async with predictor(actions) as client:
        answers = await asyncio.gather(
            *(client.post(f"{path_of(action)}/resolve", json={"resolution": {"n": n}}) for n in range(10))
        )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9
    [winner] = [n for n, answer in enumerate(answers) if answer.status_code == 200]
    assert (await actions.get(action.action_id)).resolution == {"n": winner}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"action_conflict"}


async def test_an_answer_that_comes_too_late_is_told_so(actions: ActionManager, clock: ManualClock):
    action = await actions.require_action(CONFIRM)
    clock.advance(10)
    async with predictor(actions) as client:
        answer = await client.post(f"{path_of(action)}/resolve", json=YES)
    assert (answer.status_code, answer.json()["code"]) == (410, "action_expired")


class ByName:
    """Callers say who they are, and are believed."""

    async def identify(self, headers: RawHeaders) -> Identity:
        return Identity(principal_id=dict(headers)[b"x-name"].decode())


@pytest.mark.parametrize("kind", ["approve", "raise_budget"])
async def test_nobody_gives_himself_leave(actions: ActionManager, kind: str):
    asked = await actions.require_action(ActionSpec(type=kind, payload={"principal_id": "ada"}, timeout_seconds=10))
    async with predictor(actions, auth=ByName()) as client:
        path = f"{path_of(asked)}/resolve"
        own = await client.post(path, json=YES, headers={"x-name": "ada"})
        assert (own.status_code, own.json()["code"]) == (403, "forbidden")
        assert (await actions.get(asked.action_id)).is_settled is False
        other = await client.post(path, json=YES, headers={"x-name": "ben"})
        assert (other.status_code, other.json()["resolved_by"]) == (200, "ben")


async def test_a_token_must_be_of_the_action_that_is_answered(actions: ActionManager):
    action, other = [await actions.require_action(CONFIRM) for _ in range(2)]
    async with predictor(actions) as client:
        for wrong in (other.resume_token, "x" * 43, ""):
            answer = await client.post(f"{path_of(action)}/resolve", json={**YES, "resume_token": wrong})
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        right = await client.post(f"{path_of(action)}/resolve", json={**YES, "resume_token": action.resume_token})
        assert right.status_code == 200
        again = await client.post(f"{path_of(action)}/resolve", json={**YES, "resume_token": action.resume_token})
        assert again.status_code == 409
    assert (await actions.get(other.action_id)).is_settled is False


@pytest.mark.parametrize("header", ["x-scope-id", "x-tenant-id", "forwarded"])
async def test_another_scopes_question_is_none_whatever_a_request_says(actions: ActionManager, header: str):
    theirs = await actions.for_scope("tenant-2").require_action(CONFIRM)
    named = {header: "tenant-2"}
    async with predictor(actions) as client:
        assert (await client.get("/v1/actions", headers=named)).json() == {"actions": [], "next": None}
        assert (await client.get("/v1/actions?scope_id=tenant-2", headers=named)).status_code == 400
        assert (await client.get(path_of(theirs), headers=named)).status_code == 404
        for body in (YES, {**YES, "resume_token": theirs.resume_token}):
            for query, status in (("", 404), ("?scope_id=tenant-2", 400)):
                answer = await client.post(f"{path_of(theirs)}/resolve{query}", json=body, headers=named)
                assert answer.status_code == status
    assert (await actions.for_scope("tenant-2").get(theirs.action_id)).is_settled is False


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"{}", b'{"resolution": 1}', b'{"resolution": {"n": NaN}}', b'{"resolution": {}, "x": 1}'],
)
async def test_a_wrong_body_is_the_clients_mistake(actions: ActionManager, body: bytes):
    action = await actions.require_action(CONFIRM)
    async with predictor(actions) as client:
        answer = await client.post(f"{path_of(action)}/resolve", content=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_input")
        assert (await client.get("/v1/actions/%20a")).status_code == 400
    assert (await actions.get(action.action_id)).is_settled is False


async def test_a_store_that_is_gone_is_a_503():
    store = InMemoryActionStore()
    actions = ActionManager(store)
    await store.close()
    async with predictor(actions) as client:
        for answer in (await client.get("/v1/actions"), await client.post("/v1/actions/a/resolve", json=YES)):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(
    "limits", [EdgeLimits(max_concurrent_requests=1), EdgeLimits(per_scope_concurrency=1, per_scope_queue=0)]
)
async def test_an_answer_does_not_wait_behind_the_run_that_waits_for_it(actions: ActionManager, limits: EdgeLimits):
    asked = asyncio.Event()

    async def ask(request: dict[str, Any], call: CallMeta) -> Any:
        action = await actions.require_action(CONFIRM.model_copy(update={"action_id": "a"}))
        asked.set()
        return (await actions.wait_for_resolution(action.action_id)).resolution

    async with predictor(actions, answer=ask, limits=limits) as client:
        run = asyncio.create_task(client.post("/v1/models/m:predict", json={"instances": [{}]}))
        await asked.wait()
        assert len((await client.get("/v1/actions")).json()["actions"]) == 1
        assert (await client.post("/v1/actions/a/resolve", json=YES)).status_code == 200
        assert (await run).json() == {"predictions": [{"approved": True}]}


async def test_a_flow_that_asks_nobody_has_no_such_routes():
    async with predictor(None) as client:
        assert (await client.get("/v1/actions")).status_code == 404
        assert (await client.post("/v1/actions/a/resolve", json=YES)).status_code == 404
