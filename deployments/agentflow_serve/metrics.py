"""The metrics of served flows, all of them here: what they are called, and how they are counted. docs/metrics.md says
what they mean and how to ask for them.

Labels have few values: a flow's roles and models, codes and limits of ours. No label ever holds an id of a run, what
was said, or who asked; a scope only where `metrics_by_scope` of the serve config asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from agent_runtime.errors import BudgetExceededError
    from runtime_core.call_log.records import Attempt, Ending

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


class ServeMetrics:
    """Counts in a replica, through Ray Serve: one for each process. Ray is imported here, and nowhere before."""

    def __init__(self, *, by_scope: bool = False) -> None:
        self._by_scope = by_scope
        self._metrics: dict[str, Any] = {metric.name: _made(metric, by_scope) for metric in METRICS}

    def run_ended(self, code: str, seconds: float, *, scope_id: str) -> None:
        self._count(RUNS, 1, scope_id, code=code)
        self._metrics[RUN_SECONDS.name].observe(max(0.0, seconds), tags={"code": code})

    def attempt_ended(self, attempt: Attempt, ending: Ending) -> None:
        scope_id, of = attempt.scope_id, {"role": attempt.role, "model": f"{attempt.provider}/{attempt.model}"}
        self._count(ATTEMPTS, 1, scope_id, **of, status=ending.status.value)
        if ending.status.value != "settled":
            return
        if ending.usage is not None:
            for kind in ("input", "output", "cached", "reasoning"):
                self._count(TOKENS, getattr(ending.usage, kind), scope_id, **of, kind=kind)
        if ending.cost_micro is None:
            self._count(UNPRICED, 1, scope_id, **of)
        else:
            self._count(COST, ending.cost_micro, scope_id, **of)

    def refused(self, error: BudgetExceededError, *, scope_id: str) -> None:
        facts = {"limit": error.limit or "", "window": error.window or "", "reason": error.reason or ""}
        self._count(REFUSALS, 1, scope_id, **facts)

    def unknown(self, attempts: int) -> None:
        self._metrics[UNKNOWN.name].set(attempts, tags={})

    def waiting(self, requests: int) -> None:
        self._metrics[WAITING.name].set(requests, tags={})

    def _count(self, metric: Metric, amount: int, scope_id: str, **labels: str) -> None:
        if amount <= 0:  # which Ray refuses to count
            return
        if self._by_scope and metric.scoped:
            labels["scope"] = scope_id
        self._metrics[metric.name].inc(amount, tags=labels)


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
