"""Why a node failed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from agentflow.ir import FailureKind, FailureType


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a node failed, after all its attempts and fallbacks. `attempts` is 0 when it could not even start.

    `retry_after` (seconds) is set when the last attempt met a rate limit.
    """

    reason: str
    kind: FailureType = "error"
    attempts: int = 0
    retry_after: float | None = None

    def is_of(self, kinds: Collection[FailureKind]) -> bool:
        """Whether `retry_on` or `fallback.on` means it. What was not found is an error like others."""
        return ("error" if self.kind == "not_found" else self.kind) in kinds

    def payload(self, node: str) -> dict[str, Any]:
        """What the node's error port carries (IR.md Q18)."""
        return {"reason": self.reason, "node": node, "type": self.kind, "attempts": self.attempts}
