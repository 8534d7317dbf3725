"""Ledgers over every kind of database, alone and behind injected faults."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import TypeVar

from agent_runtime import Ledger
from agent_runtime.ledger.writers import SqlLedgerWriter
from runtime_core.clock import Clock
from runtime_core.context import ExecutionContext, Identity
from runtime_core.stores import Database, in_scope, open_database
from runtime_core.stores.faults import FaultyDatabase
from runtime_core.stores.sql import Op, OpFactory, Sql
from support.stores import persist

T = TypeVar("T")

SCOPE = "tenant-1"
WHO = ExecutionContext(scope_id=SCOPE, principal_id="ann", run_id="run-1")
BOB = ExecutionContext(scope_id=SCOPE, principal_id="bob", run_id="run-2")


def ledger_database(url: str, *, fault_rate: float = 0.0) -> Database:
    database = open_database(url, node_id="node-1")
    return FaultyDatabase(database, Random(5), rate=fault_rate) if fault_rate else database


class RepeatingWriter(SqlLedgerWriter):
    """Every operation is repeated until the store answers, as a caller with stable ids does."""

    async def run(self, op_factory: OpFactory[T]) -> T:
        return await persist(lambda: super(RepeatingWriter, self).run(op_factory))

    async def read(self, op_factory: OpFactory[T]) -> T:
        return await persist(lambda: super(RepeatingWriter, self).read(op_factory))


@asynccontextmanager
async def opened(database: Database, clock: Clock) -> AsyncIterator[Ledger]:
    async with database:
        writer = RepeatingWriter(database)
        await persist(writer.prepare)
        yield Ledger(writer, clock=clock)


def who(principal: str = "ann", *, scope: str = SCOPE) -> Identity:
    return Identity(scope_id=scope, principal_id=principal)


def _sums(scope_id: str) -> Op[tuple[int, int, int]]:
    rows = yield Sql(
        "SELECT COALESCE(SUM(reserved_tokens), 0), COALESCE(MIN(reserved_tokens), 0),"
        " COALESCE(SUM(reserved_requests), 0)"
        " FROM ledger_counters WHERE scope_id = ?",
        (scope_id,),
    )
    return int(rows[0][0]), int(rows[0][1]), int(rows[0][2])


async def held(database: Database, scope_id: str = SCOPE) -> tuple[int, int, int]:
    """Reserved tokens of all counters, the lowest of them, and reserved requests."""
    return await persist(lambda: database.read(in_scope(scope_id, lambda: _sums(scope_id))))
