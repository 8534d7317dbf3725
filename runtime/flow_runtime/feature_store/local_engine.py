"""A local feature store, synchronously: DuckDB over the files of a folder. For one thread at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from flow_runtime.errors import OperationFailed
from flow_runtime.feature_store.local_folder import StoreFolder
from flow_runtime.feature_store.local_rows import new_rows, row_of
from flow_runtime.feature_store.local_schema import SCORE, GroupSchema
from flow_runtime.feature_store.local_sql import read_sql, search_sql, write_sql
from flow_runtime.feature_store.local_values import microseconds, to_column
from flow_runtime.feature_store.names import Named, named
from flow_runtime.feature_store.protocol import Read, Row, Search, Source
from flow_runtime.feature_store.sentences import listed, not_found

THREADS = 2
MEMORY_LIMIT = "1GB"


class LocalEngine:
    """Raises FeatureStoreInvalid for a folder that is not there."""

    def __init__(self, folder: str) -> None:
        self._folder = StoreFolder(folder)
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "threads": THREADS,
                "memory_limit": MEMORY_LIMIT,
                "temp_directory": "",
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        self._connection.execute("SET allowed_directories = [$root]", {"root": str(self._folder.root)})
        for setting in ("TimeZone = 'UTC'", "enable_external_access = false", "lock_configuration = true"):
            self._connection.execute(f"SET {setting}")

    def read(
        self, source: Source, reads: Sequence[Read], features: tuple[str, ...] | None
    ) -> list[Row | OperationFailed]:
        """The row of each read, or why it has none; all of them by one query. Raises OperationFailed."""
        group, schema, columns = self._selection(source, features)
        answers: list[Row | OperationFailed] = [not_found(source, read) for read in reads]
        asked: list[tuple[int, list[Any], int | None]] = []
        for position, read in enumerate(reads):
            try:
                asked.append((position, _key(source, schema, read), _time(source, schema, read)))
            except OperationFailed as exc:
                answers[position] = exc
        files = self._folder.parts(group)
        if not asked or not files:
            return answers
        parameters: dict[str, Any] = {
            "files": files,
            "count": len(asked),
            "times": [time for _, _, time in asked],
            **{f"k{index}": [key[index] for _, key, _ in asked] for index in range(len(schema.keys))},
        }
        for place, *values in self._query(source, read_sql(schema, columns), parameters):
            try:
                answers[asked[place][0]] = row_of(source, schema, columns, values)
            except OperationFailed as exc:
                answers[asked[place][0]] = exc
        return answers

    def search(self, group: Named, search: Search) -> list[Row]:
        """Raises OperationFailed."""
        source = Source(group)
        schema = self._folder.group(group)
        if schema.embedding is None:
            raise OperationFailed(f"{source} has no embedding, so it cannot be searched by likeness")
        if len(search.vector) != schema.embedding.dimensions:
            message = f"the query has {len(search.vector)} dimensions and the entries of {source}"
            raise OperationFailed(f"{message} {schema.embedding.dimensions}; embed both with one model")
        columns = [column for column, kind in schema.columns.items() if kind != "embedding"]
        filters = {column: _filter(source, schema, column, value) for column, value in search.filters.items()}
        files = self._folder.parts(group)
        if not files:
            return []
        parameters = {
            "files": files,
            "vector": list(search.vector),
            "limit": search.limit,
            **{f"f{index}": value for index, value in enumerate(filters.values())},
        }
        found = self._query(source, search_sql(schema, columns, list(filters)), parameters)
        return [{**row_of(source, schema, columns, values[:-1]), SCORE: values[-1]} for values in found]

    def write(self, group: Named, rows: Sequence[Mapping[str, Any]], event_time: int | None, part: str) -> None:
        """Add rows as one part. Raises OperationFailed; nothing is written then."""
        source = Source(group)
        schema = self._folder.group(group)
        columns = new_rows(source, schema, rows, event_time)
        if not rows:
            return
        parameters = {f"c{index}": values for index, values in enumerate(columns)}

        def write(path: str) -> None:
            try:
                self._connection.sql(write_sql(schema), params=parameters).write_parquet(path)
            except duckdb.Error as exc:
                raise OperationFailed(f"{source} cannot be written: {_first_line(exc)}") from exc

        self._folder.add_part(group, part, write)

    def interrupt(self) -> None:
        """Ends a query that runs in another thread."""
        self._connection.interrupt()

    def close(self) -> None:
        self._connection.close()

    def _selection(self, source: Source, features: tuple[str, ...] | None) -> tuple[Named, GroupSchema, list[str]]:
        """The group that a source reads, and the columns of it that are asked for."""
        group, offered = source.named, None
        if source.is_view:
            view = self._folder.view(source.named)
            group, offered = named(view.group, what=f"the group of {source}"), view.features
        schema = self._folder.group(group)
        known = [column for column in offered or schema.columns if column in schema.columns]
        plain = [column for column in known if schema.columns[column] != "embedding"]
        wanted = plain if features is None else list(features)
        if unknown := [name for name in wanted if name not in known]:
            raise OperationFailed(f"{source} has no column {listed(unknown)}; it has: {', '.join(known)}")
        return group, schema, wanted

    def _query(self, source: Source, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql, dict(parameters)).fetchall()
        except duckdb.Error as exc:
            raise OperationFailed(f"{source} cannot be read: {_first_line(exc)}") from exc


def _key(source: Source, schema: GroupSchema, read: Read) -> list[Any]:
    if set(read.key) != set(schema.keys):
        given = listed(read.key) or "no column"
        raise OperationFailed(f"{source} is read by {listed(schema.keys)}, and the key names {given}")
    values: list[Any] = []
    for column in schema.keys:
        try:
            value = to_column(read.key[column], schema.columns[column])
        except ValueError as exc:
            raise OperationFailed(f"the key '{column}' of {source} is wrong: {exc}") from exc
        if value is None:
            raise OperationFailed(f"the key '{column}' of {source} has no value")
        values.append(value)
    return values


def _time(source: Source, schema: GroupSchema, read: Read) -> int | None:
    if read.as_of is not None and schema.event_time is None:
        raise OperationFailed(f"{source} has no event time, so it cannot be read as of a time; leave out as_of")
    return None if read.as_of is None else microseconds(read.as_of)


def _filter(source: Source, schema: GroupSchema, column: str, value: Any) -> Any:
    if schema.columns.get(column, "embedding") in ("embedding", "json"):
        raise OperationFailed(f"{source} cannot be filtered by '{column}': it is no column with plain values")
    try:
        return to_column(value, schema.columns[column])
    except ValueError as exc:
        raise OperationFailed(f"the filter '{column}' on {source} is wrong: {exc}") from exc


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
