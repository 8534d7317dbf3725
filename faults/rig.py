"""What the scenarios that need no cluster share: an engine with its ledger, stores to keep it in, and their end."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from agent_runtime import Budget, EngineLedger, Ledger
from agent_runtime.ledger.writers import SqlLedgerWriter
from faults.books import Books, Rates
from faults.reading import attempts_so_far, keep_history, read_books
from llm_client import EmbeddingSpec, ExecutionEngine, HubRouter, RequestContext, RequestSpec, RetryPolicy
from llm_client.providers.protocol import Target
from llm_client.retry import NO_RETRY
from llmhub_runtime import LLMHub, parse_runtime_config
from llmhub_runtime.sim import LogEntry, SimProcess, SimServer
from runtime_core.clock import Clock, SystemClock
from runtime_core.stores import Database, open_database
from support.postgres import PostgresServer, postgres_server
from support.processes import forked

SCOPE = "tenant-1"
ROLE = "writer"
RATES: Mapping[str, Rates] = {"m": Rates(Decimal("2.5"), Decimal("10")), "e": Rates(Decimal("0.3"), Decimal("0"))}


class ShiftedClock(SystemClock):
    """A wall clock that is `shift_s` off; time passes on it as everywhere."""

    def __init__(self, shift_s: float) -> None:
        self._shift = timedelta(seconds=shift_s)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._shift


@dataclass(frozen=True, slots=True)
class Desk:
    """An engine that spends from a ledger; `accounts` are its guard and its log."""

    engine: ExecutionEngine
    accounts: EngineLedger
    database: Database


def hub_on(base: str) -> LLMHub:
    """A role for texts and one for embeddings, at the simulated model, with the prices of RATES."""
    roles = {
        ROLE: {"provider": "sim", "model": "m", "mode": "chat", "price": {"input": "2.5", "output": "10"}},
        "embed": {"provider": "sim", "model": "e", "mode": "embedding", "price": {"input": "0.3", "output": "0"}},
    }
    document = {"project": "faults", "env": "test", "providers": {"sim": {"api_base": base}}, "roles": roles}
    return LLMHub(config_obj=parse_runtime_config(document))


@asynccontextmanager
async def desk(
    url: str, base: str, *, clock: Clock | None = None, retry: RetryPolicy = NO_RETRY, **options: Any
) -> AsyncIterator[Desk]:
    """On the store at `url` and the simulated model at `base`."""
    clock = clock or SystemClock()
    async with open_database(url) as database, hub_on(base) as hub:
        router = HubRouter(hub)
        accounts = EngineLedger(database, router=router, clock=clock)
        async with ExecutionEngine(
            router=router, guard=accounts.guard, log=accounts.log, retry=retry, clock=clock, **options
        ) as engine:
            yield Desk(engine, accounts, database)


def open_books(url: str, *budgets: Budget, clock: Clock | None = None) -> None:
    """Tables, budgets, and a history of the counters from here on."""

    async def work() -> None:
        async with open_database(url) as database:
            await _log_of(database, clock).prepare()
            await keep_history(database)

    asyncio.run(work())
    set_budgets(url, *budgets, clock=clock)


def set_budgets(url: str, *budgets: Budget, clock: Clock | None = None) -> None:
    """In a store that has its tables."""

    async def work() -> None:
        async with open_database(url) as database:
            ledger = Ledger(SqlLedgerWriter(database), clock=clock)
            for budget in budgets:
                await ledger.set_budget(budget)

    asyncio.run(work())


def close_books(url: str, requests: Sequence[LogEntry], *, clock: Clock, scope_id: str = SCOPE) -> Books:
    """Let every lease that has run out by `clock` lapse, and read what there is."""

    async def work() -> Books:
        async with open_database(url) as database:
            log = _log_of(database, clock)
            while await log.expire(limit=1000):
                pass
            return await read_books(database, requests, scope_id=scope_id, rates=RATES)

    return asyncio.run(work())


def count_attempts(url: str, scope_id: str) -> int:
    """Rows of the call log so far."""

    async def work() -> int:
        async with open_database(url) as database:
            return await attempts_so_far(database, scope_id)

    return asyncio.run(work())


def _log_of(database: Database, clock: Clock | None) -> Any:
    model: Any = _NoModel()
    return EngineLedger(database, provider=model, clock=clock or SystemClock()).log


class _NoModel:
    """Where nothing is asked, only the name matters."""

    target = Target(role=ROLE, provider="sim", model="m")


def seen(sim: SimProcess) -> int:
    """The number of the last request in the simulated model's log."""
    with sim.control() as control:
        return control.health()["requests"]


