"""A session store in this process, as small as its contract."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from runtime_core.sessions.protocol import SessionRead
from runtime_core.sessions.records import SessionRecord


class MemorySessions:
    """Keeps records in lists. `appended` counts the appends."""

    def __init__(self) -> None:
        self.sessions: defaultdict[tuple[str, str], list[SessionRecord]] = defaultdict(list)
        self.appended = 0

    async def read(self, *, scope_id: str, session_id: str, since: int = 0) -> SessionRead:
        records = self.sessions.get((scope_id, session_id), [])
        return SessionRead(len(records), tuple(records[since:]))

    async def append(self, *, scope_id: str, session_id: str, records: Sequence[SessionRecord], base: int) -> int:
        self.appended += 1
        kept = self.sessions[scope_id, session_id]
        known = {record.record_id for record in kept}
        kept += [record for record in records if record.record_id not in known]
        return len(kept)
