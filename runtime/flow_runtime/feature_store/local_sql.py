"""The SQL of a local feature store. Its names come from a checked schema, quoted; its values are parameters.

Names that begin with # are ours: no column is called so. Rows with one key and event time are one row, that of
the last part and the last place in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from flow_runtime.feature_store.local_schema import GroupSchema, Metric
from flow_runtime.feature_store.local_values import SQL_TYPES

_ALIKE: dict[Metric, str] = {
    "cosine": "list_cosine_similarity({}, $vector::FLOAT[])",
    "dot": "list_inner_product({}, $vector::FLOAT[])",
    "l2": "1 / (1 + list_distance({}, $vector::FLOAT[]))",
}


def read_sql(schema: GroupSchema, columns: Sequence[str]) -> str:
    """Parameters: `files`, `count` and `times` (microseconds, NULL for the latest), and `k0`, `k1`, ... for the keys.

    The answer's first column is the position of the question, from 0 on.
    """
    asked = ", ".join(
        f'unnest($k{index}::{SQL_TYPES[schema.columns[key]]}[]) AS "#k{index}"' for index, key in enumerate(schema.keys)
    )
    same = " AND ".join(f'"#k{index}" = {quoted(key)}' for index, key in enumerate(schema.keys))
    keys = _list(schema.keys)
    return f"""
        WITH "#asked" AS (
            SELECT unnest(range($count)) AS "#position", {asked},
                   coalesce(make_timestamptz(unnest($times::BIGINT[])), 'infinity'::TIMESTAMPTZ) AS "#at"
        ), {_rows(schema)}, "#newest" AS (
            SELECT * FROM "#rows" SEMI JOIN "#asked" ON {same}
            QUALIFY row_number() OVER (PARTITION BY {keys}, "#time" ORDER BY {_LATEST_PART}) = 1
        )
        SELECT "#position", {", ".join(_stored(schema, column) for column in columns)}
        FROM "#asked" ASOF JOIN "#newest" ON {same} AND "#at" >= "#time"
    """


def search_sql(schema: GroupSchema, columns: Sequence[str], filters: Sequence[str]) -> str:
    """Parameters: `files`, `vector`, `limit`, and `f0`, `f1`, ... for the filters. The last column is the score."""
    assert schema.embedding is not None
    keys = _list(schema.keys)
    alike = _ALIKE[schema.embedding.metric].format(quoted(schema.embedding.column))
    wanted = "".join(
        f" AND {_stored(schema, column)} IS NOT DISTINCT FROM $f{index}::{_parameter(schema, column)}"
        for index, column in enumerate(filters)
    )
    return f"""
        WITH {_rows(schema)}, "#newest" AS (
            SELECT * FROM "#rows"
            QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY "#time" DESC, {_LATEST_PART}) = 1
        ), "#scored" AS (
            SELECT *, CAST({alike} AS DOUBLE) AS "#score" FROM "#newest"
            WHERE len({quoted(schema.embedding.column)}) = {schema.embedding.dimensions}{wanted}
        )
        SELECT {", ".join(_stored(schema, column) for column in columns)}, "#score" FROM "#scored"
        WHERE isfinite("#score") ORDER BY "#score" DESC, {keys} LIMIT $limit
    """


def write_sql(schema: GroupSchema) -> str:
    """One row per element of the parameters `c0`, `c1`, ..., which are in the order of the columns."""
    return "SELECT " + ", ".join(_unnested(schema, column, index) for index, column in enumerate(schema.columns))


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


_LATEST_PART = '"filename" DESC, "file_row_number" DESC'


def _rows(schema: GroupSchema) -> str:
    """All rows of the files with all columns of the schema in their types, and `#time`."""
    empty = ", ".join(f"NULL::{SQL_TYPES[kind]} AS {quoted(column)}" for column, kind in schema.columns.items())
    time = quoted(schema.event_time) if schema.event_time else "'epoch'::TIMESTAMPTZ"
    return f"""
        "#parts" AS (
            SELECT {empty} WHERE false UNION ALL BY NAME
            SELECT * FROM read_parquet(
                $files, union_by_name = true, hive_partitioning = false, filename = true, file_row_number = true
            )
        ), "#rows" AS (SELECT *, {time} AS "#time" FROM "#parts" WHERE {time} IS NOT NULL)
    """


def _stored(schema: GroupSchema, column: str) -> str:
    """A column as it is handed over: times as microseconds, which need no library for time zones."""
    return f"epoch_us({quoted(column)})" if schema.columns[column] == "timestamp" else quoted(column)


def _parameter(schema: GroupSchema, column: str) -> str:
    kind = schema.columns[column]
    return "BIGINT" if kind == "timestamp" else SQL_TYPES[kind]


def _unnested(schema: GroupSchema, column: str, index: int) -> str:
    values = f"unnest($c{index}::{_parameter(schema, column)}[])"
    return f"{f'make_timestamptz({values})' if schema.columns[column] == 'timestamp' else values} AS {quoted(column)}"


def _list(columns: Sequence[str]) -> str:
    return ", ".join(quoted(column) for column in columns)
