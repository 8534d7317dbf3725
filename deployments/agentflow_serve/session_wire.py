"""Records of sessions as they cross to the shared actor and back: JSON text, which Ray copies without looking in."""

from __future__ import annotations

from collections.abc import Iterable

from runtime_core.sessions.records import SessionRecord

WireRecords = tuple[str, ...]


def records_to_wire(records: Iterable[SessionRecord]) -> WireRecords:
    return tuple(record.model_dump_json(exclude_defaults=True) for record in records)


def records_from_wire(wire: WireRecords) -> tuple[SessionRecord, ...]:
    return tuple(map(SessionRecord.model_validate_json, wire))
