"""Runs the requests of one batch side by side: all of them have an answer, or none has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from agentflow_serve.call import Admitted, CallMeta, FlowRunner
from agentflow_serve.codec import check_output
from agentflow_serve.errors import RunFailed, run_failed
from runtime_core.report import NO_USE, ModelUse, RunReport


async def run_batch(
    runner: FlowRunner, requests: Sequence[dict[str, Any]], *, admitted: Admitted | None, rows: str
) -> tuple[list[Any], ModelUse]:
    """The outputs, in the order of the requests, and what their model calls took together.

    The first run to fail cancels the others and is raised as RunFailed; of runs that fail at the same moment,
    the one with the lowest index. `rows` is what the client calls its requests: "instances" or "row".
    """
    total = len(requests)

    async def run(index: int) -> RunReport:
        call = admitted.call(index, of=total) if admitted is not None else CallMeta()
        prefix = f"{rows}[{index}]: " if total > 1 else ""
        return await _run(runner, requests[index], call, prefix=prefix)

    if total == 1:
        report = await run(0)
        return [report.output], report.use
    tasks: list[asyncio.Task[RunReport]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks.extend(group.create_task(run(index)) for index in range(total))
    except* RunFailed as failed:
        raise_first = failed
    else:
        reports = [task.result() for task in tasks]
        return [report.output for report in reports], sum((report.use for report in reports), NO_USE)
    raise _first(tasks) from raise_first


async def _run(runner: FlowRunner, request: dict[str, Any], call: CallMeta, *, prefix: str) -> RunReport:
    report = await runner.run(request, call)
    if report.error is not None:
        raise run_failed(report.error, report, prefix=prefix)
    check_output(report.output, trace_id=report.trace_id)
    return report


def _first(tasks: Sequence[asyncio.Task[RunReport]]) -> RunFailed:
    errors = (task.exception() for task in tasks if task.done() and not task.cancelled())
    return next(error for error in errors if isinstance(error, RunFailed))
