"""The samples of `agent-runtime-implementation.md` on storage, named after their headings, on real servers.

They run as written; only addresses and providers are those of the tests.
"""

from __future__ import annotations

import asyncio
from typing import Any

from agent_runtime import ActionSpec
from llmhub_runtime.sim import SimServer
from support.postgres import PostgresServer
from support.redis import RedisServer


async def test_with_persistent_storage(postgres_server: PostgresServer) -> None:
    import asyncpg

    from agent_runtime import (
        ExecutionRequest,
        PostgresActionStore,
        PostgresJobStore,
        PostgresLedgerWriter,
        RuntimeKernel,
    )
    from llm_client import Agent, ExecutionEngine, OpenAIProvider

    # Create connection pool
    pool = await asyncpg.create_pool(await postgres_server.fresh_url(), min_size=0)

    # Create stores
    job_store = PostgresJobStore(pool)
    action_store = PostgresActionStore(pool)
    ledger_writer = PostgresLedgerWriter(pool)

    async with (
        SimServer() as sim,
        OpenAIProvider(model="gpt-4", api_base=sim.openai_base, env_key=None) as provider,
        ExecutionEngine(provider=provider) as engine,
    ):
        # Create kernel with persistence
        kernel = RuntimeKernel(
            engine=engine,
            agent=Agent(engine=engine),
            job_store=job_store,
            action_store=action_store,
            ledger_writer=ledger_writer,
        )

        async with kernel:
            handle = await kernel.execute(ExecutionRequest(prompt="Hello, world!", idempotency_key="one"))
            result = await handle.result()
            again = await kernel.execute(ExecutionRequest(prompt="Hello, world!", idempotency_key="one"))
            assert (await again.result()).content == result.content
    await job_store.close()
    await action_store.close()
    await ledger_writer.close()
    async with pool.acquire() as connection:  # it stays its owner's
        await connection.execute("SET agentflow.scopes = '*'")
        assert await connection.fetchval("SELECT count(*) FROM runtime_jobs") == 1
        assert await connection.fetchval("SELECT count(*) FROM runtime_ledger WHERE state = 'settled'") == 1
    await pool.close()


async def test_with_redis_signaling(redis_server: RedisServer) -> None:
    import redis.asyncio as redis

    from agent_runtime import ActionManager, InMemoryActionStore, RedisSignalChannel

    client = await redis.from_url(redis_server.url)
    signal_channel = RedisSignalChannel(client)
    await signal_channel.start()
    action_store = InMemoryActionStore()

    # Use in action manager for fast wait/resume
    action_manager = ActionManager(
        action_store,
        signal_channel=signal_channel,
        poll_s=60,
    )

    async with RedisSignalChannel(client) as elsewhere:
        other = ActionManager(action_store, signal_channel=elsewhere)
        action = await action_manager.require_action(ActionSpec(type="confirm"))
        waiting = asyncio.create_task(action_manager.wait_for_resolution(action.action_id))
        await asyncio.sleep(0.05)
        await other.resolve(action.resume_token, resolution={"approved": True})
        async with asyncio.timeout(10):
            assert (await waiting).is_granted
    await signal_channel.stop()
    await action_store.close()
    await client.aclose()


async def test_postgresql(postgres_server: PostgresServer) -> None:
    """The tables, columns and types of the document, and the scope in every key."""
    import asyncpg

    from agent_runtime import PostgresActionStore, PostgresJobStore

    documented = {
        "runtime_jobs": {
            "text": "job_id scope_id principal_id session_id run_id status",
            "timestamp with time zone": "created_at updated_at started_at completed_at deadline",
            "double precision": "progress",
            "json": "budgets policy_ref versions metadata tags",
        },
        "runtime_actions": {
            "text": "action_id job_id type status resume_token",
            "timestamp with time zone": "created_at expires_at resolved_at",
            "json": "payload resolution",
        },
    }
    url = await postgres_server.fresh_url()
    async with PostgresJobStore(url), PostgresActionStore(url):
        pass
    connection = await asyncpg.connect(url)
    try:
        for table, types in documented.items():
            found: Any = await connection.fetch(
                "SELECT column_name, data_type FROM information_schema.columns"
                " WHERE table_schema = current_schema() AND table_name = $1",
                table,
            )
            kinds = dict(map(tuple, found))
            for kind, names in types.items():
                assert {kinds[name] for name in names.split()} == {kind}
            keys = await connection.fetch("SELECT indexdef FROM pg_indexes WHERE tablename = $1", table)
            unique = [key["indexdef"] for key in keys if "UNIQUE" in key["indexdef"]]
            assert len(unique) >= 2 and all("(scope_id, " in key for key in unique)
    finally:
        await connection.close()
