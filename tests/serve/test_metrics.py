"""What Prometheus reads of a real replica: runs, model calls and a budget's refusals, under the documented names."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from agentflow_serve.metrics import EXPORTED, METRICS
from support.command_line import agentflow

from .conftest import CONFIGS, Deploy

pytestmark = pytest.mark.serve

FLOW = """
version: "1.0"
metadata: {name: metered}
context: {requires: [name]}
nodes:
  greet:
    inputs: [{name: name, type: string}]
    outputs: [{name: text, type: string}]
    prompt: {role: llm.writer, template: "Greet {{ name }} in one sentence."}
edges:
  - {from: _input.name, to: greet.name}
  - {from: greet.text, to: _output}
"""
_LINE = re.compile(r"(ray_agentflow_\w+)\{(.*)\} (\S+)")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(app: str) -> Samples:
    """Our metrics of one app, without the labels that say which replica."""
    import ray

    [node] = ray.nodes()
    text = httpx.get(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=30).text
    found: Samples = {}
    for name, labels, value in _LINE.findall(text):
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if pairs.pop("application", None) == app:
            kept = {key: pairs[key] for key in pairs if key in {"code", "role", "status", "kind", "limit", "scope"}}
            place = name, frozenset(kept.items())
            found[place] = found.get(place, 0) + float(value)
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    """Ray's agent gathers what replicas count every few seconds."""
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up, samples("metered")
        time.sleep(0.5)


def value(name: str, **labels: str) -> float:
    return samples("metered").get((EXPORTED + name, frozenset(labels.items())), 0)


def test_runs_calls_and_refusals_are_counted_under_documented_names(deploy: Deploy, tmp_path: Path):
    flow = tmp_path / "metered.yaml"
    flow.write_text(FLOW)
    store = f"sqlite:///{tmp_path}/metered.sqlite"
    budget = ("--store", store, "--scope", "default", "--role", "llm.writer")
    served = deploy(
        "metered", flow=str(flow), llmhub=str(CONFIGS / "llmhub.sim.yaml"), placement="per_node", store=store
    )
    assert [served.predict({"name": "Ada"}).status_code for _ in range(2)] == [200, 200]
    assert agentflow("ledger", "budgets", "set", *budget, "max_requests_total=0").code == 0
    try:
        assert served.predict({"name": "Ada"}).status_code in (402, 429)
    finally:
        agentflow("ledger", "budgets", "remove", *budget)
    wait_for(lambda: value("agentflow_budget_refusals_total", limit="max_requests_total") > 0)
    wait_for(lambda: value("agentflow_runs_total", code="ok") == 2)
    assert value("agentflow_runs_total", code="budget_exceeded") == 1
    assert value("agentflow_run_seconds_count", code="ok") == 2
    assert value("agentflow_model_attempts_total", role="llm.writer", status="settled") == 2
    assert value("agentflow_model_tokens_total", role="llm.writer", kind="input") > 0
    assert value("agentflow_model_cost_micro_usd_total", role="llm.writer") > 0
    names = {re.sub(r"_(bucket|count|sum)$", "", name) for name, _ in samples("metered")}
    assert names <= {EXPORTED + metric.name for metric in METRICS}
    usage = httpx.get(f"{served.base}/v1/ledger/usage?by=role", timeout=60).json()
    assert usage["total"]["settled"] == 2 and usage["total"]["unknown"] == 0
