"""The shared actor of a served flow: `memory` state that all replicas see, and the way to sessions and the ledger.

It holds nothing that must survive: when it restarts, `memory` buckets are empty, and sessions are read from the run
store again. The actor is named after the app and outlives single replicas; it ends by itself when no predictor has
shown itself for a while, because nothing else would end it on a cluster that stays.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from agentflow_serve.actor_or_store import CALL_TIMEOUT_S, MEMORY
from agentflow_serve.commit_wire import WireAnswer, WireCommand
from agentflow_serve.errors import LedgerAway
from agentflow_serve.ledger_commits import LedgerCommits
from agentflow_serve.ledger_sessions import LedgerSessions, Place, SessionMethod, SessionTerms
from agentflow_serve.run_store import RunStore
from agentflow_serve.store_upkeep import Keeping, keep_in_order
from flow_runtime.errors import StateFailed
from flow_runtime.state import StoredState
from runtime_core.clock import SystemClock
from runtime_core.errors import AgentflowError
from runtime_core.stores.keyed import Bucket, Entry
from runtime_core.stores.url import open_database

NAMESPACE = "agentflow"
IDLE_EXIT_S = 600.0
FORGET_TIMEOUT_S = 1.0
"""An answer waits for this at most; what is not forgotten then expires."""


class SessionLedger:
    """One per app. Its methods may run twice when the actor dies under a call, so each is safe to repeat."""

    def __init__(self, idle_exit_s: float) -> None:
        self._idle_exit_s = idle_exit_s
        self._seen = time.monotonic()
        self._watch: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[StoredState] | None = None
        self._stack = AsyncExitStack()
        self._stores: dict[str, RunStore] = {}
        self._sessions: dict[SessionTerms, LedgerSessions] = {}
        self._commits: dict[str, LedgerCommits] = {}
        self._upkeep: dict[Keeping, asyncio.Task[None]] = {}

    async def heartbeat(self, keeping: Keeping | None = None) -> None:
        """A predictor is alive, and wants its run store kept in order, as the last one who says so wants it."""
        self._seen = time.monotonic()
        if keeping is not None and keeping not in self._upkeep:
            for other in [each for each in self._upkeep if each.store == keeping.store]:
                self._upkeep.pop(other).cancel()
            self._upkeep[keeping] = asyncio.create_task(keep_in_order(self._store(keeping.store), keeping))
        if self._watch is None:
            self._watch = asyncio.create_task(self._exit_when_idle())

    async def get(self, bucket: Bucket, key: str) -> Entry | None:
        return await (await self._state()).get(bucket, key)

    async def put(self, bucket: Bucket, key: str, value: Any, ttl_s: float | None, expected: int | None) -> int:
        return await (await self._state()).put(bucket, key, value, ttl_s=ttl_s, expected=expected)

    async def delete(self, bucket: Bucket, key: str) -> None:
        await (await self._state()).delete(bucket, key)

    async def forget(self, scope_id: str, space: str) -> None:
        await (await self._state()).forget(scope_id, space)

    async def session(self, terms: SessionTerms, method: SessionMethod, place: Place, *args: Any) -> Any:
        """A method of LedgerSessions, on the run store that the caller's app has."""
        if terms not in self._sessions:
            self._sessions[terms] = LedgerSessions(self._store(terms.store), terms.ttl_s)
        return await getattr(self._sessions[terms], method)(place, *args)

    @ray.method(max_task_retries=0)  # whoever sent them passes a dead actor by at once, and sends them itself
    async def ledger(self, url: str, commands: Sequence[WireCommand]) -> list[WireAnswer]:
        """Reservations and settlements of a replica, on the run store at `url`."""
        if url not in self._commits:
            self._commits[url] = LedgerCommits(self._store(url))
        return await self._commits[url].commit(commands)

    def _store(self, url: str) -> RunStore:
        """One for all parts of this process, so that their commits are shared too."""
        if url not in self._stores:
            self._stores[url] = RunStore(self._stack, url)
        return self._stores[url]

    async def _state(self) -> StoredState:
        if self._opening is None:
            self._opening = asyncio.create_task(StoredState.open(open_database(MEMORY), SystemClock()))
        return await asyncio.shield(self._opening)

    async def _exit_when_idle(self) -> None:
        while (left := self._seen + self._idle_exit_s - time.monotonic()) > 0:  # noqa: ASYNC110 - heartbeats move it
            await asyncio.sleep(left)
        ray.kill(ray.get_runtime_context().current_actor)


def actor_name(app_name: str) -> str:
    return f"SessionLedger:{app_name}"


def session_ledger(app_name: str) -> Any:
    """The handle of the app's actor, which is started if nobody did so before."""
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=3)(SessionLedger)
    return actor.options(  # pyright: ignore[reportAttributeAccessIssue]
        name=actor_name(app_name), namespace=NAMESPACE, lifetime="detached", get_if_exists=True
    ).remote(IDLE_EXIT_S)


class LedgerCalls:
    """Calls to the app's actor, which is found, or started, at the first one and again after one that failed."""

    def __init__(self, app_name: str) -> None:
        self._app_name = app_name
        self._actor: Any = None

    async def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        """What the actor's method gives or raises on purpose. Raises LedgerAway where it does neither in time."""
        try:
            if self._actor is None:
                self._actor = session_ledger(self._app_name)
            async with asyncio.timeout(timeout_s):
                return await self._send(method, args)
        except RayTaskError as exc:
            # Its text is the actor's whole traceback; what the actor raised on purpose is its cause.
            if isinstance(exc.cause, AgentflowError):
                raise exc.cause from None
            raise LedgerAway("the shared actor of this flow failed; its log says why") from exc
        except (RayError, TimeoutError) as exc:
            self._actor = None
            raise LedgerAway("the shared actor of this flow does not answer; it is restarting, try again") from exc

    def _send(self, method: str, args: Sequence[Any]) -> Any:
        try:
            return getattr(self._actor, method).remote(*args)
        except (AttributeError, TypeError) as exc:  # it outlives the replicas of an older release
            raise LedgerAway("the shared actor of this flow is of another release", sent=False) from exc


class SharedState:
    """The StateBackend of a replica: every call goes to the app's actor."""

    def __init__(self, app_name: str) -> None:
        self._calls = LedgerCalls(app_name)

    async def get(self, bucket: Bucket, key: str) -> Entry | None:
        return await self._call("get", bucket, key)

    async def put(
        self, bucket: Bucket, key: str, value: Any, *, ttl_s: float | None, expected: int | None = None
    ) -> int:
        return await self._call("put", bucket, key, value, ttl_s, expected)

    async def delete(self, bucket: Bucket, key: str) -> None:
        await self._call("delete", bucket, key)

    async def forget(self, scope_id: str, space: str) -> None:
        await self._call("forget", scope_id, space, timeout_s=FORGET_TIMEOUT_S)

    async def heartbeat(self, keeping: Keeping | None = None) -> None:
        await self._call("heartbeat", keeping)

    async def _call(self, method: str, *args: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        try:
            return await self._calls.call(method, *args, timeout_s=timeout_s)
        except LedgerAway as exc:
            raise StateFailed(str(exc)) from exc
