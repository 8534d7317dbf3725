"""The local feature store: rows by key and time, parts that are whole, likeness, and nothing outside its folder."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flow_runtime.errors import FeatureStoreInvalid, OperationFailed, RowNotFound
from flow_runtime.feature_store.local_engine import LocalEngine
from flow_runtime.feature_store.names import Named, named
from flow_runtime.feature_store.protocol import Read, Row, Search, Source
from support.feature_stores import add_group, local_store

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
RULES = {
    "keys": ["rule"],
    "columns": {"rule": "string", "tier": "string", "vector": "embedding"},
    "embedding": {"column": "vector", "dimensions": 2},
}


async def test_a_row_is_read_back_as_it_was_written(tmp_path: Path):
    group = add_group(tmp_path)
    row = {"user_id": "ü\0'\"", "tier": None, "orders": 2**63 - 1, "baskets": [{"n": 0.1}, None, "x"]}
    async with local_store(tmp_path) as store:
        await store.write(group, [row], NEW_YEAR)
        found = await store.read(Source(group), Read({"user_id": "ü\0'\""}), None)
        assert found == {**row, "at": "2026-01-01T00:00:00+00:00"}
        assert await store.read(Source(group), Read({"user_id": "ü\0'\""}), ("orders",)) == {"orders": 2**63 - 1}


async def test_a_read_is_of_the_latest_row_or_of_the_one_that_held_at_a_time(tmp_path: Path):
    group = add_group(tmp_path)
    async with local_store(tmp_path) as store:
        for day, tier in ((2, "gold"), (1, "basic")):
            await store.write(group, [{"user_id": "u1", "tier": tier}], NEW_YEAR + timedelta(days=day))

        async def tier(as_of: datetime | None) -> Any:
            return (await store.read(Source(group), Read({"user_id": "u1"}, as_of), ("tier",)))["tier"]

        assert await tier(None) == "gold", "by event time, not by when it was written"
        assert await tier(NEW_YEAR + timedelta(days=2)) == "gold"
        assert await tier(NEW_YEAR + timedelta(days=2, microseconds=-1)) == "basic"
        with pytest.raises(RowNotFound, match="'shoppers_v2' has no row for user_id 'u1' as of 2026-01-01T"):
            await tier(NEW_YEAR)


async def test_a_write_that_is_repeated_changes_nothing_and_one_with_other_values_takes_its_place(tmp_path: Path):
    group = add_group(tmp_path)
    async with local_store(tmp_path) as store:
        for orders in (1, 1, 2):
            await store.write(group, [{"user_id": "u1", "orders": orders}], NEW_YEAR)
        assert await store.read(Source(group), Read({"user_id": "u1"}), ("orders",)) == {"orders": 2}
        await store.write(group, [{"user_id": "u1", "orders": 3}, {"user_id": "u1", "orders": 4}], NEW_YEAR)
        assert await store.read(Source(group), Read({"user_id": "u1"}), ("orders",)) == {"orders": 4}


async def test_composite_keys_and_views_and_groups_without_a_time(tmp_path: Path):
    stock = {"keys": ["shop", "item"], "columns": {"shop": "integer", "item": "string", "left": "number"}}
    group = add_group(tmp_path, "stock_v1", stock)
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "shelf_v3.yaml").write_text("group: stock_v1\nfeatures: [left]\n")
    view = Source(Named("shelf", 3), is_view=True)
    async with local_store(tmp_path) as store:
        await store.write(group, [{"shop": shop, "item": "tea", "left": shop * 1.5} for shop in (1, 2)], None)
        await store.write(group, [{"shop": 1, "item": "tea", "left": 0}], None)
        assert await store.read(view, Read({"item": "tea", "shop": 2}), None) == {"left": 3.0}
        assert await store.read(view, Read({"item": "tea", "shop": 1.0}), None) == {"left": 0.0}
        for read, says in (
            (Read({"item": "tea"}), "is read by 'shop', 'item', and the key names 'item'"),
            (Read({"shop": "1", "item": "tea"}), "the key 'shop' of .* it is a string, not a whole number"),
            (Read({"shop": None, "item": "tea"}), "the key 'shop' of .* has no value"),
            (Read({"shop": 1, "item": "tea"}, NEW_YEAR), "has no event time"),
            (Read({"shop": 2**63, "item": "tea"}), "not a whole number of 64 bits"),
        ):
            with pytest.raises(OperationFailed, match=says):
                await store.read(view, read, None)
        with pytest.raises(OperationFailed, match="'shelf_v3' has no column 'item'; it has: left"):
            await store.read(view, Read({"shop": 1, "item": "tea"}), ("item",))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"user_id": "u", "tire": 1}, "has the unknown columns 'tire'; it has: user_id, tier"),
        ({"tier": "gold"}, "lacks the columns 'user_id', 'at'"),
        ({"user_id": "u", "at": "soon"}, "the column 'at' of the row .* not a time"),
        ({"user_id": "u", "at": "2026-01-01", "orders": 1.5}, "'orders' .* not a whole number"),
        ({"user_id": "\ud800", "at": "2026-01-01"}, "'user_id' .* surrogates not allowed"),
        ({"user_id": "u", "at": "2026-01-01", "baskets": [float("nan")]}, "'baskets' .* that is not JSON"),
    ],
)
async def test_a_row_that_does_not_fit_is_refused_with_what_is_wrong(tmp_path: Path, row: dict[str, Any], says: str):
    group = add_group(tmp_path)
    async with local_store(tmp_path) as store:
        with pytest.raises(OperationFailed, match=says):
            await store.write(group, [row], None)
    assert [path.name for path in (tmp_path / "shoppers_v2").iterdir()] == ["group.yaml"]


async def test_the_nearest_rows_come_first_and_only_the_newest_of_each_counts(tmp_path: Path):
    group = add_group(tmp_path, "rules_v1", RULES)
    entries = {"east": [2.0, 0.1], "north": [0.0, 1.0], "west": [-1.0, 0.0], "moved": [1.0, 0.0]}
    async with local_store(tmp_path) as store:
        assert await store.search(group, Search([1.0, 0.0], 3, {})) == []
        rows = [{"rule": rule, "tier": "gold", "vector": vector} for rule, vector in entries.items()]
        await store.write(group, rows, None)
        await store.write(group, [{"rule": "moved", "tier": "basic", "vector": [-1.0, 0.0]}, {"rule": "none"}], None)
        hits = await store.search(group, Search([1.0, 0.0], 2, {"tier": "gold"}))
        assert [hit["rule"] for hit in hits] == ["east", "north"]
        assert hits[0] == {"rule": "east", "tier": "gold", "score": pytest.approx(0.99875, abs=1e-4)}
        assert await store.search(group, Search([1.0, 0.0], 9, {"tier": "' OR 1=1 --"})) == []
        assert [hit["rule"] for hit in await store.search(group, Search([1.0, 0.0], 9, {"tier": "basic"}))] == ["moved"]
        for search, says in (
            (Search([1.0], 2, {}), "the query has 1 dimensions and the entries of .* 2"),
            (Search([1.0, 0.0], 2, {'tier" OR "tier': "x"}), "cannot be filtered by"),
            (Search([1.0, 0.0], 2, {"vector": [1.0]}), "cannot be filtered by 'vector'"),
            (Search([1.0, 0.0], 2, {"tier": 3}), "the filter 'tier' .* not a string"),
        ):
            with pytest.raises(OperationFailed, match=says):
                await store.search(group, search)


@pytest.mark.parametrize(("metric", "order"), [("cosine", "ab"), ("dot", "ba"), ("l2", "ab")])
async def test_each_metric_gives_more_to_what_is_more_alike(tmp_path: Path, metric: str, order: str):
    schema = {**RULES, "embedding": {"column": "vector", "dimensions": 2, "metric": metric}}
    group = add_group(tmp_path, "rules_v1", schema)
    async with local_store(tmp_path) as store:
        await store.write(group, [{"rule": "a", "vector": [1, 0]}, {"rule": "b", "vector": [3, 1]}], None)
        hits = await store.search(group, Search([1.0, 0.0], 5, {}))
    assert "".join(hit["rule"] for hit in hits) == order
    assert hits[0]["score"] > hits[1]["score"]


def test_only_names_can_be_part_of_a_path():
    assert named("shoppers_v2", what="it") == Named("shoppers", 2)
    assert named("shoppers", what="it") == Named("shoppers", 1)
    assert named("shoppers_v2", 7, what="it") == Named("shoppers_v2", 7)
    for name in ("../x", "/etc", "a/b", "a\0", "", "A", "a.b", "%2e%2e", "..\\x", "_v1", "a" * 64, "ä", "a\n", "x_v0"):
        with pytest.raises(OperationFailed):
            named(name, what="it")
    for version in (0, -1, True, 1.0, "1", 10**6):
        with pytest.raises(OperationFailed):
            named("a", version, what="it")


async def test_no_link_leads_out_of_the_folder(tmp_path: Path):
    outside, store_at = tmp_path / "outside", tmp_path / "store"
    for folder in (outside, store_at):
        folder.mkdir()
    secret = add_group(outside, "secret_v1")
    async with local_store(outside) as store:
        await store.write(secret, [{"user_id": "u1"}], NEW_YEAR)
    (store_at / "secret_v1").symlink_to(outside / "secret_v1")
    (store_at / "views").symlink_to(outside)
    mixed = add_group(store_at, "mixed_v1")
    [part] = (outside / "secret_v1").glob("*.parquet")
    (store_at / "mixed_v1" / "linked.parquet").symlink_to(part)
    (store_at / "yaml_v1").mkdir()
    (store_at / "yaml_v1" / "group.yaml").symlink_to(outside / "secret_v1" / "group.yaml")
    async with local_store(store_at) as store:
        for source, says in (
            (Source(secret), "has no group 'secret_v1'"),
            (Source(Named("secret", 1), is_view=True), "has no view"),
            (Source(mixed), "no row"),
            (Source(Named("yaml", 1)), "cannot be read: group.yaml"),
        ):
            with pytest.raises(OperationFailed, match=says):
                await store.read(source, Read({"user_id": "u1"}), None)


def test_the_database_itself_reaches_nothing_outside_either(tmp_path: Path):
    engine = LocalEngine(str(tmp_path))
    for sql in (
        "SELECT * FROM read_text('/etc/hostname')",
        f"SELECT * FROM read_text('{tmp_path}/../../etc/hostname')",
        "COPY (SELECT 1) TO '/tmp/af-escaped.parquet'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "ATTACH '/tmp/af-escaped.db'",
    ):
        with pytest.raises(Exception, match=r"disabled|locked"):
            engine._connection.execute(sql)
    engine.close()


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("keys: [a", "group.yaml is not YAML"),
        ("keys: [a]\ncolumns: {}", "columns"),
        ("keys: [b]\ncolumns: {a: string}", "'b' is not among the columns"),
        ("keys: [a]\ncolumns: {a: json}", "a key is a string, an integer or a boolean"),
        ("keys: [a]\nevent_time: a\ncolumns: {a: string}", "the event time is a timestamp"),
        ("keys: [a]\ncolumns: {a: string, 'b\"': string}", "should match pattern"),
        ("keys: [a]\ncolumns: {a: string, filename: string}", "no column may be called 'filename'"),
        ("keys: [a]\ncolumns: {a: string, v: embedding}", "the only column of type embedding"),
        ("keys: [a]\ncolumns: {a: string}\nsecret: 1", "Extra inputs"),
    ],
)
async def test_a_group_that_is_described_wrongly_says_so(tmp_path: Path, schema: str, says: str):
    (tmp_path / "g_v1").mkdir()
    (tmp_path / "g_v1" / "group.yaml").write_text(schema)
    async with local_store(tmp_path) as store:
        with pytest.raises(OperationFailed, match=says):
            await store.read(Source(Named("g", 1)), Read({"a": "x"}), None)


async def test_files_of_others_may_have_fewer_columns_or_more_and_other_kinds_of_numbers_and_times(tmp_path: Path):
    folder = tmp_path / "tier=path"  # no column, although it looks like one
    folder.mkdir()
    group = add_group(folder)
    foreign = "SELECT 'u1' AS user_id, 3::TINYINT AS orders, TIMESTAMP '2026-01-01 00:00:00' AS at, 1 AS more"
    duckdb.sql(foreign).write_parquet(str(folder / "shoppers_v2" / "foreign.parquet"))
    async with local_store(folder) as store:
        found = await store.read(Source(group), Read({"user_id": "u1"}, NEW_YEAR), None)
    at = "2026-01-01T00:00:00+00:00"
    assert found == {"user_id": "u1", "tier": None, "orders": 3, "baskets": None, "at": at}


async def test_a_part_that_is_no_parquet_file_is_a_failure_with_a_sentence(tmp_path: Path):
    group = add_group(tmp_path)
    (tmp_path / "shoppers_v2" / "broken.parquet").write_text("no parquet")
    async with local_store(tmp_path) as store:
        with pytest.raises(OperationFailed, match=r"'shoppers_v2' cannot be read: .*broken\.parquet"):
            await store.read(Source(group), Read({"user_id": "u1"}), None)


@pytest.mark.parametrize("folder", ["missing", "file", "glob[1]"])
def test_a_folder_that_cannot_be_one_is_refused(tmp_path: Path, folder: str):
    (tmp_path / "file").write_text("")
    (tmp_path / "glob[1]").mkdir()
    with pytest.raises(FeatureStoreInvalid):
        LocalEngine(str(tmp_path / folder))


WRITER = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from flow_runtime.feature_store.names import Named
from support.feature_stores import local_store

async def main(name):
    async with local_store(Path(sys.argv[1])) as store:
        for number in range(20):
            rows = [{"user_id": f"{name}-{row}", "orders": number} for row in range(50)]
            await store.write(Named("shoppers", 2), rows, datetime(2026, 1, 1 + number, tzinfo=UTC))

asyncio.run(main(sys.argv[2]))
"""


