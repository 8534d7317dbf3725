"""features.* and hopsworks.* as nodes of a flow on a local store: keys, versions, times, batches, failures, text."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentflow.ir import ModelRef, OperationSpec
from flow_runtime import LocalFlow, LocalSettings
from flow_runtime.errors import FeatureStoreInvalid, OperationFailed, RowNotFound
from flow_runtime.models import ModelAnswer
from flow_runtime.operations import OperationCall, OperationResources, OperationSettings, bind_operation
from support.feature_stores import CountingEngine, add_group, local_store
from support.flows import run_flow, small_flow

RULES = {
    "keys": ["rule"],
    "columns": {"rule": "string", "vector": "embedding"},
    "embedding": {"column": "vector", "dimensions": 2},
}


class Compass:
    """Embeds by the direction that a text names."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []

    async def chat(
        self,
        model: str | ModelRef,
        messages: Sequence[Mapping[str, Any]],
        params: Mapping[str, Any],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> ModelAnswer:
        raise NotImplementedError

    async def embed(self, role: str, texts: Sequence[str]) -> list[list[float]]:
        self.asked.append((role, list(texts)))
        return [[1.0, 0.0] if "east" in text else [0.0, 1.0] for text in texts]


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    group, rules = add_group(tmp_path), add_group(tmp_path, "rules_v1", RULES)
    async with local_store(tmp_path) as store:
        for day in (1, 2):
            rows = [{"user_id": f"u{number}", "orders": day * 100 + number} for number in range(50)]
            await store.write(group, rows, datetime(2026, 1, day, tzinfo=UTC))
        await store.write(rules, [{"rule": "east", "vector": [1, 0]}, {"rule": "north", "vector": [0, 1]}], None)
    return tmp_path


class Desk:
    """Runs one operation on the store of a folder."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.models = Compass()
        self._settings = OperationSettings(feature_store=f"local:{folder}", **settings)

    async def run(self, op: str, args: Mapping[str, Any], **inputs: Any) -> Any:
        resources = OperationResources()
        try:
            spec = OperationSpec(op=op, args=dict(args))
            names = {*inputs, "context"}
            bound = bind_operation(spec, names=names, settings=self._settings, resources=resources, models=self.models)
            return await bound.run({**inputs, "context": {"user_id": "u7"}}, OperationCall("node", {}))
        finally:
            await resources.aclose()


@pytest.mark.parametrize("op", ["features.read", "hopsworks.read_features"])
@pytest.mark.parametrize(
    ("args", "orders"),
    [
        ({"feature_group": "shoppers_v2", "key": "${user_id}"}, 203),
        ({"feature_group": "shoppers", "version": 2, "key": "${context.user_id}"}, 207),
        ({"feature_group": "shoppers_v2", "key": "${shopper.id}", "key_column": "user_id"}, 204),
        ({"feature_group": "shoppers_v2", "key": {"user_id": "u${shopper.number}"}}, 205),
        ({"feature_group": "shoppers_v2", "key": "${user_id}", "as_of": "2026-01-01T12:00:00+01:00"}, 103),
        ({"feature_group": "shoppers_v2", "key": "${user_id}", "as_of": "${shopper.since}"}, 103),
    ],
)
async def test_keys_versions_and_times_mean_what_the_language_says(
    folder: Path, op: str, args: dict[str, Any], orders: int
):
    shopper = {"id": "u4", "number": 5, "since": "2026-01-01"}
    args = {**args, "features": ["orders"]}
    assert await Desk(folder).run(op, args, user_id="u3", shopper=shopper) == {"orders": orders}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"feature_group": "shoppers_v2", "key": "${user_id}", "as_of": "soon"}, "as_of is wrong: .* not a time"),
        ({"feature_group": "../shoppers", "key": "${user_id}"}, "the feature_group is no name"),
        ({"feature_group": "lost_v1", "key": "${user_id}"}, "the feature store has no group 'lost_v1'"),
        ({"feature_view": "lost_v1", "key": "${user_id}"}, "the feature store has no view 'lost_v1'"),
        ({"feature_group": "shoppers_v2", "key": "${user_id}", "features": ["tire"]}, "has no column 'tire'"),
        ({"feature_group": "shoppers_v2", "key": "${user_id}", "key_column": "tier"}, "is read by 'user_id'"),
    ],
)
async def test_what_cannot_be_read_is_a_failure_that_says_why(folder: Path, args: dict[str, Any], says: str):
    with pytest.raises(OperationFailed, match=says) as raised:
        await Desk(folder).run("features.read", args, user_id="u1")
    assert raised.value.op == "features.read"
    assert not isinstance(raised.value, RowNotFound)


async def test_a_write_takes_one_row_or_many_and_gives_true(folder: Path):
    desk = Desk(folder)
    args = {"feature_group": "shoppers_v2", "data": "${data}", "event_time": "2026-02-01"}
    assert await desk.run("features.write", args, data={"user_id": "new", "orders": 1}) is True
    assert await desk.run("hopsworks.write_features", args, data=[{"user_id": "other", "orders": 2}]) is True
    assert await desk.run("features.write", args, data=[]) is True
    read = {"feature_group": "shoppers_v2", "key": "${user_id}", "features": ["orders", "at"]}
    at = "2026-02-01T00:00:00+00:00"
    assert await desk.run("features.read", read, user_id="new") == {"orders": 1, "at": at}
    assert await desk.run("features.read", read, user_id="other") == {"orders": 2, "at": at}
    with pytest.raises(OperationFailed, match="data must be an object or an array of objects, and it is a string"):
        await desk.run("features.write", args, data="u1")


async def test_text_is_embedded_by_the_operations_role_or_the_servers_and_vectors_go_as_they_are(folder: Path):
    search = {"index": "rules_v1", "query": "${query}", "limit": 1}
    desk = Desk(folder, embedder="llm.servers")
    assert [hit["rule"] for hit in await desk.run("features.vector_search", search, query="east wind")] == ["east"]
    found = await desk.run("hopsworks.vector_search", {**search, "embedder": "llm.own"}, query="cold")
    assert found == [{"rule": "north", "score": 1.0}]
    assert (await desk.run("features.vector_search", search, query=[0, 1]))[0]["rule"] == "north"
    assert desk.models.asked == [("llm.servers", ["east wind"]), ("llm.own", ["cold"])]
    for query, limit, says in (
        ("x", 1, "nobody says who embeds it"),
        ([1.0], 1, "the query has 1 dimensions"),
        (["x"], 1, "the query is wrong"),
        ([0, 1], 1001, "limit must be a whole number from 1 to 1000"),
    ):
        with pytest.raises(OperationFailed, match=says):
            await Desk(folder).run("features.vector_search", {**search, "limit": limit}, query=query)


async def test_a_local_store_keeps_no_models(folder: Path):
    with pytest.raises(OperationFailed, match="keeps no models"):
        await Desk(folder).run("hopsworks.get_model", {"name": "fraud"})


EACH = """
look:
  inputs: [{name: x, type: array}]
  outputs: [{name: row, type: array}]
  for_each: {input: x, max_parallel: 50}
  transform:
    mode: declarative
    spec: {op: features.read, args: {feature_group: shoppers_v2, key: {user_id: "${x}"}, features: [orders]}}
"""


async def test_fifty_reads_of_one_request_are_one_query(folder: Path, monkeypatch: pytest.MonkeyPatch):
    engines: list[CountingEngine] = []

    def counting(place: str) -> CountingEngine:
        engines.append(CountingEngine(place))
        return engines[-1]

    monkeypatch.setattr("flow_runtime.feature_store.local_engine.LocalEngine", counting)
    flow = small_flow(EACH, ["_input.x -> look.x", "look.row -> _output"])
    settings = LocalSettings(feature_store=f"local:{folder}")
    users = [f"u{number}" for number in range(50)]
    report = await run_flow(flow, {"x": users}, settings=settings)
    assert report.output == [{"orders": 200 + number} for number in range(50)]
    [engine] = engines
    assert sum(engine.queries) == 50 and len(engine.queries) <= 2


HANDLED = """
look:
  inputs: [{name: x, type: string}]
  outputs: [{name: row, type: object}]
  error: {name: failed}
  transform:
    mode: declarative
    spec: {op: features.read, args: {feature_group: shoppers_v2, key: "${x}", key_column: user_id}}
  runtime: RUNTIME
"""


async def test_a_missing_row_is_a_failure_of_type_not_found(folder: Path):
    nodes = HANDLED.replace("RUNTIME", "{retries: 3, retry_backoff_ms: 0, retry_on: [timeout]}")
    flow = small_flow(nodes, ["_input.x -> look.x", "look.row -> _output", "look.failed -> _output"])
    settings = LocalSettings(feature_store=f"local:{folder}")
    report = await run_flow(flow, {"x": "nobody"}, settings=settings)
    assert report.output == {
        "reason": "the feature group 'shoppers_v2' has no row for user_id 'nobody'",
        "node": "look",
        "type": "not_found",
        "attempts": 1,
    }
    again = small_flow(
        HANDLED.replace("RUNTIME", "{retries: 3, retry_backoff_ms: 0, retry_on: [error]}"),
        ["_input.x -> look.x", "look.row -> _output", "look.failed -> _output"],
    )
    assert (await run_flow(again, {"x": "nobody"}, settings=settings)).output["attempts"] == 3


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (None, r"the flow uses features: name a feature store \(feature_store: local:./folder or hopsworks:project\)"),
        ("folder", "the feature store 'folder' is not one"),
        ("redis:x", "is not one; write"),
        ("local:", "is not one; write"),
        ("local:/nowhere/at/all", "there is no folder '/nowhere/at/all'"),
    ],
)
async def test_a_flow_on_a_store_that_cannot_be_used_does_not_start(url: str | None, says: str):
    flow = small_flow(HANDLED.replace("RUNTIME", "{}"), ["_input.x -> look.x", "look.row -> _output"])
    with pytest.raises(FeatureStoreInvalid, match=says):
        async with LocalFlow(flow, settings=LocalSettings(feature_store=url)):
            pass


@pytest.mark.parametrize(
    ("url", "package", "extra"), [("local:.", "duckdb", "features"), ("hopsworks:a", "hsfs", "hopsworks")]
)
def test_a_missing_package_names_the_extra_that_brings_it(
    url: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
):
    from flow_runtime.feature_store.url import check_feature_store

    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(FeatureStoreInvalid, match=rf"pip install 'agentflow-serve\[{extra}\]'"):
        check_feature_store(url)


async def test_reads_of_different_nodes_and_requests_share_one_connection(folder: Path):
    flow = small_flow(HANDLED.replace("RUNTIME", "{}"), ["_input.x -> look.x", "look.row -> _output"])
    async with LocalFlow(flow, settings=LocalSettings(feature_store=f"local:{folder}")) as runner:
        reports = await asyncio.gather(*(runner.run({"x": f"u{number}"}) for number in range(20)))
    assert [report.output["orders"] for report in reports] == [200 + number for number in range(20)]


SCORED = """
model:
  inputs: []
  outputs: [{name: model, type: object}]
  transform: {mode: declarative, spec: {op: hopsworks.get_model, args: {name: fraud, version: VERSION}}}
use:
  inputs: [{name: model, type: object}, {name: x, type: number}]
  outputs: [{name: out, type: number}]
  transform:
    mode: code
    spec: |
      async def transform(inputs, context, state):
          return {"out": inputs["model"].predict(inputs["x"])}
"""


class Registry:
    """A store with one model, which is no JSON value."""

    async def prepare(self) -> None: ...

    async def aclose(self) -> None: ...

    async def get_model(self, name: str, version: int | None) -> Any:
        return type("Model", (), {"predict": lambda self, x: [name, version, x][-1] * (version or 100)})()


@pytest.mark.parametrize(("version", "out"), [("latest", 700), ("3", 21)])
async def test_a_model_is_a_handle_for_code_in_the_same_process(
    version: str, out: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("flow_runtime.operations.features.open_feature_store", lambda url, **options: Registry())
    flow = small_flow(
        SCORED.replace("VERSION", version),
        ["model.model -> use.model", "_input.x -> use.x", "use.out -> _output"],
        deployment={"target": "ray", "ray": {"placement": "inline"}},
    )
    report = await run_flow(flow, {"x": 7}, settings=LocalSettings(feature_store=f"local:{tmp_path}"))
    assert (report.error, report.output) == (None, out)
