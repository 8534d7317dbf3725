"""SQLite: groups, backpressure, cancellation, and a file that is full, damaged or somebody else's."""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from runtime_core.errors import (
    StoreConflictError,
    StoreCorruptError,
    StoreFullError,
    StoreLocationError,
    StoreUnavailableError,
)
from runtime_core.stores import Op, Sql, worker
from runtime_core.stores.failpoints import armed
from runtime_core.stores.sqlite import SqliteDatabase, SqliteOptions
from support.stores import add, entry_ids, prepare_journal, record, store_process, total, until


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def database(file: Path) -> AsyncIterator[SqliteDatabase]:
    async with SqliteDatabase(file, node_id="node-1") as opened:
        await prepare_journal(opened)
        yield opened


class Blocker:
    """Holds the writer thread inside an operation until released."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()

    def operation(self) -> Op[None]:
        self.entered.set()
        self.release.wait(30)
        yield Sql("SELECT 1")


@asynccontextmanager
async def busy_writer(database: SqliteDatabase) -> AsyncIterator[None]:
    blocker = Blocker()
    blocked = asyncio.create_task(database.run(blocker.operation))
    await until(blocker.entered.is_set)
    try:
        yield
    finally:
        blocker.release.set()
    await blocked


async def test_operations_that_wait_together_are_committed_together(database: SqliteDatabase) -> None:
    before = database.commits
    async with busy_writer(database):
        writes = [asyncio.create_task(database.run(lambda n=n: record(f"e{n}"))) for n in range(100)]
        await asyncio.sleep(0)
    await asyncio.gather(*writes)

    assert database.commits - before == 2
    assert await database.read(total) == 100


async def test_those_that_write_in_one_turn_of_the_loop_are_committed_together(database: SqliteDatabase) -> None:
    async def write(number: int) -> None:
        time.sleep(0.002)  # the writer's thread may run, as it may whenever a caller asks the system for something
        await database.run(lambda: record(f"e{number}"))

    before = database.commits
    await asyncio.gather(*map(write, range(20)))

    assert database.commits - before == 1


async def test_one_group_is_bounded_so_that_other_processes_get_their_turn(file: Path) -> None:
    async with SqliteDatabase(file, options=SqliteOptions(max_batch=10)) as database:
        await prepare_journal(database)
        before = database.commits
        async with busy_writer(database):
            writes = [asyncio.create_task(database.run(lambda n=n: record(f"e{n}"))) for n in range(100)]
            await asyncio.sleep(0)
        await asyncio.gather(*writes)
        assert database.commits - before == 11


async def test_the_queue_is_bounded_and_callers_wait(file: Path) -> None:
    built: list[int] = []

    def noted(number: int) -> Op[int]:
        built.append(number)
        return record(f"e{number}")

    async with SqliteDatabase(file, options=SqliteOptions(max_pending=4, max_batch=2)) as database:
        await prepare_journal(database)
        async with busy_writer(database):
            writes = [asyncio.create_task(database.run(lambda n=n: noted(n))) for n in range(50)]
            await asyncio.sleep(0.01)
            assert database._workers is not None
            assert database._workers[0]._queue.qsize() == 3  # one more is in the thread's hands
        await asyncio.gather(*writes)
        assert sorted(built) == list(range(50))
        assert await database.read(total) == 50


@pytest.mark.parametrize("max_pending", [100, 1], ids=["in the queue", "waiting for a place in the queue"])
async def test_a_cancelled_caller_abandons_the_answer_and_not_the_write(file: Path, max_pending: int) -> None:
    async with SqliteDatabase(file, options=SqliteOptions(max_pending=max_pending)) as database:
        await prepare_journal(database)
        async with busy_writer(database):
            writes = [asyncio.create_task(database.run(lambda n=n: record(f"e{n}"))) for n in range(10)]
            await asyncio.sleep(0.01)
            for write in writes:
                write.cancel()
            results = await asyncio.gather(*writes, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results)
        assert await database.run(total) == 10


async def test_a_busy_loop_pauses_for_a_thread_that_makes_no_progress(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(worker, "time", SimpleNamespace(sleep=pauses.append))
    async with busy_writer(database):
        await until(lambda: len(pauses) > 2)
    settled = len(pauses)
    await asyncio.sleep(0.05)
    assert len(pauses) <= settled + 1


async def test_a_failure_after_the_caller_has_left_is_logged(
    database: SqliteDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> Op[None]:
        yield Sql("SELECT 1")
        raise ValueError("nobody hears this")

    async with busy_writer(database):
        write = asyncio.create_task(database.run(fails))
        await asyncio.sleep(0)
        write.cancel()
        await asyncio.gather(write, return_exceptions=True)
    await database.run(total)
    assert "nobody hears this" in caplog.text


async def test_operations_run_outside_the_context_of_the_request(database: SqliteDatabase) -> None:
    request = contextvars.ContextVar("request", default="none")
    request.set("cancel me and everything I touch")

    def look() -> Op[str]:
        yield Sql("SELECT 1")
        return request.get()

    assert await database.run(look) == "none"


async def test_a_full_disk_refuses_what_does_not_fit_and_keeps_the_rest(database: SqliteDatabase) -> None:
    def limit_pages(count: int) -> Op[None]:
        yield Sql(f"PRAGMA max_page_count = {count}")

    def record_large(number: int) -> Op[None]:
        yield Sql("INSERT INTO entry (scope_id, entry_id, amount) VALUES (?, ?, 1)", ("s", f"{number}" * 200_000))

    await database.run(lambda: record("before"))
    await database.run(lambda: limit_pages(12))
    async with busy_writer(database):
        small = [asyncio.create_task(database.run(lambda n=n: add(n))) for n in range(1, 5)]
        large = asyncio.create_task(database.run(lambda: record_large(1)))
        small += [asyncio.create_task(database.run(lambda n=n: add(n))) for n in range(5, 9)]
        await asyncio.sleep(0)
    with pytest.raises(StoreFullError, match="free space"):
        await large
    await asyncio.gather(*small)
    assert await database.read(total) == 1 + sum(range(1, 9))

    await database.run(lambda: limit_pages(100_000))
    await database.run(lambda: record_large(1))


async def test_a_disk_that_fails_during_the_commit_leaves_the_outcome_open(file: Path) -> None:
    async with store_process("full", str(file), "e1") as process:
        output, _ = await process.communicate()
    assert output.decode().split() == ["unknown=True", "total=1"]


@pytest.mark.parametrize(("failpoint", "stored"), [("store.before_commit", 0), ("store.after_commit", 1)])
async def test_a_failed_commit_is_reported_as_unknown_to_the_whole_group(
    database: SqliteDatabase, file: Path, failpoint: str, stored: int
) -> None:
    def lose_connection() -> None:
        raise StoreUnavailableError("gone")

    def refuse() -> Op[None]:
        rows = yield from total()
        raise ValueError(f"decided on {rows}, which may never have been committed")

    with armed(failpoint, lose_connection):
        async with busy_writer_that_fails(database):
            calls = [
                asyncio.create_task(database.run(lambda: record("e1"))),
                asyncio.create_task(database.run(refuse)),
            ]
            await asyncio.sleep(0)
        results = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(result) for result in results] == [StoreUnavailableError] * 2
    assert all(isinstance(result, StoreUnavailableError) and result.outcome_unknown for result in results)
    assert results[0] is not results[1]
    with closing(sqlite3.connect(file, isolation_level=None, timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")  # the failed group holds no lock
    assert await database.read(total) == stored
    assert await database.run(lambda: record("e1")) == 1


@asynccontextmanager
async def busy_writer_that_fails(database: SqliteDatabase) -> AsyncIterator[None]:
    with pytest.raises(StoreUnavailableError):
        async with busy_writer(database):
            yield


async def test_a_lock_held_by_another_process_is_unavailable_after_the_busy_timeout(file: Path) -> None:
    async with SqliteDatabase(file, options=SqliteOptions(busy_timeout_s=0.05)) as database:
        await prepare_journal(database)
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailableError, match="locked") as caught:
                await database.run(lambda: record("e1"))
            assert not caught.value.outcome_unknown
            assert await database.read(total) == 0
            other.execute("ROLLBACK")
        assert await database.run(lambda: record("e1")) == 1


@pytest.mark.parametrize("is_open", [True, False], ids=["writing", "opening"])
async def test_a_lock_that_another_process_holds_for_a_while_is_waited_for(file: Path, is_open: bool) -> None:
    database = SqliteDatabase(file)
    if is_open:
        await prepare_journal(database)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        asyncio.get_running_loop().call_later(0.2, other.execute, "ROLLBACK")
        async with database:
            await prepare_journal(database)
            assert await database.run(lambda: record("e1")) == 1


async def test_commits_are_flushed_to_the_disk_and_foreign_keys_hold(database: SqliteDatabase) -> None:
    def pragmas() -> Op[list[object]]:
        values: list[object] = []
        for statement in ("PRAGMA journal_mode", "PRAGMA synchronous", "PRAGMA foreign_keys"):
            rows = yield Sql(statement)
            values.append(rows[0][0])
        return values

    assert await database.run(pragmas) == ["wal", 2, 1]

    def orphan() -> Op[None]:
        yield Sql("CREATE TABLE child (scope_id TEXT REFERENCES total (scope_id))")
        yield Sql("INSERT INTO child (scope_id) VALUES ('nobody')")

    with pytest.raises(StoreConflictError):
        await database.run(orphan)


async def test_a_new_file_can_be_read_by_its_owner_only(database: SqliteDatabase, file: Path) -> None:
    await database.run(lambda: record("e1"))
    for part in file.parent.iterdir():
        assert stat.S_IMODE(part.stat().st_mode) == 0o600


async def test_close_leaves_one_plain_file_and_no_thread(file: Path) -> None:
    before = threading.active_count()
    async with SqliteDatabase(file) as database:
        await prepare_journal(database)
        assert threading.active_count() == before + 2
    assert threading.active_count() == before
    assert [part.name for part in file.parent.iterdir()] == [file.name]


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "no" / "store.db")
    with pytest.raises(StoreUnavailableError, match=r"no/store\.db cannot be created: No such file"):
        await database.read(total)


async def test_opening_can_be_tried_again(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "later" / "store.db")
    with pytest.raises(StoreUnavailableError):
        await database.read(total)
    (tmp_path / "later").mkdir()
    async with database:
        await prepare_journal(database)
        assert await database.read(total) == 0


class TestLocation:
    async def test_a_process_on_another_node_is_sent_to_postgresql(self, database: SqliteDatabase, file: Path) -> None:
        """Also while the owner has it open, as when an autoscaler adds a node to a shared file system."""
        with pytest.raises(StoreLocationError, match="PostgreSQL") as caught:
            await SqliteDatabase(file, node_id="node-2").read(total)
        assert (caught.value.owner, caught.value.here) == ("node-1", "node-2")

    async def test_the_refused_process_touches_nothing(self, file: Path) -> None:
        """Not even the log that a killed owner left: it is the owner's to recover."""
        async with store_process("write", str(file), "e") as process:
            assert process.stdout is not None
            await process.stdout.readline()
            process.kill()
            await process.communicate()
        before = {part.name: part.read_bytes() for part in file.parent.iterdir()}
        assert before[f"{file.name}-wal"]

        with pytest.raises(StoreLocationError):
            await SqliteDatabase(file, node_id="node-2").read(total)
        assert {part.name: part.read_bytes() for part in file.parent.iterdir()} == before

    async def test_other_processes_of_the_same_node_are_welcome(self, database: SqliteDatabase, file: Path) -> None:
        await database.run(lambda: record("e1"))
        async with SqliteDatabase(file, node_id="node-1") as second:
            assert await second.run(lambda: record("e2")) == 2
        assert await database.read(total) == 2

    async def test_a_file_without_an_owner_gets_the_first_named_node(self, file: Path) -> None:
        for node_id in (None, "node-1", None):
            async with SqliteDatabase(file, node_id=node_id) as database:
                await prepare_journal(database)
        with pytest.raises(StoreLocationError):
            await SqliteDatabase(file, node_id="node-2").read(total)


