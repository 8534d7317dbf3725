"""Rows of a local feature store: checked before they are written, and made of what a query gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flow_runtime.errors import OperationFailed
from flow_runtime.feature_store.local_schema import GroupSchema
from flow_runtime.feature_store.local_values import from_column, to_column
from flow_runtime.feature_store.protocol import Row, Source
from flow_runtime.feature_store.sentences import listed

MOST_ROWS = 100_000


def new_rows(
    source: Source, schema: GroupSchema, rows: Sequence[Mapping[str, Any]], event_time: int | None
) -> list[list[Any]]:
    """The values of each column of the schema, in its order. `event_time` is in microseconds since 1970.

    Raises OperationFailed, which names the columns that a row lacks, or has beyond the schema.
    """
    if len(rows) > MOST_ROWS:
        raise OperationFailed(f"{source} takes at most {MOST_ROWS} rows in one write, not {len(rows)}")
    needed = [*schema.keys, *([schema.event_time] if schema.event_time else [])]
    columns: list[list[Any]] = [[] for _ in schema.columns]
    for index, row in enumerate(rows):
        where = f"row {index} for {source}" if len(rows) > 1 else f"the row for {source}"
        if unknown := [name for name in row if name not in schema.columns]:
            has = f"it has: {', '.join(schema.columns)}"
            raise OperationFailed(f"{where} has the unknown columns {listed(unknown)}; {has}")
        values = {name: _value(where, schema, name, row.get(name)) for name in schema.columns}
        if schema.event_time is not None and values[schema.event_time] is None:
            values[schema.event_time] = event_time
        if missing := [name for name in needed if values[name] is None]:
            raise OperationFailed(f"{where} lacks the columns {listed(missing)}")
        for column, value in zip(columns, values.values(), strict=True):
            column.append(value)
    return columns


def row_of(source: Source, schema: GroupSchema, columns: Sequence[str], values: Sequence[Any]) -> Row:
    """Raises OperationFailed for values that are not what the schema says."""
    row: Row = {}
    for column, value in zip(columns, values, strict=True):
        try:
            row[column] = from_column(value, schema.columns[column])
        except (ValueError, OverflowError, RecursionError) as exc:
            message = f"the column '{column}' of {source} holds what is no {schema.columns[column]}: {exc}"
            raise OperationFailed(message) from exc
    return row


def _value(where: str, schema: GroupSchema, column: str, value: Any) -> Any:
    try:
        converted = to_column(value, schema.columns[column])
    except ValueError as exc:
        raise OperationFailed(f"the column '{column}' of {where} is wrong: {exc}") from exc
    if schema.embedding is not None and column == schema.embedding.column and converted is not None:
        given, wanted = len(converted), schema.embedding.dimensions
        if given != wanted:
            raise OperationFailed(f"the column '{column}' of {where} has {given} dimensions, not {wanted}")
    return converted
