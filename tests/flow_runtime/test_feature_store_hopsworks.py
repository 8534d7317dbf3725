"""The Hopsworks store against the installed client: the fakes have its real classes' signatures, and so no call of ours
can have arguments that it does not take. Nothing here needs a network.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest

pytest.importorskip("pyarrow", reason="the client's feature store does not import without it; make setup brings it")

import hopsworks
import pandas
from hopsworks_common.project import Project
from hsfs.constructor.query import Query
from hsfs.embedding import EmbeddingIndex
from hsfs.feature import Feature
from hsfs.feature_group import FeatureGroup
from hsfs.feature_store import FeatureStore
from hsfs.feature_view import FeatureView
from hsml.model_registry import ModelRegistry

from flow_runtime.errors import FeatureStoreInvalid, FlowRuntimeError, OperationFailed, RowNotFound
from flow_runtime.feature_store.hopsworks_client import HopsworksClient
from flow_runtime.feature_store.hopsworks_login import log_in
from flow_runtime.feature_store.hopsworks_store import HopsworksFeatureStore
from flow_runtime.feature_store.names import Named
from flow_runtime.feature_store.protocol import Read, Search, Source

GROUP = Named("shoppers", 2)
VIEW = Source(Named("risk", 1), is_view=True)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MAIN_THREAD = threading.get_ident()


class Hopsworks:
    """A project with one group and one view; `frame` is what reads of the group give."""

    def __init__(self, primary_key: tuple[str, ...] = ("user_id",)) -> None:
        columns = {"user_id": "string", "shop": "int", "tier": "string", "at": "timestamp", "vector": "array<float>"}
        features = {name: Feature(name, type=kind) for name, kind in columns.items()}
        self.frame = pandas.DataFrame(columns=list(columns))
        self.query = create_autospec(Query, instance=True)
        self.query.as_of.return_value = self.query.filter.return_value = self.query
        self.query.read.side_effect = self._read
        self.group = create_autospec(FeatureGroup, instance=True)
        self.group.features = list(features.values())
        self.group.primary_key = list(primary_key)
        self.group.event_time = "at"
        self.group.get_feature.side_effect = features.get
        self.group.select.return_value = self.query
        self.group.embedding_index = create_autospec(EmbeddingIndex, instance=True)
        self.group.embedding_index.get_embeddings.return_value = [SimpleNamespace(name="vector")]
        self.view = create_autospec(FeatureView, instance=True)
        self.view.serving_keys = [SimpleNamespace(required=True, required_serving_key="user_id")]
        self.store = create_autospec(FeatureStore, instance=True)
        self.store.get_feature_group.side_effect = lambda name, version=None: self.group if name == "shoppers" else None
        self.store.get_feature_view.return_value = self.view
        self.registry = create_autospec(ModelRegistry, instance=True)
        self.project = create_autospec(Project, instance=True)
        self.project.get_feature_store.return_value = self.store
        self.project.get_model_registry.return_value = self.registry
        self.threads: set[int] = set()

    def _read(self, *args: Any, **options: Any) -> pandas.DataFrame:
        self.threads.add(threading.get_ident())
        return self.frame

    def calls(self) -> list[tuple[type, str, tuple[Any, ...], dict[str, Any]]]:
        """Every call of ours, by the real class that it would have gone to."""
        fakes = {
            Query: self.query,
            FeatureGroup: self.group,
            FeatureView: self.view,
            FeatureStore: self.store,
            ModelRegistry: self.registry,
            Project: self.project,
        }
        return [
            (cls, name, args, options)
            for cls, fake in fakes.items()
            for name, args, options in fake.method_calls
            if "." not in name
        ]


@asynccontextmanager
async def opened(fake: Hopsworks) -> AsyncIterator[HopsworksFeatureStore]:
    store = HopsworksFeatureStore(lambda: HopsworksClient(fake.project))
    try:
        yield store
    finally:
        await store.aclose()


async def every_call(fake: Hopsworks) -> None:
    """One of everything that a flow can ask for."""
    fake.frame = pandas.DataFrame([{"user_id": "u1", "tier": "gold", "at": NOON}])
    fake.view.get_feature_vectors.return_value = pandas.DataFrame([{"tier": "gold"}])
    fake.group.find_neighbors.return_value = [(0.5, ["u1", 1, "gold", NOON, [0.0]])]
    fake.registry.get_models.return_value = [SimpleNamespace(version=2), SimpleNamespace(version=10)]
    async with opened(fake) as store:
        await store.read(Source(GROUP), Read({"user_id": "u1"}), ("tier",))
        await store.read(Source(GROUP), Read({"user_id": "u1"}, NOON), ("tier",))
        await store.read(VIEW, Read({"user_id": "u1"}), None)
        await store.write(GROUP, [{"user_id": "u1", "tier": "gold"}], NOON)
        await store.search(GROUP, Search([0.0], 3, {"tier": "gold", "shop": 1}))
        assert (await store.get_model("fraud", None)).version == 10
        await store.get_model("fraud", 3)


async def test_every_call_that_we_make_is_one_that_the_installed_client_takes():
    fake = Hopsworks()
    await every_call(fake)
    made = fake.calls()
    for cls, name, args, options in made:
        inspect.signature(getattr(cls, name)).bind(None, *args, **options)
    assert {(cls.__name__, name) for cls, name, _, _ in made} == {
        ("Project", "get_feature_store"),
        ("Project", "get_model_registry"),
        ("FeatureStore", "get_feature_group"),
        ("FeatureStore", "get_feature_view"),
        ("FeatureGroup", "select"),
        ("FeatureGroup", "get_feature"),
        ("FeatureGroup", "insert"),
        ("FeatureGroup", "find_neighbors"),
        ("Query", "as_of"),
        ("Query", "filter"),
        ("Query", "read"),
        ("FeatureView", "init_serving"),
        ("FeatureView", "get_feature_vectors"),
        ("ModelRegistry", "get_model"),
        ("ModelRegistry", "get_models"),
    }
    assert MAIN_THREAD not in fake.threads, "no call on the event loop"


async def test_reads_of_a_group_are_online_or_of_its_history_and_one_call_each():
    fake = Hopsworks()
    fake.frame = pandas.DataFrame(
        [
            {"user_id": user, "tier": tier, "at": pandas.Timestamp(2026, 1, day)}
            for user, tier, day in (("u1", "basic", 1), ("u1", "gold", 2), ("u2", None, 1))
        ]
    )
    async with opened(fake) as store:

        async def tier(user: str, as_of: datetime | None = None) -> Any:
            return await store.read(Source(GROUP), Read({"user_id": user}, as_of), ("tier", "at"))

        assert await asyncio.gather(tier("u1"), tier("u2")) == [
            {"tier": "gold", "at": "2026-01-02T00:00:00+00:00"},
            {"tier": None, "at": "2026-01-01T00:00:00+00:00"},
        ]
        fake.query.read.assert_called_once_with(online=True, dataframe_type="pandas")
        fake.query.as_of.assert_not_called()
        [condition] = fake.query.filter.call_args.args
        assert (condition.feature.name, condition.condition, condition.value) == ("user_id", "IN", '["u1", "u2"]')
        assert (await tier("u1", NOON))["tier"] == "basic"
        fake.query.as_of.assert_called_once_with(NOON)
        assert fake.query.read.call_args.kwargs["online"] is False
        with pytest.raises(RowNotFound, match="'shoppers_v2' has no row for user_id 'nobody'"):
            await tier("nobody")


async def test_composite_keys_are_one_condition():
    fake = Hopsworks(primary_key=("user_id", "shop"))
    fake.frame = pandas.DataFrame([{"user_id": "u1", "shop": 2, "tier": "gold", "at": NOON}])
    async with opened(fake) as store:
        found = await asyncio.gather(
            *(store.read(Source(GROUP), Read({"shop": shop, "user_id": "u1"}), ("tier",)) for shop in (1, 2)),
            return_exceptions=True,
        )
    assert isinstance(found[0], RowNotFound) and found[1] == {"tier": "gold"}
    assert fake.query.read.call_count == 1


async def test_a_view_gives_feature_vectors_and_has_no_history():
    fake = Hopsworks()
    fake.view.get_feature_vectors.return_value = pandas.DataFrame(
        [{"user_id": "u1", "tier": "gold", "rate": 0.5}, {"user_id": "u2", "tier": None, "rate": float("nan")}]
    )
    async with opened(fake) as store:
        first, second = await asyncio.gather(
            *(store.read(VIEW, Read({"user_id": user}), ("tier", "rate")) for user in ("u1", "u2")),
            return_exceptions=True,
        )
        assert first == {"tier": "gold", "rate": 0.5}
        assert isinstance(second, RowNotFound), "a vector of nothing is a row that is not there"
        fake.view.get_feature_vectors.assert_called_once_with(
            serving_keys=[{"user_id": "u1"}, {"user_id": "u2"}], return_type="pandas", allow_missing=True
        )
        with pytest.raises(OperationFailed, match="name the feature_group"):
            await store.read(VIEW, Read({"user_id": "u1"}, NOON), None)
        with pytest.raises(OperationFailed, match="is read by 'user_id', and the key names 'shop'"):
            await store.read(VIEW, Read({"shop": 1}), None)


async def test_a_write_is_an_upsert_of_a_frame_with_the_event_time():
    fake = Hopsworks()
    async with opened(fake) as store:
        await store.write(GROUP, [{"user_id": "u1", "tier": "gold"}], NOON)
        [frame], options = fake.group.insert.call_args
        assert frame.to_dict("records") == [{"user_id": "u1", "tier": "gold", "at": NOON}]
        assert options == {"operation": "upsert", "wait": False}
        for row, says in (({"tire": 1}, "no columns 'tire'"), ({"tier": "gold"}, "lacks the columns 'user_id'")):
            with pytest.raises(OperationFailed, match=says):
                await store.write(GROUP, [row], NOON)


async def test_neighbours_become_rows_with_a_score_without_their_vectors():
    fake = Hopsworks()
    fake.group.find_neighbors.return_value = [
        (0.1, ["u1", 1, "gold", NOON, [1.0]]),
        (0.9, ["u2", 2, "gold", None, [2.0]]),
    ]
    async with opened(fake) as store:
        hits = await store.search(GROUP, Search([0.5], 2, {"tier": "gold"}))
        assert [(hit["user_id"], hit["score"]) for hit in hits] == [("u2", 0.9), ("u1", 0.1)]
        assert "vector" not in hits[0]
        [vector], options = fake.group.find_neighbors.call_args
        assert (vector, options["k"], options["filter"].feature.name) == ([0.5], 2, "tier")
        with pytest.raises(OperationFailed, match="cannot be filtered by 'tire'"):
            await store.search(GROUP, Search([0.5], 2, {"tire": 1}))


async def test_what_the_client_raises_becomes_a_failure_and_the_next_call_goes_on():
    fake = Hopsworks()
    fake.registry.get_model.return_value = None
    fake.query.read.side_effect = [ConnectionError("gone"), fake.frame]
    async with opened(fake) as store:
        with pytest.raises(OperationFailed, match="Hopsworks: ConnectionError: gone"):
            await store.read(Source(GROUP), Read({"user_id": "u1"}), None)
        with pytest.raises(RowNotFound):
            await store.read(Source(GROUP), Read({"user_id": "u1"}), None)
        with pytest.raises(OperationFailed, match="has no group 'lost_v1'"):
            await store.read(Source(Named("lost", 1)), Read({"user_id": "u1"}), None)
        with pytest.raises(RowNotFound, match="no model 'fraud' of version 3"):
            await store.get_model("fraud", 3)


def test_the_login_takes_its_secrets_from_the_environment_and_never_asks(monkeypatch: pytest.MonkeyPatch):
    login = create_autospec(hopsworks.login)
    monkeypatch.setattr(hopsworks, "login", login)
    for environ, says in (({}, "set HOPSWORKS_API_KEY"), ({"HOPSWORKS_API_KEY": "k"}, "hopsworks:<project>")):
        with pytest.raises(FeatureStoreInvalid, match=says):
            log_in("", environ)
    login.assert_not_called()
    assert log_in("shop", {"HOPSWORKS_API_KEY": "k"}) is login.return_value
    login.assert_called_once_with(project="shop", api_key_value="k", engine="python")
    login.side_effect = OSError("no route")
    with pytest.raises(FeatureStoreInvalid, match="did not let us in: OSError: no route"):
        log_in("shop", {"HOPSWORKS_API_KEY": "k"})


async def test_a_login_that_fails_is_tried_again_by_the_next_call():
    fake = Hopsworks()
    fake.frame = pandas.DataFrame([{"user_id": "u1", "tier": "gold", "at": NOON}])
    attempts = iter([FeatureStoreInvalid("not now"), None])

    def connect() -> HopsworksClient:
        if (error := next(attempts)) is not None:
            raise error
        return HopsworksClient(fake.project)

    store = HopsworksFeatureStore(connect)
    with pytest.raises(FlowRuntimeError, match="not now"):
        await store.prepare()
    assert await store.read(Source(GROUP), Read({"user_id": "u1"}), ("tier",)) == {"tier": "gold"}
    await store.aclose()