async def test_several_processes_write_while_readers_see_whole_parts_only(tmp_path: Path):
    group = add_group(tmp_path)
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [subprocess.Popen([*command, name], env=env) for name in "ab"]
    try:
        async with local_store(tmp_path) as store:

            async def orders(key: str) -> int:
                try:
                    return (await store.read(Source(group), Read({"user_id": key}), ("orders",)))["orders"]
                except RowNotFound:
                    return -1

            while any(writer.poll() is None for writer in writers):
                seen = await asyncio.gather(*(orders(f"a-{row}") for row in range(50)))
                assert len(set(seen)) == 1, "one part is all there or not at all"
            assert [await orders("a-0"), await orders("b-49")] == [19, 19]
    finally:
        for writer in writers:
            assert writer.wait(60) == 0
    assert len(list((tmp_path / "shoppers_v2").glob("*.parquet"))) == 40
    assert not list((tmp_path / "shoppers_v2").glob(".*"))


USERS = st.sampled_from(["u1", "u2", "u3", "U1"])
TIMES = st.integers(0, 6).map(lambda hour: NEW_YEAR + timedelta(hours=hour))
WRITES = st.lists(st.lists(st.tuples(USERS, TIMES), min_size=1, max_size=5), max_size=4)
READS = st.lists(st.tuples(USERS, st.none() | TIMES), min_size=1, max_size=6)


