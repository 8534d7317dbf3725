"""The metrics that there are: documented, asked for by their names, and free of charge where there is no Ray."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agentflow_serve.manifests.monitoring import prometheus_rule
from agentflow_serve.manifests.settings import ManifestSettings
from agentflow_serve.manifests.subject import subject_of
from agentflow_serve.metrics import EXPORTED, METRICS
from agentflow_serve.unknown_attempts import EVERY_S, count_unknown
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
            clock.advance(EVERY_S)
            await until(lambda: clock.sleepers == 1)
    counting.cancel()
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "calls that ended as unknown were not counted, for a reason that nobody foresaw"
    ]
