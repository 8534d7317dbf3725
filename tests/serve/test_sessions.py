"""Sessions behind the real actor: it is killed around appends, it is away, and clients leave while it commits.

AGENTFLOW_ACTOR_KILLS is the number of kills at each failpoint; 5 are 10.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentflow_serve.ledger_sessions import SessionTerms
from agentflow_serve.run_store import RunStore
from agentflow_serve.shared_sessions import SharedSessions
from runtime_core.clock import SystemClock
from runtime_core.sessions.store import StoredSessions
from runtime_core.stores import open_database
from support.ledger import armed_ledger
from support.stored_sessions import prepared_sessions, said

pytestmark = pytest.mark.serve

KILLS = int(os.environ.get("AGENTFLOW_ACTOR_KILLS", "1"))
FAILPOINTS = ("sessions.before_append", "sessions.after_append")
HERE: dict[str, Any] = {"scope_id": "default", "session_id": "s"}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/s.db"


@pytest.fixture
async def kept(url: str) -> AsyncIterator[StoredSessions]:
    """The store itself, past every actor."""
    async with open_database(url) as database:
        yield await prepared_sessions(database, SystemClock())


async def opened(stack: AsyncExitStack, app_name: str, url: str) -> SharedSessions:
    return await SharedSessions.open(stack, app_name, SessionTerms(url, None), RunStore(stack, url))


async def test_replicas_share_sessions_through_the_actor_and_past_it(cluster: int, url: str, kept: StoredSessions):
    async with AsyncExitStack() as stack:
        mine, yours = await opened(stack, "sharing", url), await opened(stack, "sharing", url)
        turns = [[said("q", run_id=f"r{n}"), said("a", run_id=f"r{n}")] for n in range(20)]
        await asyncio.gather(*((mine, yours)[n % 2].append(**HERE, records=turns[n], base=0) for n in range(20)))
        await kept.append(**HERE, records=[said("past the actor")], base=0)
        assert await mine.read(**HERE) == await yours.read(**HERE) == await kept.read(**HERE)
        assert (await mine.read(**HERE)).version == 41
        assert (await mine.read(**HERE, since=40)).records == (said("past the actor"),)


async def test_kill_9_of_the_actor_around_an_append_loses_nothing_and_doubles_nothing(
    cluster: int, url: str, kept: StoredSessions
):
    actor = armed_ledger("killed")
    sent: list[str] = []
    async with AsyncExitStack() as stack:
        for turn in range(KILLS):
            for failpoint in FAILPOINTS:
                before = await actor.pid.remote()
                await actor.kill_at.remote(failpoint)
                sessions = await opened(stack, "killed", url)
                run = f"run-{turn}-{failpoint}"
                sent += [f"{run}/q", f"{run}/a"]
                version = await sessions.append(
                    **HERE, records=[said("q", run_id=run), said("a", run_id=run)], base=len(sent) - 2
                )
                assert version == len(sent)
                # What the dead actor, or its next life, does with the call that it had is done by then.
                assert await pid_of(actor) != before, "it was not killed"
                assert [record.record_id for record in (await kept.read(**HERE)).records] == sent
    assert set(Counter(sent).values()) == {1}


async def pid_of(actor: Any) -> int:
    """The actor's process, once it is up again."""
    give_up = time.monotonic() + 60
    while True:
        try:
            async with asyncio.timeout(5):
                return await actor.pid.remote()
        except Exception:
            assert time.monotonic() < give_up, "the actor did not come back"


async def test_a_commit_ends_although_the_client_has_left(cluster: int, url: str, kept: StoredSessions):
    from ray import serve

    actor = armed_ledger("leaving")
    await actor.be_slow.remote(1.5)
    record = said("kept")

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    class Keeper:
        async def __call__(self, request: Any) -> str:
            async with AsyncExitStack() as stack:
                sessions = await SharedSessions.open(stack, "leaving", SessionTerms(url, None), RunStore(stack, url))
                await sessions.append(**HERE, records=[record], base=0)
            return "done"

    serve.run(Keeper.bind(), name="leaving", route_prefix="/leaving")
    try:
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(f"http://127.0.0.1:{cluster}/leaving", timeout=0.5)
        give_up = time.monotonic() + 30
        while (await kept.read(**HERE)).version == 0:
            assert time.monotonic() < give_up, "the commit went with the client"
            await asyncio.sleep(0.1)
        assert (await kept.read(**HERE)).records == (record,)
    finally:
        serve.delete("leaving")
