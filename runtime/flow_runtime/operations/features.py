"""features.* and hopsworks.*: rows, likeness and models of the feature store that the configuration names.

Both families do the same on either kind of store (IR.md Q26 to Q32).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeVar

from agentflow.placeholders import compile_args
from agentflow.types import kind_of
from flow_runtime.errors import OperationFailed
from flow_runtime.feature_store.names import named
from flow_runtime.feature_store.protocol import FeatureStore, ModelRegistry, Read, Row, Search, Source
from flow_runtime.feature_store.url import check_feature_store, open_feature_store
from flow_runtime.feature_store.values import parse_time, vector
from flow_runtime.operations.base import OperationBinding, OperationCall, OperationFactory

DEFAULT_LIMIT = 5
LARGEST_LIMIT = 1000

Value = TypeVar("Value")


class _OnStore:
    """What the four have in common: the compiled arguments and the way to the store.

    Raises FeatureStoreInvalid where no store is configured, or what it needs is not installed.
    """

    def __init__(self, binding: OperationBinding) -> None:
        self.binding = binding
        self.args = compile_args(dict(binding.args), binding.names)
        self._url = check_feature_store(binding.settings.feature_store)

    async def prepare(self) -> None:
        await self.store().prepare()

    async def run(self, values: Mapping[str, Any], call: OperationCall) -> Any:
        try:
            return await self.answer(self.args.resolve(values))
        except OperationFailed as exc:
            exc.op = exc.op or self.binding.op
            raise

    async def answer(self, args: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def store(self) -> FeatureStore:
        resources = self.binding.resources
        return resources.shared(
            ("feature_store", self._url),
            lambda: open_feature_store(self._url, clock=resources.clock, ids=resources.ids),
        )


class ReadFeatures(_OnStore):
    """One row as an object: the latest one of its key, or the one that held `as_of` a time."""

    async def answer(self, args: Mapping[str, Any]) -> Row:
        source = self._source(args)
        features = args.get("features")
        if features is not None and not _are_names(features):
            raise OperationFailed("features must be a list of column names")
        read = Read(self._key(args), _time(args.get("as_of"), "as_of"))
        return await self.store().read(source, read, None if features is None else tuple(features))

    def _source(self, args: Mapping[str, Any]) -> Source:
        group, view = args.get("feature_group"), args.get("feature_view")
        if (group is None) == (view is None):
            raise OperationFailed("name either a feature_group or a feature_view")
        if view is not None:
            return Source(named(view, args.get("version"), what="the feature_view"), is_view=True)
        return Source(named(group, args.get("version"), what="the feature_group"))

    def _key(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """The key by column: as it is written, or of one value under the column that it is said to be of (Q26)."""
        key = args.get("key")
        if isinstance(key, Mapping):
            return key
        column = args.get("key_column") or self.args.last_name("key")
        if not isinstance(column, str):
            raise OperationFailed("the key needs a key_column that says what it is, or to be an object by column")
        return {column: key}


class WriteFeatures(_OnStore):
    """Adds rows; the value is true. The same write once more changes nothing."""

    async def answer(self, args: Mapping[str, Any]) -> bool:
        group = named(args["feature_group"], args.get("version"), what="the feature_group")
        data = args["data"]
        rows = [data] if isinstance(data, Mapping) else data
        if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
            raise OperationFailed(f"data must be an object or an array of objects, and it is {kind_of(data)}")
        await self.store().write(group, rows, _time(args.get("event_time"), "event_time"))
        return True


class VectorSearch(_OnStore):
    """The rows most like the query, each with its `score`, the best first."""

    async def answer(self, args: Mapping[str, Any]) -> list[Row]:
        index = named(args["index"], what="the index")
        filters = args.get("filters") or {}
        if not isinstance(filters, Mapping):
            raise OperationFailed(f"filters must be an object of columns and values, and it is {kind_of(filters)}")
        search = Search(await self._vector(args), _limit(args.get("limit")), filters)
        return await self.store().search(index, search)

    async def _vector(self, args: Mapping[str, Any]) -> Sequence[float]:
        query = args["query"]
        if not isinstance(query, str):
            return _checked(lambda: vector(query), "the query")
        embedder = args.get("embedder") or self.binding.settings.embedder
        if not isinstance(embedder, str):
            raise OperationFailed(
                "the query is text and nobody says who embeds it: give embedder, a role of llmhub.yaml"
            )
        if self.binding.models is None:
            raise OperationFailed(
                f"the query is text for '{embedder}', and there is no llmhub.yaml that says who that is"
            )
        [found] = await self.binding.models.embed(embedder, [query])
        return _checked(lambda: vector(found), f"what '{embedder}' made of the query")


class GetModel(_OnStore):
    """A handle to a model of the registry, for code in this process; it is no JSON value (Q32)."""

    async def answer(self, args: Mapping[str, Any]) -> Any:
        name, version = args["name"], args.get("version", "latest")
        if not isinstance(name, str) or not name:
            raise OperationFailed("the name of a model must be text")
        if version == "latest":
            version = None
        if version is not None and (isinstance(version, bool) or not isinstance(version, int) or version < 1):
            raise OperationFailed("the version of a model must be 'latest' or a whole number from 1 on")
        store = self.store()
        if not isinstance(store, ModelRegistry):
            raise OperationFailed("this feature store keeps no models; a store of the kind hopsworks: does")
        return await store.get_model(name, version)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


def _time(value: Any, what: str) -> datetime | None:
    return None if value is None else _checked(lambda: parse_time(value), what)


def _limit(value: Any) -> int:
    if value is None:
        return DEFAULT_LIMIT
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LARGEST_LIMIT:
        raise OperationFailed(f"limit must be a whole number from 1 to {LARGEST_LIMIT}")
    return value


def _checked(convert: Callable[[], Value], what: str) -> Value:
    try:
        return convert()
    except ValueError as exc:
        raise OperationFailed(f"{what} is wrong: {exc}") from exc


FACTORIES: Mapping[str, OperationFactory] = MappingProxyType(
    {
        "features.read": ReadFeatures,
        "features.write": WriteFeatures,
        "features.vector_search": VectorSearch,
        "hopsworks.read_features": ReadFeatures,
        "hopsworks.write_features": WriteFeatures,
        "hopsworks.vector_search": VectorSearch,
        "hopsworks.get_model": GetModel,
    }
)
