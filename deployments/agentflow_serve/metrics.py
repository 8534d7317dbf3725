"""The metrics of served flows, all of them here: what they are called, and how they are counted. docs/metrics.md says
what they mean and how to ask for them.

Labels have few values: a flow's roles and models, codes and limits of ours. No label ever holds an id of a run, what
was said, or who asked; a scope only where `metrics_by_scope` of the serve config asks for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from runtime_core.clock import Clock, SystemClock

if TYPE_CHECKING:
    from agent_runtime.errors import BudgetExceededError
    from runtime_core.call_log.records import Attempt, Ending

logger = logging.getLogger(__name__)

EVERY_S = 0.2
"""How old a number may be when Ray gets it. Ray exports what it has every few seconds."""
EXPORTED = "ray_"
"""Ray puts this before every name; it adds the labels `application`, `deployment` and `replica`."""
BOUNDARIES_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """`labels` are without those of Ray, and without the scope, which `scoped` ones may have."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    scoped: bool = False


_OF_MODEL = ("role", "model")
RUNS = Metric("agentflow_runs_total", "counter", "Runs of the flow that ended, by how.", ("code",), scoped=True)
RUN_SECONDS = Metric("agentflow_run_seconds", "histogram", "How long runs of the flow took.", ("code",))
ATTEMPTS = Metric(
    "agentflow_model_attempts_total",
    "counter",
    "Attempts at models that ended, by how.",
    (*_OF_MODEL, "status"),
    scoped=True,
)
TOKENS = Metric(
    "agentflow_model_tokens_total", "counter", "Tokens of settled attempts.", (*_OF_MODEL, "kind"), scoped=True
)
COST = Metric(
    "agentflow_model_cost_micro_usd_total",
    "counter",
    "Money of settled attempts, in millionths of a dollar.",
    _OF_MODEL,
    scoped=True,
)
UNPRICED = Metric(
    "agentflow_model_unpriced_attempts_total", "counter", "Settled attempts whose price nobody knows.", _OF_MODEL
)
REFUSALS = Metric(
    "agentflow_budget_refusals_total",
    "counter",
    "Attempts that were not made, because a budget has no room for them.",
    ("limit", "window", "reason"),
    scoped=True,
)
UNKNOWN = Metric(
    "agentflow_ledger_unknown_attempts",
    "gauge",
    "Attempts of the run store that ended as unknown in the last five minutes, of all replicas and scopes.",
)
WAITING = Metric(
    "agentflow_waiting_requests", "gauge", "Requests of a predictor replica that wait for their scope's turn."
)

METRICS = (RUNS, RUN_SECONDS, ATTEMPTS, TOKENS, COST, UNPRICED, REFUSALS, UNKNOWN, WAITING)
_LABELS = {metric.name: (*metric.labels, "scope") for metric in METRICS}


class ServeMetrics:
    """Counts in a replica: one for each process. Ray is imported here, and nowhere before.

    Ray takes longer over one number than a small flow over its run. So numbers are added up here; Ray gets them
    while the block runs, every `EVERY_S`, and what is left when it ends.
    """

    def __init__(self, *, by_scope: bool = False, clock: Clock | None = None) -> None:
        self._by_scope = by_scope
        self._clock = clock or SystemClock()
        self._metrics: dict[str, Any] = {metric.name: _made(metric, by_scope) for metric in METRICS}
        self._sums: Counter[tuple[str, ...]] = Counter()  # by the name of the metric and the values of its labels
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._states: dict[str, int] = {}
        self._refused: set[str] = set()

    async def __aenter__(self) -> Self:
        self._handing_over = asyncio.create_task(self._keep_handing_over())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._handing_over.cancel()
        await asyncio.wait([self._handing_over])
        self._hand_over()

    def run_ended(self, code: str, seconds: float, *, scope_id: str) -> None:
        self._count(RUNS, 1, scope_id, code)
        self._seconds[code].append(max(0.0, seconds))

    def attempt_ended(self, attempt: Attempt, ending: Ending) -> None:
        scope_id, of = attempt.scope_id, (attempt.role, f"{attempt.provider}/{attempt.model}")
        self._count(ATTEMPTS, 1, scope_id, *of, ending.status.value)
        if ending.status.value != "settled":
            return
        if ending.usage is not None:
            for kind in ("input", "output", "cached", "reasoning"):
                self._count(TOKENS, getattr(ending.usage, kind), scope_id, *of, kind)
        if ending.cost_micro is None:
            self._count(UNPRICED, 1, scope_id, *of)
        else:
            self._count(COST, ending.cost_micro, scope_id, *of)

    def refused(self, error: BudgetExceededError, *, scope_id: str) -> None:
        self._count(REFUSALS, 1, scope_id, error.limit or "", error.window or "", error.reason or "")

    def unknown(self, attempts: int) -> None:
        self._states[UNKNOWN.name] = attempts

    def waiting(self, requests: int) -> None:
        self._states[WAITING.name] = requests

    def _count(self, metric: Metric, amount: int, scope_id: str, *labels: str) -> None:
        scope = (scope_id,) if self._by_scope and metric.scoped else ()
        self._sums[metric.name, *labels, *scope] += amount

    async def _keep_handing_over(self) -> None:
        while True:
            await self._clock.sleep(EVERY_S)
            self._hand_over()

    def _hand_over(self) -> None:
        sums, self._sums = self._sums, Counter()
        seconds, self._seconds = self._seconds, defaultdict(list)
        states, self._states = self._states, {}
        for (name, *labels), amount in sums.items():
            if amount > 0:  # Ray refuses to count nothing
                self._tell(name, self._metrics[name].inc, amount, dict(zip(_LABELS[name], labels, strict=False)))
        for code, each in seconds.items():
            tags = {"code": code}
            for taken in each:
                self._tell(RUN_SECONDS.name, self._metrics[RUN_SECONDS.name].observe, taken, tags)
        for name, state in states.items():
            if not self._tell(name, self._metrics[name].set, state, {}):
                self._states.setdefault(name, state)  # it may not change again

    def _tell(self, name: str, tell: Callable[..., object], number: float, tags: dict[str, str]) -> bool:
        """Whether Ray took it. What it refuses once is logged once: the next such number comes in a moment."""
        try:
            tell(number, tags=tags)
        except Exception:
            if name not in self._refused:
                self._refused.add(name)
                logger.exception("Ray did not take a number of the metric %s, for a reason that nobody foresaw", name)
            return False
        return True


def _made(metric: Metric, by_scope: bool) -> Any:
    from ray.serve import metrics

    labels: Any = (*metric.labels, "scope") if by_scope and metric.scoped else metric.labels  # Ray's own type is of one
    match metric.kind:
        case "counter":
            return metrics.Counter(metric.name, description=metric.help, tag_keys=labels)
        case "gauge":
            return metrics.Gauge(metric.name, description=metric.help, tag_keys=labels)
        case "histogram":
            return metrics.Histogram(
                metric.name, description=metric.help, boundaries=list(BOUNDARIES_S), tag_keys=labels
            )
