"""The state of nodes: buckets of values for one run or across runs (IR.md section 2 and Q22, Q23).

A bucket belongs to (scope_id, state scope, resolved key); nodes whose keys resolve alike share it. Values
are JSON. The last write wins; `update` is a compare-and-set and loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentflow.ir import State
from agentflow.state_keys import compile_state_key
from flow_runtime.call import NodeCall
from flow_runtime.errors import StateFailed
from runtime_core.clock import Clock
from runtime_core.context import ExecutionContext
from runtime_core.errors import StoreConflictError
from runtime_core.stores.database import Database
from runtime_core.stores.keyed import Bucket, Entry, KeyedStore

SESSION_SPACE = "session"
REQUEST_TTL_S = 24 * 3600.0
"""A run's own buckets go when it ends; this is for runs that died."""
UPDATE_ROUNDS = 100
SWEEP_EVERY = 64
SWEEP_LIMIT = 512


class StateBackend(Protocol):
    """Where buckets are kept. Session buckets are in the space `session`, those of a run in a space named by it.

    Every method may raise StoreError or StateFailed.
    """

    async def get(self, bucket: Bucket, key: str) -> Entry | None: ...

    async def put(
        self, bucket: Bucket, key: str, value: Any, *, ttl_s: float | None, expected: int | None = None
    ) -> int:
        """Write and return the new version; with `expected` (0: absent) only over that one, else StoreConflictError."""
        ...

    async def delete(self, bucket: Bucket, key: str) -> None: ...

    async def forget(self, scope_id: str, space: str) -> None:
        """Drop every bucket of a space."""
        ...


class StoredState:
    """A StateBackend on a database of runtime_core, which stays its caller's to close."""

    def __init__(self, store: KeyedStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._writes = 0

    @classmethod
    async def open(cls, database: Database, clock: Clock) -> StoredState:
        store = KeyedStore(database)
        await store.prepare()
        return cls(store, clock)

    async def get(self, bucket: Bucket, key: str) -> Entry | None:
        return await self._store.get(bucket, key, now=self._now())

    async def put(
        self, bucket: Bucket, key: str, value: Any, *, ttl_s: float | None, expected: int | None = None
    ) -> int:
        await self._clean_up()
        if expected is None:
            return await self._store.set(bucket, key, value, now=self._now(), ttl_s=ttl_s)
        return await self._store.compare_and_set(
            bucket, key, value, expected_version=expected, now=self._now(), ttl_s=ttl_s
        )

    async def delete(self, bucket: Bucket, key: str) -> None:
        await self._store.delete(bucket, key)

    async def forget(self, scope_id: str, space: str) -> None:
        await self._store.delete_space(scope_id, space)

    async def _clean_up(self) -> None:
        """Free expired buckets as fast as new ones can come, so that ids made up by callers cannot fill the store."""
        self._writes += 1
        if self._writes % SWEEP_EVERY == 0:
            await self._store.sweep(now=self._now(), limit=SWEEP_LIMIT)

    def _now(self) -> float:
        return self._clock.now().timestamp()


class NodeState:
    """What a code transform gets as `state`."""

    def __init__(self, backend: StateBackend, bucket: Bucket, *, ttl_s: float | None) -> None:
        self._backend = backend
        self._bucket = bucket
        self._ttl_s = ttl_s

    async def get(self, key: str, default: Any = None) -> Any:
        entry = await self._backend.get(self._bucket, key)
        return default if entry is None else entry.value

    async def set(self, key: str, value: Any) -> None:
        await self._backend.put(self._bucket, key, value, ttl_s=self._ttl_s)

    async def delete(self, key: str) -> None:
        await self._backend.delete(self._bucket, key)

    async def update(self, key: str, change: Callable[[Any], Any], default: Any = None) -> Any:
        """Set `key` to `change(its value)` and return that; `change` runs again when another writer was first."""
        for _ in range(UPDATE_ROUNDS):
            entry = await self._backend.get(self._bucket, key)
            value = change(default if entry is None else entry.value)
            expected = 0 if entry is None else entry.version
            try:
                await self._backend.put(self._bucket, key, value, ttl_s=self._ttl_s, expected=expected)
            except StoreConflictError:
                continue
            return value
        raise StateFailed(f"state key '{key}' changed {UPDATE_ROUNDS} times while it was being updated; try again")


class NoState:
    """Stands for the state of a node that declares none, so that the error says what to do."""

    def __init__(self, node: str) -> None:
        self._node = node

    def __getattr__(self, name: str) -> Any:
        raise StateFailed(f"node '{self._node}' has no state; declare `state: {{scope, key}}` in the flow")


class NodeStates:
    """Opens the state of one node for one call after another; the bucket's name is compiled once."""

    def __init__(
        self,
        node: str,
        state: State,
        *,
        input_names: Collection[str],
        context_names: Collection[str],
        backends: StateBackends,
    ) -> None:
        self._node = node
        self._state = state
        self._key = compile_state_key(state.key, input_names, context_names)
        self._backend = backends.backend(state.backend)

    def open(self, inputs: Mapping[str, Any], call: NodeCall) -> NodeState:
        in_run = self._state.scope == "request"
        bucket = Bucket(
            scope_id=call.context.scope_id,
            space=call.context.run_id if in_run else SESSION_SPACE,
            name=self._key.resolve(inputs, call.fields, self._node),
        )
        return NodeState(self._backend, bucket, ttl_s=REQUEST_TTL_S if in_run else self._state.ttl_seconds)


@dataclass(frozen=True, slots=True)
class StateBackends:
    """The backends of a process by the name that the flow file gives them."""

    by_name: Mapping[str, StateBackend] = field(default_factory=dict[str, StateBackend])

    def backend(self, name: str) -> StateBackend:
        try:
            return self.by_name[name]
        except KeyError:
            known = ", ".join(self.by_name) or "none"
            raise StateFailed(f"there is no state backend '{name}' here; this process has: {known}") from None

    async def forget_run(self, context: ExecutionContext) -> None:
        """Drop the buckets of a run that has ended."""
        for backend in self.by_name.values():
            await backend.forget(context.scope_id, context.run_id)