def requests_since(sim: SimProcess, number: int, *, within_s: float = 30.0) -> list[LogEntry]:
    """The log's requests after that one, once none of them is being answered any more."""
    give_up = time.monotonic() + within_s
    with sim.control() as control:
        while True:
            entries = control.log(since=number)
            if all(entry.outcome != "open" for entry in entries) or time.monotonic() > give_up:
                return entries
            time.sleep(0.05)


class Stores:
    """New stores of both kinds; the PostgreSQL server starts with the first one that is asked for."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._server: PostgresServer | None = None
        self._count = 0

    def fresh(self, kind: str) -> str:
        """The address of a new, empty store."""
        self._count += 1
        if kind == "sqlite":
            return f"sqlite:///{self._folder}/{self._count}.db"
        if self._server is None:
            self._server = self._stack.enter_context(postgres_server())
        return asyncio.run(self._server.fresh_url())


@contextmanager
def stores(folder: Path) -> Iterator[Stores]:
    with ExitStack() as stack:
        yield Stores(folder, stack)


def warm_up() -> None:
    """What every process would otherwise import, build and cache for itself: one call of each kind."""

    async def work(folder: str) -> None:
        question = RequestSpec.of("Is anybody there?", role=ROLE, max_tokens=1)
        context = RequestContext(tenant_id=SCOPE)
        async with SimServer() as sim, desk(f"sqlite:///{folder}/warm.db", sim.openai_base) as place:
            await place.engine.complete(question, context=context)
            async for _ in place.engine.stream(question, context=context):
                pass
            await place.engine.embed(EmbeddingSpec(inputs=("anybody",), role="embed"), context=context)

    with tempfile.TemporaryDirectory(prefix="af-") as folder:
        asyncio.run(work(folder))
    gc.freeze()  # what is forked from here shares these objects as long as nobody touches them


class Crew:
    """Processes forked from this one; those that still run at the end are ended."""

    def __init__(self) -> None:
        self.alive: set[int] = set()

    def fork(self, work: Coroutine[Any, Any, None]) -> int:
        child = forked(work)
        self.alive.add(child)
        return child

    def kill(self, child: int) -> None:
        """With -9, and it is gone when this returns."""
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self.alive.discard(child)

    def wait(self, within_s: float = 120) -> list[int]:
        """Until all have ended; how, negative for a signal. One that hangs is killed when the time is up."""
        give_up, ends = time.monotonic() + within_s, list[int]()
        for child in tuple(self.alive):
            while not (ended := os.waitpid(child, os.WNOHANG))[0]:
                if time.monotonic() > give_up:
                    os.kill(child, signal.SIGKILL)
                time.sleep(0.01)
            ends.append(os.waitstatus_to_exitcode(ended[1]))
            self.alive.discard(child)
        return ends

    def ended(self) -> set[int]:
        """Those that have ended by themselves since this was last asked."""
        gone = {child for child in self.alive if os.waitpid(child, os.WNOHANG)[0]}
        self.alive -= gone
        return gone


@contextmanager
def crew() -> Iterator[Crew]:
    them = Crew()
    try:
        yield them
    finally:
        for child in tuple(them.alive):
            them.kill(child)


class Said:
    """What processes tell as JSON lines of one file; a line is there as a whole or not at all."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.touch()

    def say(self, **facts: Any) -> None:
        with self._file.open("ab", buffering=0) as out:
            out.write(json.dumps(facts).encode() + b"\n")

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._file.read_bytes().splitlines()]
