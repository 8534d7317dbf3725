"""What the nodes of one run remember: the session's turns before it, and the turns of the run itself.

The records travel with the run: each call takes along those that its node sees, each outcome brings those that the
node made. The session's store is read when the run begins and appended to when it has an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from agentflow.memory import MemoryPlan
from flow_runtime.errors import SessionFailed
from runtime_core.errors import AgentflowError
from runtime_core.ids import IdSource
from runtime_core.sessions.protocol import SessionRead, SessionStore
from runtime_core.sessions.records import RecordUsage, Role, SessionRecord

Records = tuple[SessionRecord, ...]


class RunMemory:
    """The turns of one run. `earlier` are those of the session before it."""

    def __init__(self, planned: MemoryPlan, earlier: SessionRead, keeps_for: str | None) -> None:
        self._plan = planned
        self._earlier = earlier
        self._kept_for = keeps_for
        self._made: dict[str, Records] = {}

    def seen_by(self, node: str) -> Records:
        """The records that precede a node's prompt: in topological order, whatever order the nodes ended in."""
        if node not in self._plan.sees:
            return ()
        earlier = self._earlier.records if node in self._plan.keeps else ()
        return (*earlier, *chain.from_iterable(self._made.get(name, ()) for name in self._plan.sees[node]))

    def add(self, node: str, records: Records) -> None:
        """What a node said; of a node that ran twice, what it said last."""
        self._made[node] = records

    def kept(self) -> Records:
        """What the session gets, in topological order."""
        return tuple(chain.from_iterable(self._made.get(node, ()) for node in self._plan.keeps))

    async def commit(self, store: SessionStore | None, scope_id: str) -> None:
        """Append what the session gets. Raises SessionFailed."""
        records = self.kept()
        if store is not None and self._kept_for is not None and records:
            try:
                await store.append(
                    scope_id=scope_id, session_id=self._kept_for, records=records, base=self._earlier.version
                )
            except AgentflowError as exc:
                raise _failed("kept", self._kept_for, exc) from exc


async def remembered(
    planned: MemoryPlan, store: SessionStore | None, *, scope_id: str, session_id: str | None
) -> RunMemory:
    """The memory of a run that begins: of the session that its request names, if a node remembers it.

    Raises SessionFailed.
    """
    keeps_for = session_id if planned.keeps else None
    earlier = SessionRead(0)
    if store is not None and keeps_for is not None:
        try:
            earlier = await store.read(scope_id=scope_id, session_id=keeps_for)
        except AgentflowError as exc:
            raise _failed("read", keeps_for, exc) from exc
    return RunMemory(planned, earlier, keeps_for)


def _failed(what: str, session_id: str, error: AgentflowError) -> SessionFailed:
    return SessionFailed(f"the session '{session_id}' could not be {what}: {error}", session_id=session_id)


def turn_records(
    *,
    run_id: str,
    node: str,
    ids: IdSource,
    asked: str,
    between: Sequence[Mapping[str, Any]],
    answer: str,
    usage: Mapping[str, int],
) -> Records:
    """The records of one turn. `between` are the messages of the tools that ran before the answer."""

    def record(role: Role, text: str, **more: Any) -> SessionRecord:
        return SessionRecord(record_id=ids.new("rec"), run_id=run_id, role=role, text=text, node=node, **more)

    told = [
        record(
            message["role"],
            message.get("content") or "",
            tool_calls=tuple(message.get("tool_calls") or ()),
            tool_call_id=message.get("tool_call_id"),
        )
        for message in between
    ]
    counts = (
        RecordUsage(input_tokens=usage.get("input", 0), output_tokens=usage.get("output", 0))
        if any(usage.values())
        else None
    )
    return (record("user", asked), *told, record("assistant", answer, usage=counts))
