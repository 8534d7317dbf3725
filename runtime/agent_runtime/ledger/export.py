"""Events for a spreadsheet or another program."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable

from agent_runtime.ledger.records import LedgerEvent

_FIELDS = tuple(LedgerEvent.model_fields)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_json(events: Iterable[LedgerEvent]) -> str:
    """One array; money in millionths of a dollar, times in ISO 8601."""
    return json.dumps([event.model_dump(mode="json") for event in events], ensure_ascii=False)


def as_csv(events: Iterable[LedgerEvent]) -> str:
    """One line for each event, after a line of names. A text that a spreadsheet would run as a formula gets a `'`."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(_FIELDS)
    for event in events:
        facts = event.model_dump(mode="json")
        rows.writerow(cell(facts[name]) for name in _FIELDS)
    return out.getvalue()


def cell(value: object) -> object:
    """A value as a spreadsheet may read it: None is empty, and no text is a formula."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return "" if value is None else value
