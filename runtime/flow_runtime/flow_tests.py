"""Running the tests that a flow carries: in this process, with scripted models, without waiting between attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from agent_runtime.actions.manager import ActionManager
from agent_runtime.actions.records import ActionRecord, ActionSpec
from agent_runtime.actions.sql_store import InMemoryActionStore
from agentflow.differences import differences
from agentflow.feature_use import asks_people
from agentflow.ir import Expectation, Flow, FlowTest
from flow_runtime.local import LocalFlow, LocalSettings
from flow_runtime.scripted_models import ScriptedModels
from runtime_core.clock import SystemClock
from runtime_core.report import NodeStatus, RunReport
from runtime_core.stores.url import MEMORY


@dataclass(frozen=True, slots=True)
class FlowTestResult:
    """`problems` is empty for a test that passed; each is one sentence. `report` is that of its run."""

    name: str
    problems: tuple[str, ...]
    duration_s: float
    report: RunReport

    @property
    def passed(self) -> bool:
        return not self.problems


class _Hurried(SystemClock):
    """The pauses between attempts say nothing about a flow, and tests should not wait for them."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class _NobodyAnswers(ActionManager):
    """In a test every question expires at once, so that what a flow does then can be tested."""

    async def require_action(self, spec: ActionSpec) -> ActionRecord:
        return await super().require_action(spec.model_copy(update={"timeout_seconds": 1e-6}))


async def run_tests(
    flow: Flow, *, feature_store: str | None = None, embedder: str | None = None
) -> list[FlowTestResult]:
    """Every test of a flow, one after the other; none sees the state of another.

    Features are read from and written to `feature_store` for good. Text is embedded as the simulated model does.
    People who are asked do not answer.
    """
    settings = LocalSettings(
        store=MEMORY,
        clock=_Hurried(),
        feature_store=feature_store,
        embedder=embedder,
        actions=_NobodyAnswers(InMemoryActionStore()) if asks_people(flow.nodes.values()) else None,
    )
    return [await run_test(flow, test, settings) for test in flow.tests]


async def run_test(flow: Flow, test: FlowTest, settings: LocalSettings) -> FlowTestResult:
    """One test. Operations and code do what they always do; only models are scripted."""
    clock = settings.clock
    models = ScriptedModels(test.models)
    began = clock.monotonic()
    async with LocalFlow(flow, models=models, settings=settings) as runner:
        report = await runner.run(test.input)
    found = (*dict.fromkeys(models.problems), *_problems(test.expect, report, models))
    return FlowTestResult(test.name, found, clock.monotonic() - began, report)


def _problems(expect: Expectation, report: RunReport, models: ScriptedModels) -> Iterator[str]:
    code = report.error.code if report.error else None
    if code != expect.error:
        got = f"{code} ({report.error.message})" if report.error else "no error"
        yield f"error: expected {expect.error or 'no error'}, got {got}"
    elif expect.has_outputs and code is None:
        yield from differences(expect.outputs, report.output, "outputs")
    if expect.skipped is not None:
        yield from _nodes(set(expect.skipped), report, "skipped")
    if expect.failed is not None:
        yield from _nodes(set(expect.failed), report, "failed")
    for role, count in expect.calls.items():
        if models.calls[role] != count:
            yield f"calls.{role}: expected {count}, got {models.calls[role]}"


def _nodes(wanted: set[str], report: RunReport, status: NodeStatus) -> Iterator[str]:
    found = {name for name, node in report.nodes.items() if node.status == status}
    for name in sorted(wanted - found):
        became = report.nodes[name].status if name in report.nodes else "not needed"
        yield f"{status}: expected '{name}', which was {became}"
    for name in sorted(found - wanted):
        reason = (report.nodes[name].error or {}).get("reason")
        yield f"{status}: '{name}' was not expected" + (f" ({reason})" if reason else "")
