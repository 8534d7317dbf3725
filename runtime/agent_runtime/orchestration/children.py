"""The operators that one operator runs: counted, bounded, timed, and ended with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from agent_runtime.errors import LimitReached
from agent_runtime.events.types import RuntimeEventType
from agent_runtime.orchestration.context import OperatorContext
from agent_runtime.orchestration.operators import Operator
from agent_runtime.orchestration.results import OperatorResult
from agentflow.errors import FlowError
from llm_client.cancellation import CancellationScope
from llm_client.errors import CallCancelled
from runtime_core.context import BudgetSpec
from runtime_core.errors import AgentflowError

log = logging.getLogger(__name__)

_NO_SCOPE = nullcontext()

CANCELLED = OperatorResult.failed("it was called off because another one failed", code="cancelled")
Call = tuple[str, Operator, Mapping[str, Any]]
"""A name, the operator, and its input."""


class Children:
    """One for each run of an operator that runs others. Raises LimitReached where its context is too deep already.

    `covered`: the caller runs inside a scope of the context's cancellation token.
    """

    def __init__(self, context: OperatorContext, *, covered: bool = False) -> None:
        self._context = context
        self._covered = covered or context.covered or not context.config.propagate_cancellation
        self._config = context.config
        self._slots = asyncio.Semaphore(self._config.at_a_time)
        self._started = 0
        if len(context.path) >= self._config.max_depth:
            raise LimitReached(
                f"'{'.'.join(context.path)}' is {len(context.path)} levels deep, and max_depth is "
                f"{self._config.max_depth}: raise it, or join fewer operators inside each other.",
                limit="max_depth",
                allowed=self._config.max_depth,
            )

    def expect(self, more: int) -> None:
        """Raises LimitReached, before any of them has started, if `more` children are too many."""
        most = self._config.max_child_jobs
        if self._started + more > most:
            name = self._context.path[-1] if self._context.path else "the operator"
            raise LimitReached(
                f"{name} would run {self._started + more} children, and max_child_jobs is {most}: "
                "raise it, or give it less to do.",
                limit="max_child_jobs",
                allowed=most,
            )

    async def run(
        self,
        name: str,
        operator: Operator,
        input_data: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        budgets: BudgetSpec | None = None,
        again: bool = False,
    ) -> OperatorResult:
        """What became of one child; a failure of the child is a result. `again` is another try of one that counts.

        Raises LimitReached; CallCancelled when the run is called off.
        """
        if not again:
            self.expect(1)
            self._started += 1
        async with self._slots:
            self._context.cancellation.raise_if_cancelled()
            child = self._context.child(name, budgets=budgets)
            doing = self._one if child.observe is None else self._told
            work = doing(child, operator, dict(input_data), timeout_s)
            return await (work if self._config.propagate_cancellation else _to_its_end(work))

    async def all(self, calls: Iterable[Call], *, stop_on_failure: bool = False) -> list[OperatorResult]:
        """Every child's result, in the order of the calls. With `stop_on_failure` one failure calls off the others."""
        calls = list(calls)
        self.expect(len(calls))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.run(*call)) for call in calls]
                if stop_on_failure:
                    for task in tasks:
                        task.add_done_callback(partial(_call_off, tasks))
        except BaseExceptionGroup as failed:
            raise _first(failed) from None
        return [CANCELLED if task.cancelled() else task.result() for task in tasks]

    def _scope(self) -> CancellationScope | nullcontext[None]:
        """Strikes the child when the token is cancelled, unless whoever waits for it is struck already."""
        return _NO_SCOPE if self._covered else self._context.cancellation.scope()

    async def _told(
        self, child: OperatorContext, operator: Operator, given: dict[str, Any], timeout_s: float | None
    ) -> OperatorResult:
        await child.tell(RuntimeEventType.OPERATOR_STARTED)
        result = await self._one(child, operator, given, timeout_s)
        if result.success:
            await child.tell(RuntimeEventType.OPERATOR_COMPLETED)
        else:
            await child.tell(RuntimeEventType.OPERATOR_FAILED, code=result.code, message=result.error)
        return result

    async def _one(
        self, child: OperatorContext, operator: Operator, given: dict[str, Any], timeout_s: float | None
    ) -> OperatorResult:
        result, use = await self._tried(child, operator, given, timeout_s), child.meter.use
        return result if result.use is use or result.use == use else replace(result, use=use)

    async def _tried(
        self, child: OperatorContext, operator: Operator, given: dict[str, Any], timeout_s: float | None
    ) -> OperatorResult:
        allowed, left = timeout_s or self._config.timeout_seconds, child.remaining_s()
        if left is not None and (allowed is None or left < allowed):
            allowed = left
        bound = asyncio.timeout(allowed)
        try:
            child.meter.check()
            async with bound, self._scope():
                result: object = await operator.execute(given, child)
        except TimeoutError as exc:
            message = f"it took longer than {allowed:g} s" if bound.expired() else str(exc) or "it timed out"
            return OperatorResult.failed(message, code="timeout", cause=exc)
        except CallCancelled as exc:
            if child.cancellation.is_cancelled:
                raise
            return OperatorResult.failed(str(exc), code=exc.code, cause=exc)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            return OperatorResult.failed("something that it waited for was cancelled", code="cancelled")
        except (AgentflowError, FlowError) as exc:
            return OperatorResult.failed(str(exc), code=getattr(exc, "code", "operator_failed"), cause=exc)
        except Exception as exc:  # an operator is foreign code
            log.exception("The operator %s failed in a way that nobody foresaw.", ".".join(child.path))
            return OperatorResult.failed(f"{type(exc).__name__}: {exc}", cause=exc)
        if isinstance(result, OperatorResult):
            return result
        return OperatorResult.failed(f"it returned {type(result).__name__}, and not an OperatorResult")


async def _to_its_end(work: Coroutine[Any, Any, OperatorResult]) -> OperatorResult:
    """Whoever is cancelled meanwhile waits for the work; cancelled once more, the work ends too."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


def _call_off(tasks: Sequence[asyncio.Task[OperatorResult]], done: asyncio.Task[OperatorResult]) -> None:
    if not done.cancelled() and done.exception() is None and not done.result().success:
        for task in tasks:
            task.cancel()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