@settings(max_examples=settings.default.max_examples // 3)  # each writes files and reads them back
@given(writes=WRITES, reads=READS)
def test_reads_that_are_answered_together_say_what_a_plain_search_says(
    tmp_path_factory: pytest.TempPathFactory, writes: list[list[tuple[str, datetime]]], reads: list[Any]
):
    folder = tmp_path_factory.mktemp("af-store")
    group = add_group(folder)
    history: list[tuple[str, datetime, int]] = []

    async def run() -> tuple[list[Row | None], list[Row | None]]:
        async with local_store(folder) as store:
            for part in writes:
                rows = []
                for user, at in part:
                    history.append((user, at, len(history)))
                    rows.append({"user_id": user, "orders": history[-1][2], "at": at.isoformat()})
                await store.write(group, rows, None)

            async def read(user: str, as_of: datetime | None) -> Row | None:
                try:
                    return await store.read(Source(group), Read({"user_id": user}, as_of), ("orders",))
                except RowNotFound:
                    return None

            together = await asyncio.gather(*(read(*each) for each in reads))
            return together, [await read(*each) for each in reads]

    def oracle(user: str, as_of: datetime | None) -> Row | None:
        held = [(at, number) for who, at, number in history if who == user and (as_of is None or at <= as_of)]
        return {"orders": max(held)[1]} if held else None

    together, one_by_one = asyncio.run(run())
    assert together == one_by_one == [oracle(*each) for each in reads]
