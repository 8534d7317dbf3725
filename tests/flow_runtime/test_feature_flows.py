"""The two flows on the feature store do what the comments on top of their files say."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from agentflow import load, loads, plan
from agentflow.ir import Flow
from agentflow.levels import levels
from flow_runtime import LocalFlow, LocalSettings
from flow_runtime.dispatch import LocalDispatch
from flow_runtime.errors import ModelFailed
from flow_runtime.feature_store.names import Named
from flow_runtime.feature_store.protocol import Read, Row, Source
from flow_runtime.node import body_of
from flow_runtime.operations import OperationResources, OperationSettings
from flow_runtime.parts import NodeParts
from flow_runtime.runner import FlowRunner
from flow_runtime.state import StateBackends
from runtime_core.clock import SystemClock
from runtime_core.ids import RandomIds
from runtime_core.report import RunReport
from support.certificates import server_context
from support.feature_stores import local_store
from support.flows import ScriptedModels
from support.http_stub import Stub, answer, http_stub, saying

ROOT = Path(__file__).parents[2]
FLOWS = ROOT / "tests" / "agentflow" / "flows"
MINI, LARGE = "openai/gpt-4o-mini", "openai/gpt-4o"


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """The sample data, to write to."""
    return shutil.copytree(ROOT / "configs" / "features", tmp_path / "features")


def skipped(report: RunReport) -> set[str]:
    return {name for name, node in report.nodes.items() if node.status == "skipped"}


# -- returns_desk ------------------------------------------------------------------------------------------------------

REQUEST = {"user_id": "u1", "session_id": "s1", "query": "Can I return worn shoes?"}
PHRASE = {"phrase": "shoes worn box"}


def test_the_levels_of_the_returns_desk_are_those_of_its_comment():
    assert levels(plan(load(FLOWS / "returns_desk.yaml").flow).graph) == (
        ("load_shopper", "recall"),
        ("find_rules",),
        ("draft",),
        ("rate", "remember", "apologise"),
        ("open_ticket", "answer"),
    )


@pytest.mark.parametrize(
    ("user", "confidence", "status", "left_out"),
    [("u1", 0.9, "answered", "open_ticket"), ("u1", 0.1, "ticket", "answer"), ("u2", 0.9, "ticket", "answer")],
)
async def test_exactly_one_of_ticket_and_answer_runs_and_the_chat_is_remembered(
    features: Path, user: str, confidence: float, status: str, left_out: str
):
    models = ScriptedModels({MINI: [PHRASE], LARGE: [{"text": "Yes.", "confidence": confidence}]})
    flow = load(FLOWS / "returns_desk.yaml").flow
    settings = LocalSettings(feature_store=f"local:{features}", embedder="llm.embed")
    async with LocalFlow(flow, models=models, settings=settings) as runner:
        report = await runner.run({**REQUEST, "user_id": user})
        assert report.error is None
        assert report.output["status"] == status
        assert skipped(report) == {"apologise", left_out}
        assert report.nodes["remember"].status == "succeeded"
        await runner.run({**REQUEST, "query": "And boots?"})
    phrase, embedded, draft, *_, second = models.calls
    assert (phrase[0], embedded[0], draft[0], second[0]) == (MINI, "llm.embed", LARGE, LARGE)
    assert embedded[1][0]["content"] == "shoes worn box"
    tier = "gold" if user == "u1" else "basic"
    assert f"Tier: {tier}; refunds: {0.1 if user == 'u1' else 0.9}" in draft[1][-1]["content"]
    rules = [line for line in draft[1][-1]["content"].splitlines() if line.startswith("- ")]
    assert len(rules) == 4 and rules[0].startswith("- Shoes"), "the likest rules of the tier, the best first"
    assert "user: Can I return worn shoes?\n" in second[1][-1]["content"]


async def test_the_shopper_is_read_as_of_the_time_of_the_event(features: Path):
    models = ScriptedModels({MINI: [PHRASE], LARGE: [{"text": "Yes.", "confidence": 0.9}]})
    flow = load(FLOWS / "returns_desk.yaml").flow
    settings = LocalSettings(feature_store=f"local:{features}", embedder="llm.embed")
    async with LocalFlow(flow, models=models, settings=settings) as runner:
        await runner.run({**REQUEST, "event_time": "2025-05-01T00:00:00Z"})
        early = await runner.run({**REQUEST, "event_time": "2025-01-01T00:00:00Z"})
    assert "Customer tier basic asks" in models.calls[0][1][-1]["content"], "gold only since September"
    assert early.error is not None and "no row for user_id 'u1' as of 2025-01-01" in early.error.message


async def test_when_drafting_fails_for_good_the_desk_apologises_and_the_rest_is_skipped(features: Path):
    models = ScriptedModels({MINI: [PHRASE], LARGE: [ModelFailed("the model is down")]})
    text = (FLOWS / "returns_desk.yaml").read_text().replace("retry_backoff_ms: 500", "retry_backoff_ms: 0")
    settings = LocalSettings(feature_store=f"local:{features}", embedder="llm.embed")
    async with LocalFlow(loads(text).flow, models=models, settings=settings) as runner:
        report = await runner.run(REQUEST)
    assert report.output == {"status": "error", "message": "Please try again later.", "detail": "the model is down"}
    assert skipped(report) == {"rate", "remember", "open_ticket", "answer"}
    assert report.nodes["draft"].attempts == 2
    assert [role for role, _, _ in models.calls].count(LARGE) == 2


# -- interest_tagger ---------------------------------------------------------------------------------------------------

TAGS = {"interests": ["running"], "style": "premium"}
AT = "2026-03-01T12:00:00+00:00"
PROFILE = {"user_id": "u1", "at": AT, **TAGS}
SHOPPER = {"user_id": "u1", "event_time": AT}


@dataclass(frozen=True, slots=True)
class Tagger:
    runner: FlowRunner
    models: ScriptedModels
    hook: Stub


@asynccontextmanager
async def tagger(folder: Path, features: Path, *changes: tuple[str, str]) -> AsyncIterator[Tagger]:
    """The flow with a webhook that is there: the same name, at a port of this machine, with a certificate."""
    tls, authority = server_context(folder, "hooks.example.test")

    async def here(host: str, port: int) -> tuple[str, ...]:
        assert host == "hooks.example.test"
        return ("127.0.0.1",)

    async with AsyncExitStack() as stack:
        hook = await stack.enter_async_context(
            http_stub(saying(answer(b"{}", Content_Type="application/json")), tls=tls)
        )
        text = (FLOWS / "interest_tagger.yaml").read_text()
        for old, new in (("hooks.example.test/", f"hooks.example.test:{hook.port}/"), *changes):
            assert old in text
            text = text.replace(old, new)
        models = ScriptedModels({MINI: [TAGS]})
        parts = NodeParts(
            clock=SystemClock(),
            models=models,
            state=StateBackends({}),
            operation_settings=OperationSettings(
                allow_hosts=(f"hooks.example.test:{hook.port}",),
                http_ca_file=authority,
                feature_store=f"local:{features}",
            ),
            operation_resources=OperationResources(resolve=here),
        )
        stack.push_async_callback(parts.operation_resources.aclose)
        yield Tagger(await _runner(stack, loads(text).flow, parts), models, hook)


async def _runner(stack: AsyncExitStack, flow: Flow, parts: NodeParts) -> FlowRunner:
    planned = plan(flow)
    bodies = {node: await stack.enter_async_context(body_of(planned, node, parts)) for node in planned.graph.nodes}
    return FlowRunner(planned, LocalDispatch(bodies), clock=parts.clock, ids=RandomIds(), state=parts.state)


async def stored(features: Path) -> Row:
    async with local_store(features) as store:
        return await store.read(Source(Named("interest_profiles", 1)), Read({"user_id": "u1"}), None)


async def test_the_answer_is_the_profile_which_is_stored_and_announced(tmp_path: Path, features: Path):
    async with tagger(tmp_path, features) as tagging:
        report = await tagging.runner.run({**SHOPPER, "auth": {"token": "secret-1"}})
        assert report.error is None and report.output == PROFILE
        assert {node.status for node in report.nodes.values()} == {"succeeded"}
        prompt = tagging.models.calls[0][1][-1]["content"]
        assert prompt == "Age 34; bought: running shoes, rain jacket, ", "only what cost 20 or more"
        [announced] = tagging.hook.requests
        assert announced.line == "POST /profiles/u1 HTTP/1.1"
        assert announced.headers["authorization"] == "Bearer secret-1"
        assert json.loads(announced.body) == PROFILE
        assert await stored(features) == PROFILE


async def test_a_run_that_is_repeated_stores_one_profile_and_later_ones_take_its_place(tmp_path: Path, features: Path):
    async with tagger(tmp_path, features) as tagging:
        for _ in range(2):
            await tagging.runner.run({**SHOPPER, "auth": {"token": "t"}})
        await tagging.runner.run({**SHOPPER, "event_time": "2026-02-01", "auth": {"token": "t"}})
        assert await stored(features) == PROFILE, "the latest event counts, not the latest write"
    async with local_store(features) as store:
        as_of = datetime(2026, 2, 2, tzinfo=UTC)
        earlier = await store.read(Source(Named("interest_profiles", 1)), Read({"user_id": "u1"}, as_of), ("at",))
        assert earlier == {"at": "2026-02-01T00:00:00+00:00"}


async def test_without_auth_the_webhook_cannot_be_told_and_the_flow_fails(tmp_path: Path, features: Path):
    async with tagger(tmp_path, features) as tagging:
        report = await tagging.runner.run(SHOPPER)
        assert report.error is not None
        assert (report.error.code, report.error.node) == ("node_failed", "announce")
        assert "${context.auth.token}" in report.error.message
        assert tagging.hook.requests == []
        assert await stored(features) == PROFILE


async def test_a_write_that_gives_false_is_not_announced(tmp_path: Path, features: Path):
    refused = (
        "op: hopsworks.write_features\n"
        '        args: {feature_group: interest_profiles_v1, data: "${profile}", event_time: "${context.event_time}"}',
        "op: io.format_response\n        args: {template: false}",
    )
    async with tagger(tmp_path, features, refused) as tagging:
        report = await tagging.runner.run({**SHOPPER, "auth": {"token": "t"}})
        assert report.error is None and report.output == PROFILE
        assert skipped(report) == {"announce"}
        assert tagging.hook.requests == []


def test_the_example_configs_carry_these_flows_with_their_own_comments_tests_and_samples():
    for name in ("returns_desk", "interest_tagger"):
        ours, shown = (load(path / f"{name}.yaml").flow for path in (ROOT / "configs" / "flows", FLOWS))
        patient = {"recall": 3000, "find_rules": 5000}
        nodes = {
            node: spec.model_dump() | ({"runtime": {"timeout_ms": patient[node]}} if node in patient else {})
            for node, spec in shown.nodes.items()
        }
        found = {
            node: spec.model_dump() | ({"runtime": {"timeout_ms": spec.runtime.timeout_ms}} if node in patient else {})
            for node, spec in ours.nodes.items()
        }
        assert (found, ours.edges, ours.context) == (nodes, shown.edges, shown.context)
        assert (ours.metadata, ours.deployment) == (shown.metadata, shown.deployment)


async def test_the_sample_data_is_what_its_script_makes(features: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "configs" / "features"))
    make_sample_data = importlib.import_module("make_sample_data")

    def rows(folder: Path) -> dict[str, list[Any]]:
        reader = duckdb.connect()
        return {
            part.parent.name: reader.sql("SELECT * FROM read_parquet($f)", params={"f": str(part)}).fetchall()
            for part in folder.glob("*/*.parquet")
        }

    shipped = rows(features)
    assert {group: len(found) for group, found in shipped.items()} == {
        group: len(found) for group, found in make_sample_data.sample_rows().items()
    }
    (features / "shoppers_v2" / "more.parquet").write_text("another part, which goes")
    await make_sample_data.make(features)
    assert rows(features) == shipped
