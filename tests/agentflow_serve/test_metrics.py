"""The metrics that there are: documented, asked for by their names, and free of charge where there is no Ray."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.serve import metrics

from agent_runtime.errors import BudgetExceededError
from agentflow_serve import unknown_attempts
from agentflow_serve.manifests.monitoring import prometheus_rule
from agentflow_serve.manifests.settings import ManifestSettings
from agentflow_serve.manifests.subject import subject_of
from agentflow_serve.metrics import EVERY_S, EXPORTED, METRICS, ServeMetrics
from agentflow_serve.unknown_attempts import count_unknown
from runtime_core.clock import ManualClock
from runtime_core.errors import StoreUnavailableError
from support.stores import until

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()
SUFFIX = {"counter": "_total", "gauge": "", "histogram": "_seconds"}
UNBOUNDED = {"run", "run_id", "trace_id", "principal", "principal_id", "session_id", "scope", "prompt", "error", "node"}


def test_every_metric_is_documented_with_its_labels_and_is_named_as_prometheus_has_it():
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+ \|.*?) ?\|", DOCUMENT, re.MULTILINE))
    assert rows == {
        EXPORTED + metric.name: f"{metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)}".strip()
        for metric in METRICS
    }
    for metric in METRICS:
        assert metric.name.startswith("agentflow_") and metric.name.endswith(SUFFIX[metric.kind])
        assert not UNBOUNDED & set(metric.labels)


def test_questions_and_alerts_name_metrics_that_exist():
    names = {EXPORTED + metric.name for metric in METRICS}
    [questions] = re.findall(r"```promql\n(.*?)```", DOCUMENT, re.DOTALL)
    configs = ROOT / "configs"
    subject = subject_of(
        configs / "flows" / "triage.yaml", configs / "llmhub.sim.yaml", ManifestSettings(open_to_network=True)
    )
    for text in (questions, str(prometheus_rule(subject))):
        asked = {re.sub(r"_bucket$", "", name) for name in re.findall(rf"{EXPORTED}agentflow_\w+", text)}
        assert asked and asked <= names


def test_a_process_without_ray_pays_nothing():
    code = (
        "import sys, agentflow_serve.metrics, flow_runtime.metering, agentflow_serve.commands.ledger\n"
        "print(sorted({'ray', 'kserve', 'prometheus_client'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


async def test_ray_gets_sums_now_and_then_and_the_rest_when_a_replica_stops(monkeypatch: pytest.MonkeyPatch):
    told: list[tuple[str, float, dict[str, str]]] = []

    def tell(metric: Any, value: float, tags: dict[str, str]) -> None:
        told.append((metric.info["name"], value, tags))

    for kind, method in ((metrics.Counter, "inc"), (metrics.Histogram, "observe"), (metrics.Gauge, "set")):
        monkeypatch.setattr(kind, method, tell)
    clock, refusal = ManualClock(), BudgetExceededError("full", limit="max_requests_total", reason="used")
    async with ServeMetrics(by_scope=True, clock=clock) as counted:
        await until(lambda: clock.sleepers == 1)
        counted.run_ended("ok", 0.5, scope_id="s1")
        counted.run_ended("ok", 0.25, scope_id="s1")
        counted.refused(refusal, scope_id="s1")
        counted.waiting(3)
        counted.waiting(2)
        assert told == []
        clock.advance(EVERY_S)
        await until(lambda: bool(told) and clock.sleepers == 1)
        assert told == [
            ("agentflow_runs_total", 2, {"code": "ok", "scope": "s1"}),
            (
                "agentflow_budget_refusals_total",
                1,
                {"limit": "max_requests_total", "window": "", "reason": "used", "scope": "s1"},
            ),
            ("agentflow_run_seconds", 0.5, {"code": "ok"}),
            ("agentflow_run_seconds", 0.25, {"code": "ok"}),
            ("agentflow_waiting_requests", 2, {}),
        ]
        told.clear()
        counted.run_ended("internal", 1.0, scope_id="s2")
    assert [(name, value) for name, value, _ in told] == [("agentflow_runs_total", 1), ("agentflow_run_seconds", 1.0)]


async def test_a_number_that_ray_refuses_takes_no_other_with_it_and_a_state_is_told_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    told: list[tuple[str, float]] = []
    refused = {"agentflow_runs_total", "agentflow_run_seconds", "agentflow_waiting_requests"}

    def tell(metric: Any, value: float, tags: dict[str, str]) -> None:
        if metric.info["name"] in refused:
            raise ValueError("not that one")
        told.append((metric.info["name"], value))

    for kind, method in ((metrics.Counter, "inc"), (metrics.Histogram, "observe"), (metrics.Gauge, "set")):
        monkeypatch.setattr(kind, method, tell)
    clock, refusal = ManualClock(), BudgetExceededError("full")
    async with ServeMetrics(clock=clock) as counted:
        await until(lambda: clock.sleepers == 1)
        counted.run_ended("ok", 0.5, scope_id="s1")
        counted.refused(refusal, scope_id="s1")
        counted.waiting(3)
        counted.unknown(1)
        for _ in range(2):
            clock.advance(EVERY_S)
            await until(lambda: clock.sleepers == 1)
        assert told == [("agentflow_budget_refusals_total", 1), ("agentflow_ledger_unknown_attempts", 1)]
        refused.clear()
    assert told[2:] == [("agentflow_waiting_requests", 3)]
    assert len([record for record in caplog.records if "Ray did not take" in record.message]) == 3


async def test_unknown_attempts_are_asked_for_now_and_then_and_no_failure_ends_that(
    caplog: pytest.LogCaptureFixture,
):
    clock, told = ManualClock(), list[int]()

    answers = [3, StoreUnavailableError("away"), KeyError("odd"), 5]

    class Store:
        async def unknown_in(self, seconds: float) -> int:
            found = answers.pop(0)
            if isinstance(found, Exception):
                raise found
            return found

    counting = asyncio.create_task(count_unknown(Store(), told.append, clock=clock))
    for expected in ([3], [3], [3], [3, 5]):
        await until(lambda: clock.sleepers == 1)
        assert told == expected
        if expected != [3, 5]:
            clock.advance(unknown_attempts.EVERY_S)
            await until(lambda: clock.sleepers == 1)
    counting.cancel()
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "calls that ended as unknown were not counted, for a reason that nobody foresaw"
    ]
