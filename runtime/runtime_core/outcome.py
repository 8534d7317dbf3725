"""What a node made of one dispatch: what the loop receives from wherever the node ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentflow.failure import Failure
from runtime_core.report import NO_USE, ModelUse
from runtime_core.sessions.records import SessionRecord


@dataclass(frozen=True, slots=True)
class NodeOutcome:
    """What a node made of one dispatch: its outputs by port, or the failure left after all attempts.

    `use` is what its model calls took, those of failed attempts included. `records` are the turns of its prompt,
    where a node of the run remembers.
    """

    outputs: Mapping[str, Any] | None = None
    failure: Failure | None = None
    attempts: int = 1
    use: ModelUse = NO_USE
    records: tuple[SessionRecord, ...] = ()
