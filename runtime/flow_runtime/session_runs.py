"""A run as a part of a session: the earlier turns are read before it, its own are kept before its answer leaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from flow_runtime.conversation import Conversation, Memories
from runtime_core.context import ExecutionContext
from runtime_core.errors import AgentflowError, StoreFullError
from runtime_core.report import ErrorCode, RunError, RunReport
from runtime_core.sessions.protocol import SessionStore

RETRY_AFTER_S = 1.0


async def run_in_session(
    sessions: SessionStore | None,
    memories: Memories,
    context: ExecutionContext,
    run: Callable[[Conversation], Awaitable[RunReport]],
) -> RunReport:
    """What `run` reports. A run that succeeded, and whose turns cannot be kept, has failed."""
    report = RunReport(run_id=context.run_id, trace_id=context.trace_id)
    if context.session_id is None:
        return _failed(report, "bad_input", "the flow remembers what was said: the request needs a session_id")
    if sessions is None:
        return _failed(report, "unavailable", "the flow remembers what was said, and nothing keeps sessions here")
    try:
        before = await sessions.read(scope_id=context.scope_id, session_id=context.session_id)
    except AgentflowError as exc:
        return _failed(report, "unavailable", f"the session cannot be read: {exc}")
    conversation = Conversation(memories, earlier=before.records)
    report = await run(conversation)
    records = conversation.to_keep()
    if report.error is not None or not records:
        return report
    try:
        await sessions.append(
            scope_id=context.scope_id, session_id=context.session_id, records=records, base=before.version
        )
    except StoreFullError as exc:
        return _failed(report, "session_full", str(exc))
    except AgentflowError as exc:
        return _failed(report, "unavailable", f"what was said cannot be kept: {exc}")
    return report


def _failed(report: RunReport, code: ErrorCode, message: str) -> RunReport:
    retry_after = RETRY_AFTER_S if code == "unavailable" else None
    return replace(report, output=None, error=RunError(code=code, message=message, retry_after=retry_after))
