"""The calls of the Hopsworks client that we make. They block.

Online reads go to a view's feature vectors or the group's online table, reads as of a time to the group's history
(`Query.as_of`), searches to `find_neighbors`. Keys of one batch go in one call.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import reduce
from operator import and_, or_
from typing import Any

from flow_runtime.errors import OperationFailed, RowNotFound
from flow_runtime.feature_store.hopsworks_values import event_value, latest, plain, records
from flow_runtime.feature_store.names import Named
from flow_runtime.feature_store.protocol import Read, Row, Search, Source
from flow_runtime.feature_store.sentences import listed, not_found

Answers = list[Row | OperationFailed]


class HopsworksClient:
    """One project. Raises OperationFailed, RowNotFound, and whatever the client raises."""

    def __init__(self, project: Any) -> None:
        self._project = project
        self._store = project.get_feature_store()
        self._handles: dict[tuple[str, Source], Any] = {}

    def read(self, source: Source, reads: Sequence[Read], features: tuple[str, ...] | None) -> Answers:
        if source.is_view:
            return self._from_view(source, reads, features)
        group = self._group(source, "read")
        columns = _columns(source, features, [feature.name for feature in group.features])
        answers: Answers = [not_found(source, read) for read in reads]
        together: defaultdict[datetime | None, list[int]] = defaultdict(list)
        for position, read in enumerate(reads):
            try:
                _check_key(source, read.key, group.primary_key)
                together[read.as_of].append(position)
            except OperationFailed as exc:
                answers[position] = exc
        for as_of, positions in together.items():
            found = self._from_group(group, [reads[position].key for position in positions], columns, as_of)
            for position in positions:
                key = reads[position].key
                rows = [row for row in found if all(row[column] == value for column, value in key.items())]
                if (row := latest(rows, group.event_time, as_of)) is not None:
                    answers[position] = {column: row[column] for column in columns}
        return answers

    def write(self, named: Named, rows: Sequence[Mapping[str, Any]], event_time: datetime | None) -> None:
        import pandas

        source = Source(named)
        group = self._group(source, "write")
        known = [feature.name for feature in group.features]
        given = [dict(row) for row in rows]
        for row in given:
            if unknown := [name for name in row if name not in known]:
                raise OperationFailed(f"{source} has no columns {listed(unknown)}; it has: {', '.join(known)}")
            if group.event_time and event_time is not None and row.get(group.event_time) is None:
                kind = group.get_feature(group.event_time).type
                row[group.event_time] = event_value(event_time, kind)
            needed = [*group.primary_key, *([group.event_time] if group.event_time else [])]
            if missing := [name for name in needed if row.get(name) is None]:
                raise OperationFailed(f"a row for {source} lacks the columns {listed(missing)}")
        if given:
            group.insert(pandas.DataFrame(given), operation="upsert", wait=False)

    def search(self, named: Named, search: Search) -> list[Row]:
        source = Source(named)
        group = self._group(source, "search")
        if group.embedding_index is None:
            raise OperationFailed(f"{source} has no embedding, so it cannot be searched by likeness")
        known = [feature.name for feature in group.features]
        if unknown := [name for name in search.filters if name not in known]:
            raise OperationFailed(f"{source} cannot be filtered by {listed(unknown)}; it has: {', '.join(known)}")
        wanted = [group.get_feature(column) == value for column, value in search.filters.items()]
        condition = reduce(and_, wanted) if wanted else None
        hits = group.find_neighbors(list(search.vector), k=search.limit, filter=condition)
        vectors = {embedding.name for embedding in group.embedding_index.get_embeddings()}
        return [
            {name: plain(value) for name, value in zip(known, values, strict=True) if name not in vectors}
            | {"score": plain(score)}
            for score, values in sorted(hits, key=lambda hit: -hit[0])[: search.limit]
        ]

    def get_model(self, name: str, version: int | None) -> Any:
        registry = self._project.get_model_registry()
        if version is not None:
            model = registry.get_model(name, version=version)
        else:
            model = max(registry.get_models(name), key=lambda each: each.version, default=None)
        if model is None:
            which = "" if version is None else f" of version {version}"
            raise RowNotFound(f"the model registry has no model '{name}'{which}")
        return model

    def _from_view(self, source: Source, reads: Sequence[Read], features: tuple[str, ...] | None) -> Answers:
        view = self._view(source)
        keys = list(dict.fromkeys(key.required_serving_key for key in view.serving_keys if key.required))
        answers: Answers = [not_found(source, read) for read in reads]
        asked: list[int] = []
        for position, read in enumerate(reads):
            try:
                if read.as_of is not None:
                    raise OperationFailed(f"{source} is read online; to read as of a time, name the feature_group")
                _check_key(source, read.key, keys)
                asked.append(position)
            except OperationFailed as exc:
                answers[position] = exc
        if not asked:
            return answers
        # with allow_missing there is one vector per key, in order; else those that are not found are left out
        frame = view.get_feature_vectors(
            serving_keys=[dict(reads[position].key) for position in asked], return_type="pandas", allow_missing=True
        )
        columns = _columns(source, features, [str(name) for name in frame.columns])
        for position, row in zip(asked, records(frame), strict=True):
            if any(value is not None for name, value in row.items() if name not in keys):
                answers[position] = {column: row[column] for column in columns}
        return answers

    def _from_group(
        self, group: Any, keys: Sequence[Mapping[str, Any]], columns: Sequence[str], as_of: datetime | None
    ) -> list[Row]:
        timed = [group.event_time] if group.event_time else []
        query = group.select(list(dict.fromkeys([*columns, *group.primary_key, *timed])))
        if as_of is not None:
            query = query.as_of(as_of)
        query = query.filter(_is_one_of(group, keys))
        return records(query.read(online=as_of is None, dataframe_type="pandas"))

    def _group(self, source: Source, purpose: str) -> Any:
        """The client's handle, one for each purpose: what runs at the same time shares none."""
        handle = (purpose, source)
        if handle not in self._handles:
            found = self._store.get_feature_group(source.named.name, version=source.named.version)
            if found is None:
                raise OperationFailed(f"the feature store has no group '{source.named}'")
            self._handles[handle] = found
        return self._handles[handle]

    def _view(self, source: Source) -> Any:
        handle = ("read", source)
        if handle not in self._handles:
            found = self._store.get_feature_view(source.named.name, version=source.named.version)
            if found is None:
                raise OperationFailed(f"the feature store has no view '{source.named}'")
            found.init_serving()
            self._handles[handle] = found
        return self._handles[handle]


def _is_one_of(group: Any, keys: Sequence[Mapping[str, Any]]) -> Any:
    """The condition that a row has one of these keys."""
    if len(group.primary_key) == 1:
        [column] = group.primary_key
        return group.get_feature(column).isin(list(dict.fromkeys(key[column] for key in keys)))
    rows = [reduce(and_, [group.get_feature(column) == value for column, value in key.items()]) for key in keys]
    return reduce(or_, rows)


def _columns(source: Source, features: tuple[str, ...] | None, known: Sequence[str]) -> list[str]:
    if unknown := [name for name in features or () if name not in known]:
        raise OperationFailed(f"{source} has no column {listed(unknown)}; it has: {', '.join(known)}")
    return list(known if features is None else features)


def _check_key(source: Source, key: Mapping[str, Any], wanted: Sequence[str]) -> None:
    if set(key) != set(wanted):
        raise OperationFailed(f"{source} is read by {listed(wanted)}, and the key names {listed(key) or 'no column'}")
    for column, value in key.items():
        if not isinstance(value, str | int):
            raise OperationFailed(f"the key '{column}' of {source} must be text or a whole number")
