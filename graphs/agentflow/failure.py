"""Why a node failed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from agentflow.ir import FailureKind, FailureType


@dataclass(frozen=True, slots=True)
class Refused:
    """What a budget or a policy said no for, in words for programs.

    `reason` is `budget_exceeded`; `too_large` for what would not fit an unspent budget either; `no_price` for a budget
    in money over a model without a price; `run_over` for a run whose budget is gone; or a policy's effect. `limit` and
    `window` name the limit of a budget, such as `max_tokens_daily` and `daily`.
    """

    reason: str
    limit: str | None = None
    window: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a node failed, after all its attempts and fallbacks. `attempts` is 0 when it could not even start.

    `retry_after` (seconds) is set when the last attempt met a rate limit. `refused` says more where the kind is
    `budget_exceeded` or `policy_denied`; such a failure is of no kind that is tried again.
    """

    reason: str
    kind: FailureType = "error"
    attempts: int = 0
    retry_after: float | None = None
    refused: Refused | None = None

    def is_of(self, kinds: Collection[FailureKind]) -> bool:
        """Whether `retry_on` or `fallback.on` means it. What was not found, or is away, is an error like others."""
        return ("error" if self.kind in ("not_found", "unavailable") else self.kind) in kinds

    def payload(self, node: str) -> dict[str, Any]:
        """What the node's error port carries (IR.md Q18)."""
        payload: dict[str, Any] = {"reason": self.reason, "node": node, "type": self.kind, "attempts": self.attempts}
        if self.refused is not None:
            payload["refused"] = {**asdict(self.refused), "retry_after": self.retry_after}
        return payload
