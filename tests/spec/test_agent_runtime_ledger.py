"""The samples about the ledger in agent-runtime-implementation.md, as they are written."""

from __future__ import annotations

from decimal import Decimal

import pytest

from agent_runtime import ExecutionContext
from runtime_core.call_log.records import Usage
from support.postgres import PostgresServer

ctx = ExecutionContext(scope_id="tenant-123", principal_id="user-456", session_id="session-789")
usage = Usage(input=900_000, output=50_000)


async def test_ledger() -> None:
    from agent_runtime import Budget, BudgetDecision, BudgetExceededError, InMemoryLedgerWriter, Ledger

    writer = InMemoryLedgerWriter()
    ledger = Ledger(writer)

    # Set budget
    ledger.set_budget(Budget(
        scope_id="tenant-123",
        max_tokens_daily=1000000,
        max_cost_daily=Decimal("100.00"),
    ))  # fmt: skip

    # Check budget before operation
    decision = await ledger.check_budget(ctx, pending_tokens=1000)
    if decision == BudgetDecision.DENY:
        raise BudgetExceededError("Daily limit exceeded")

    # Record usage
    await ledger.record_model_usage(ctx, usage)

    decision = await ledger.check_budget(ctx, pending_tokens=50_001)
    assert decision == BudgetDecision.DENY
    assert decision == BudgetDecision.DENY.value
    assert decision != BudgetDecision.ALLOW
    assert "max_tokens_daily" in (decision.reason or "")
    await writer.close()


async def test_a_scope_budget_counts_all_its_principals() -> None:
    from agent_runtime import Budget, BudgetDecision, InMemoryLedgerWriter, Ledger

    ledger = Ledger(InMemoryLedgerWriter())
    await ledger.set_budget(Budget(scope_id="tenant-123", max_tokens_daily=950_000))
    await ledger.record_model_usage(ctx, usage)
    other = ExecutionContext(scope_id="tenant-123", principal_id="someone-else")
    assert await ledger.check_budget(other, pending_tokens=1) == BudgetDecision.DENY


async def test_with_postgres(postgres_server: PostgresServer) -> None:
    import asyncpg

    from agent_runtime import Budget, BudgetExceededError, Ledger, PostgresLedgerWriter

    # Create connection pool
    pool = await asyncpg.create_pool(await postgres_server.fresh_url(), min_size=1, max_size=8)
    ledger_writer = PostgresLedgerWriter(pool)
    ledger = Ledger(ledger_writer)
    await ledger.set_budget(Budget(scope_id="tenant-123", max_tokens_per_minute=10))
    with pytest.raises(BudgetExceededError):
        await ledger.reserve(ctx, tokens=11)
    async with pool.acquire() as connection:
        rows = await connection.fetch(
            "SELECT column_name, data_type FROM information_schema.columns"
            " WHERE table_name = 'runtime_ledger' AND table_schema = current_schema()"
        )
    columns = {row["column_name"]: row["data_type"] for row in rows}
    named = {"event_id", "type", "job_id", "scope_id", "principal_id", "input_tokens", "output_tokens", "total_tokens"}
    assert named <= columns.keys()
    assert columns["timestamp"] == "timestamp with time zone"
    await ledger_writer.close()
    await pool.close()