class TestDamage:
    @pytest.fixture
    async def whole(self, file: Path) -> bytes:
        async with SqliteDatabase(file) as database:
            await prepare_journal(database)
            for number in range(100):
                await database.run(lambda number=number: record(f"entry-{number:04}-{'x' * 80}"))
        return file.read_bytes()

    async def test_a_damaged_page_refuses_to_open_and_is_not_repaired(self, file: Path, whole: bytes) -> None:
        damaged = bytearray(whole)
        damaged[-4096:-4080] = b"\xa5" * 16
        file.write_bytes(damaged)

        with pytest.raises(StoreCorruptError, match="restore a backup"):
            async with SqliteDatabase(file):
                pass
        assert file.read_bytes() == damaged

    async def test_a_file_that_is_no_database_is_left_alone(self, file: Path) -> None:
        text = b"these are my notes, not a database\n" * 200
        file.write_bytes(text)
        with pytest.raises(StoreCorruptError, match="no SQLite database"):
            await SqliteDatabase(file, node_id="node-1").read(total)
        assert file.read_bytes() == text

    async def test_damage_found_later_stops_every_further_use(self, file: Path, whole: bytes) -> None:
        async with SqliteDatabase(file) as database:
            await asyncio.to_thread(self._damage_tables, file, len(whole))
            with pytest.raises(StoreCorruptError):
                await database.read(entry_ids)
            with pytest.raises(StoreCorruptError):
                await database.run(lambda: add(1))

    @staticmethod
    def _damage_tables(file: Path, size: int) -> None:
        with file.open("r+b") as raw:
            for page in range(4096, size, 4096):
                raw.seek(page)
                raw.write(b"\xa5" * 16)
