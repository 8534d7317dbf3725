"""The ledger part of the shared actor: one bounded queue for all replicas, and one commit for all that waits in it.

Commits run in a task of their own with an empty context, so no client that leaves can interrupt one. Every command
may come again, because the actor may die before its commit or after it, and whoever sent it then tells another.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent_runtime.ledger.transactions import prepare_ledger
from agentflow_serve.commit_wire import Command, WireAnswer, WireCommand, command_from_wire, result_to_wire
from agentflow_serve.run_store import RunStore
from runtime_core.errors import StoreUnavailableError
from runtime_core.stores.database import Database
from runtime_core.stores.failpoints import failpoint
from runtime_core.stores.joint import Apart, Share, apart, joined, together
from runtime_core.stores.outcome import Done, Failed, Outcome, share
from runtime_core.stores.scope import in_scopes

MOST_AT_ONCE = 256
"""Commands of one call; a commit has fewer than twice as many, because longer ones keep other writers waiting."""
MOST_CALLS = 32
"""Calls that wait for the commit before theirs."""
PATIENCE_S = 1.5
"""How long a call waits for a place among them: less than its caller waits for the answer."""


@dataclass(frozen=True, slots=True)
class _Call:
    commands: Sequence[Command]
    answer: asyncio.Future[list[WireAnswer]]


class LedgerCommits:
    """Commits commands to the run store; opened at the first call."""

    def __init__(self, store: RunStore, *, most_calls: int = MOST_CALLS, patience_s: float = PATIENCE_S) -> None:
        self._store = store
        self._patience_s = patience_s
        self._queue: asyncio.Queue[_Call] = asyncio.Queue(most_calls)
        self._worker: asyncio.Task[None] | None = None
        self._database: Database | None = None

    async def commit(self, commands: Sequence[WireCommand]) -> list[WireAnswer]:
        """One answer for each command, in order; what was accepted is durable.

        Raises StoreUnavailableError where there is no place in the queue for too long: nothing was done then.
        """
        answer: asyncio.Future[list[WireAnswer]] = asyncio.get_running_loop().create_future()
        call = _Call([command_from_wire(command) for command in commands], answer)
        try:
            async with asyncio.timeout(self._patience_s):
                self._begin_work()  # before it waits for a place, too: somebody has to make one
                await self._queue.put(call)
        except TimeoutError as exc:
            message = "More model calls are to be counted than the run store can commit; try again in a moment."
            raise StoreUnavailableError(message) from exc
        self._begin_work()
        return await asyncio.shield(call.answer)

    async def aclose(self) -> None:
        """Return when what was accepted is committed."""
        if self._worker is not None:
            await self._worker

    def _begin_work(self) -> None:
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work(), context=contextvars.Context())

    async def _work(self) -> None:
        """Until nothing waits any more."""
        while not self._queue.empty():
            calls = [self._queue.get_nowait()]
            count = len(calls[0].commands)
            while not self._queue.empty() and count < MOST_AT_ONCE:
                calls.append(self._queue.get_nowait())
                count += len(calls[-1].commands)
            await self._commit(calls)

    async def _commit(self, calls: Sequence[_Call]) -> None:
        commands = [command for call in calls for command in call.commands]
        try:
            said = list(map(_answer, commands, await self._outcomes(commands)))
        except Exception as exc:  # noqa: BLE001 - it belongs to the callers, not to this task
            said = list(map(_answer, commands, share(exc, len(commands))))
        answers = iter(said)
        for call in calls:
            call.answer.set_result([next(answers) for _ in call.commands])

    async def _outcomes(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        database = await self._opened()
        failpoint("ledger.before_commit")
        outcomes = await commit_together(database, commands)
        failpoint("ledger.after_commit_before_ack")
        return outcomes

    async def _opened(self) -> Database:
        if self._database is None:
            database = await self._store.database()
            await prepare_ledger(database)
            self._database = database
        return self._database


async def commit_together(database: Database, commands: Sequence[Command], *, sent: bool = False) -> list[Outcome]:
    """The outcome of each command, all in one transaction; one that fails does not take the others with it.

    `sent`: they were sent to an actor that did not answer, which may run them later.
    """
    factories = [command.op_factory(sent=sent) for command in commands]

    async def committed(shares: Sequence[Share]) -> list[Outcome]:
        op_factory = in_scopes((each.attempt.scope_id for each in commands), lambda: together(shares))
        return [Done(result) for result in await database.run(op_factory)]

    try:
        try:
            return await committed(joined(factories))
        except Apart:
            return await committed(apart(factories))
    except StoreUnavailableError as exc:
        return share(exc, len(commands))
    except Exception as exc:  # noqa: BLE001 - one command's own; it belongs to its caller
        if len(commands) == 1:
            return [Failed(exc)]
    results = await asyncio.gather(*map(database.run, factories), return_exceptions=True)
    return [_outcome(result) for result in results]


def _outcome(result: Any) -> Outcome:
    return Failed(result) if isinstance(result, BaseException) else Done(result)


def _answer(command: Command, outcome: Outcome) -> WireAnswer:
    return (True, result_to_wire(command, outcome.value)) if isinstance(outcome, Done) else (False, outcome.error)
