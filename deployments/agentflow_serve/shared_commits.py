"""The ledger's transactions as a replica reaches them: through the app's actor, or past it where it does not answer.

What a replica wants to commit while its last call to the actor is under way goes as one call, because a call takes two
milliseconds of processor time however little it says. One call at a time keeps the commands of an attempt in order.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from agent_runtime.ledger.decide import Refusal
from agent_runtime.ledger.records import Entry
from agentflow_serve.actor_or_store import MEMORY, ActorOrStore, Calls
from agentflow_serve.commit_wire import Command, command_to_wire, result_from_wire
from agentflow_serve.errors import LedgerAway
from agentflow_serve.ledger_commits import MOST_AT_ONCE, commit_together
from agentflow_serve.run_store import RunStore
from llm_client.detached import Detached
from runtime_core.call_log.keys import Claim, Completion
from runtime_core.call_log.records import Attempt, Ending, LoggedAttempt
from runtime_core.errors import StoreUnavailableError
from runtime_core.stores.database import Database
from runtime_core.stores.outcome import Done, Failed, Outcome, share
from runtime_core.stores.settle import settle

MOST_WAITING = 1024
"""Reservations that wait in a replica. Endings have no bound of their own: there is one for each call in flight."""
PATIENCE_S = 5.0
"""How long a reservation waits for a place among them."""
MOST_CHARS = 4 * 2**20
"""Of the answers in one call; the last one may go beyond it."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    command: Command
    answer: asyncio.Future[Any]


class SharedCommits:
    """The LedgerTransactions of a replica. `past` is the store itself, None where only the actor has it."""

    def __init__(
        self,
        calls: Calls,
        url: str,
        past: Database | None,
        *,
        most_waiting: int = MOST_WAITING,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._way = ActorOrStore(calls, past, what="model calls", clock=clock)
        self._places = asyncio.Semaphore(most_waiting)
        self._patience_s = patience_s
        self._waiting: deque[_Waiting] = deque()
        self._sending = False
        self._detached = Detached()

    @classmethod
    async def open(cls, stack: AsyncExitStack, calls: Calls, url: str, store: RunStore) -> SharedCommits:
        """Those of an app; what was begun has been committed when `stack` is closed."""
        commits = cls(calls, url, None if url == MEMORY else await store.database())
        stack.push_async_callback(commits.drain)
        return commits

    async def reserve(self, attempt: Attempt, entry: Entry) -> Refusal | None:
        """Raises StoreUnavailableError where too many others wait for too long; nothing was done then."""
        try:
            async with asyncio.timeout(self._patience_s):
                await self._places.acquire()
        except TimeoutError as exc:
            message = "Too many model calls wait to be counted; try again in a moment."
            raise StoreUnavailableError(message) from exc
        answer = self._enqueue(Command(attempt, entry))
        answer.add_done_callback(lambda _: self._places.release())
        return await asyncio.shield(answer)

    async def end(self, attempt: Attempt, ending: Ending, entry: Entry) -> LoggedAttempt:
        return await asyncio.shield(self._enqueue(Command(attempt, entry, ending)))

    async def end_with_claim(
        self, attempt: Attempt, ending: Ending, entry: Entry, *, claim: Claim, now: float
    ) -> Completion:
        return await asyncio.shield(self._enqueue(Command(attempt, entry, ending, claim, now)))

    async def drain(self) -> None:
        """Return when every command that was accepted has its answer."""
        await self._detached.drain()

    def _enqueue(self, command: Command) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(command, answer))
        if not self._sending:
            self._sending = True
            self._detached.start(self._send())
        return answer

    async def _send(self) -> None:
        """Until nothing waits any more; whatever happens, everybody gets an answer."""
        try:
            while self._waiting:
                sent = self._next()
                try:
                    outcomes = await self._committed([each.command for each in sent])
                except Exception as exc:  # noqa: BLE001 - it belongs to those who wait, not to this task
                    outcomes = share(exc, len(sent))
                for each, outcome in zip(sent, outcomes, strict=True):
                    settle(each.answer, outcome)
        finally:
            self._sending = False

    def _next(self) -> list[_Waiting]:
        sent: list[_Waiting] = []
        size = 0
        while self._waiting and len(sent) < MOST_AT_ONCE and size < MOST_CHARS:
            sent.append(self._waiting.popleft())
            ending = sent[-1].command.ending
            size += len(ending.answer or "") if ending is not None else 0
        return sent

    async def _committed(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        try:
            answers = await self._way.ask("ledger", self._url, [command_to_wire(command) for command in commands])
        except LedgerAway as exc:
            return await commit_together(self._way.without(exc), commands, sent=exc.sent)
        return [
            Done(result_from_wire(command, said)) if fine else Failed(said)
            for command, (fine, said) in zip(commands, answers, strict=True)
        ]
