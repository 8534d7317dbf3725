"""What `make faults` reads of a store: the history of counters, and how many attempts there are so far."""

from __future__ import annotations

from functools import partial

from faults.reading import attempts_so_far, keep_history, read_books

from agent_runtime import Budget, Ledger
from agent_runtime.ledger import ops
from agent_runtime.ledger.amounts import Amounts
from agent_runtime.ledger.records import Entry, EventState, Used
from agent_runtime.ledger.transactions import prepare_ledger
from agent_runtime.ledger.writers import SqlLedgerWriter
from runtime_core.clock import SystemClock
from runtime_core.stores import in_scope, open_database
from support.call_log import attempt_of, prepared
from support.postgres import PostgresServer

SCOPE = "tenant-1"
NOON = 1_777_636_800.0


def entry(name: str) -> Entry:
    return Entry(scope_id=SCOPE, event_id=name, type="model", at=NOON, most=Amounts(requests=1))


async def test_every_commit_of_a_counter_is_kept_and_nothing_that_its_transaction_took_back(
    postgres_server: PostgresServer,
):
    async with open_database(await postgres_server.fresh_url()) as database:
        await prepare_ledger(database)
        await keep_history(database)
        await Ledger(SqlLedgerWriter(database)).set_budget(Budget(scope_id=SCOPE, max_requests_total=1))
        released = Used(EventState.RELEASED, NOON, Amounts())
        assert await database.run(in_scope(SCOPE, partial(ops.reserve, entry("held")))) is None
        await database.run(in_scope(SCOPE, partial(ops.record, entry("refused for good"), released)))
        assert await database.run(in_scope(SCOPE, partial(ops.end, SCOPE, "held", released))) is not None
        history = (await read_books(database, [], scope_id=SCOPE)).history
    # The counter is made with the first reservation, in the same commit.
    kept = [state.reserved[2] for state in history]
    assert set(kept) == {0, 1}
    assert kept[-1] == 0


async def test_the_attempts_of_a_scope_are_counted_where_rows_are_shown_to_their_scope_only(
    postgres_server: PostgresServer,
):
    async with open_database(await postgres_server.fresh_url()) as database:
        log = await prepared(database, SystemClock())
        for scope_id, attempt_id in ((SCOPE, "one"), (SCOPE, "two"), ("tenant-2", "three")):
            await log.reserve(attempt_of(log, attempt_id, scope_id=scope_id))
        assert await attempts_so_far(database, SCOPE) == 2
