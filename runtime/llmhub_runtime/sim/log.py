"""The record of every request: written before the answer begins, completed when it has ended.

In memory the newest entries are kept; with a file, two JSON lines per request are appended, the first one
flushed before the answer, so that a killed server leaves it behind. A request that cannot be recorded is
not answered.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, JsonValue

from llmhub_runtime.sim.delivery import Outcome, Progress
from llmhub_runtime.sim.request import Usage
from llmhub_runtime.sim.strict_json import parse_json

DEFAULT_LIMIT = 100_000
_SECRET = ("key", "token", "secret", "auth", "password", "cookie")


class LoggedUsage(BaseModel):
    """Token counts as they were reported to the client."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt_tokens: int
    completion_tokens: int


class LogEntry(BaseModel):
    """One request. `usage` is what the client was told (None if nothing); `prompt_tokens` and
    `completion_tokens_sent` are the server's own count of what it read and of what left it.
    `rule` is the index of the rule that decided; `status` is None while nothing was sent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seq: int
    time: datetime
    method: str
    path: str
    kind: str
    model: str | None = None
    role: str | None = None
    attempt_id: str | None = None
    headers: dict[str, str] = {}
    messages_hash: str | None = None
    request: JsonValue = None
    stream: bool = False
    rule: int | None = None
    decided: str
    prompt_tokens: int | None = None
    status: int | None = None
    usage: LoggedUsage | None = None
    completion_tokens_sent: int = 0
    outcome: Outcome = "open"
    duration_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """What is known about a request before it is answered."""

    seq: int
    time: float
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    kind: str = "other"
    model: str | None = None
    role: str | None = None
    messages_hash: str | None = None
    stream: bool = False
    rule: int | None = None
    decided: str = "answer"
    prompt_tokens: int | None = None
    usage: Usage | None = None


@dataclass(slots=True)
class Record:
    """A request in the log; `progress` is filled in while it is answered."""

    received: Received
    progress: Progress = field(default_factory=Progress)
    duration_ms: float | None = None

    def entry(self) -> LogEntry:
        received = self.received
        return LogEntry(
            seq=received.seq,
            time=datetime.fromtimestamp(received.time, UTC),
            method=received.method,
            path=received.path,
            kind=received.kind,
            model=received.model,
            role=received.role,
            attempt_id=received.headers.get("x-attempt-id"),
            headers=_extension_headers(received.headers),
            messages_hash=received.messages_hash,
            request=_readable(received.body),
            stream=received.stream,
            rule=received.rule,
            decided=received.decided,
            prompt_tokens=received.prompt_tokens,
            **self.outcome(),
        )

    def outcome(self) -> dict[str, Any]:
        """The part that is known only afterwards."""
        progress, usage = self.progress, self.received.usage
        told = asdict(usage) if usage is not None and progress.told_usage else None
        return {
            "status": progress.status,
            "usage": told,
            "completion_tokens_sent": progress.tokens_sent,
            "outcome": progress.outcome,
            "duration_ms": self.duration_ms,
        }


class RequestLog:
    """The newest `limit` records, and the file if there is one. Belongs to one event loop."""

    def __init__(self, *, path: str | Path | None = None, limit: int = DEFAULT_LIMIT) -> None:
        self._records: deque[Record] = deque(maxlen=limit)
        self._file: BinaryIO | None = None
        if path is not None:
            self._file = Path(path).open("ab")  # noqa: SIM115 - open as long as the log is
        self._last_seq = 0

    def next_seq(self) -> int:
        self._last_seq += 1
        return self._last_seq

    @property
    def last_seq(self) -> int:
        return self._last_seq

    def open(self, received: Received) -> Record:
        """Record a request. Raises OSError when the file cannot be written."""
        record = Record(received)
        if self._file is not None:
            self._append({"event": "request", **record.entry().model_dump(mode="json")})
        self._records.append(record)
        return record

    def finish(self, record: Record, *, duration_ms: float) -> None:
        record.duration_ms = round(duration_ms, 3)
        if self._file is not None:
            self._append({"event": "answer", "seq": record.received.seq, **record.outcome()})

    def entries(self, *, since: int = 0) -> list[LogEntry]:
        """Entries with a `seq` above `since`, oldest first."""
        return [record.entry() for record in self._records if record.received.seq > since]

    def clear(self) -> None:
        """Forget the entries in memory; `seq` goes on, and the file keeps everything."""
        self._records.clear()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, line: dict[str, object]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
            self._file.flush()


def read_log_file(path: str | Path) -> list[LogEntry]:
    """The entries of a log file, each with its outcome if it was reached. A torn last line is left out."""
    entries: list[LogEntry] = []
    places: dict[int, int] = {}
    for line in Path(path).read_bytes().split(b"\n")[:-1]:
        record = json.loads(line)
        event = record.pop("event")
        if event == "request":
            places[record["seq"]] = len(entries)
            entries.append(LogEntry.model_validate(record))
        else:
            place = places[record["seq"]]
            entries[place] = LogEntry.model_validate(entries[place].model_dump() | record)
    return entries


def _extension_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Every x-* header; what looks like a credential without its value."""
    return {
        name: "***" if any(word in name for word in _SECRET) else value
        for name, value in headers.items()
        if name.startswith("x-")
    }


def _readable(body: bytes) -> JsonValue:
    if not body:
        return None
    try:
        return parse_json(body)
    except ValueError:
        return body.decode("utf-8", "replace")
