"""Finding out what the nodes of a flow do, for the tests that hold a compiled flow to it.

The flow's own tests run, and a sample request; what arrives at a node there is given to the node alone, twice. Only
what came out the same both times is kept: a clock or a random number makes no test. A node that would call something
outside of this process is not run: what comes of it is invented, so that those behind it have something to work on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentflow.compile.tests import Examples, NodeExample, RunExample
from agentflow.feature_use import operation_of
from agentflow.ir import Node
from agentflow.operations import has_side_effect, is_on_store
from agentflow.planning import Plan
from agentflow.samples import sample_request
from agentflow.subflows import all_nodes
from agentflow.tools import reached_tools, registered_tools
from flow_runtime.compiled.agent import METHOD, LocalAgent
from flow_runtime.compiled.context import Context, Inputs, Outputs
from flow_runtime.compiled.invented import InventiveModels, invented
from flow_runtime.compiled.listening import ListenedModels, Seen, WatchedBody
from flow_runtime.compiled.testing import outcome_of, try_node
from flow_runtime.dispatch import Body
from flow_runtime.local import LocalSettings
from flow_runtime.models import Models
from flow_runtime.scripted_models import ScriptedModels

PER_NODE = 2
"""Examples of one node that end alike: more of them make a long file and say little more."""
FIXED = {"trace_id": "test", "event_time": "2026-01-01T00:00:00+00:00"}
_INSIDE = ("transform.", "io.")


@dataclass(frozen=True, slots=True)
class _Case:
    """`answers` is None where no test says what the models answer."""

    told: str
    request: Mapping[str, Any]
    answers: Mapping[str, Any] | None = None

    def models(self) -> Models:
        return ListenedModels(InventiveModels() if self.answers is None else ScriptedModels(self.answers))


async def record(plan: Plan, settings: LocalSettings, *, reads_features: bool = False) -> Examples:
    """Run a flow and its nodes in this process. With `reads_features` the store in `settings` is really read."""
    recorder = _Recorder(plan, settings, reads_features)
    for case in recorder.cases():
        await recorder.run(case)
    await recorder.try_the_rest()
    return recorder.examples()


class _Recorder:
    def __init__(self, plan: Plan, settings: LocalSettings, reads_features: bool) -> None:
        self.plan = plan
        self.settings = settings
        self.outside = {name for name in plan.settings if _reaches_outside(plan, name)}
        self.invented = {name for name in self.outside if not (reads_features and _only_reads(plan.node(name)))}
        self.agent = self._stand_in()
        self.nodes: dict[str, list[NodeExample]] = {name: [] for name in plan.settings}
        self.runs: list[RunExample] = []
        self.sample = _Case("a sample request", {**FIXED, **sample_request(plan.signature)})

    def cases(self) -> Iterator[_Case]:
        for test in self.plan.flow.tests:
            yield _Case(test.name, {**FIXED, **test.input}, test.models)
        if any(not examples for name, examples in self.nodes.items() if name not in self.outside):
            yield self.sample

    async def run(self, case: _Case) -> None:
        """Run a case as a whole, and every node in it alone on what arrived there."""
        seen, run = await self._whole(case)
        for each in seen:
            await self._alone(each, case)
        ran = {name for name, status in run.found["nodes"].items() if status != "skipped"}
        if case.answers is None or ran & self.outside or not _is_plain(run.found):
            return
        if run == (await self._whole(case))[1]:
            self.runs.append(run)

    async def try_the_rest(self) -> None:
        """Nodes that no case reached get inputs that nobody gave."""
        for name, examples in self.nodes.items():
            if examples or name in self.outside:
                continue
            seen: list[Seen] = []
            inputs = invented(self.plan.node(name).inputs)
            async with self._watched(seen)(models=self.sample.models(), settings=self.settings) as opened:
                await opened.through(name, opened.bodies[name]).run(inputs, Context(self.sample.request).call)
            await self._alone(seen[0], _Case("invented inputs", self.sample.request))

    def examples(self) -> Examples:
        untested = {name: self._reason(name) for name, examples in self.nodes.items() if not examples}
        made = tuple(each for examples in self.nodes.values() for each in examples)
        return Examples(made, tuple(self.runs), untested)

    async def _whole(self, case: _Case) -> tuple[list[Seen], RunExample]:
        seen: list[Seen] = []
        async with self._watched(seen)(models=case.models(), settings=self.settings) as opened:
            report = await opened.run(case.request)
        return seen, RunExample(case.told, case.request, case.answers or {}, outcome_of(report))

    async def _alone(self, seen: Seen, case: _Case) -> None:
        if seen.node in self.outside or not _is_plain(seen.inputs):
            return
        answers = dict(seen.answers)
        first, second = [
            await try_node(self.agent, seen.node, seen.inputs, case.request, answers, self.settings) for _ in range(2)
        ]
        if first != second or not _is_plain(first):
            return
        example = NodeExample(seen.node, case.told, seen.inputs, case.request, answers, first)
        if _says_more(example, self.nodes[seen.node]):
            self.nodes[seen.node].append(example)

    def _stand_in(self) -> type[LocalAgent]:
        """The class that compiling the plan would write."""
        agent = type("StandIn", (LocalAgent,), {METHOD + name: self._method(name) for name in self.plan.settings})
        agent._plan = self.plan
        return agent

    def _method(self, name: str) -> Any:
        ports = self.plan.node(name).outputs

        async def work(self: LocalAgent, inputs: Inputs, ctx: Context) -> Outputs:
            return await self.body(name, inputs, ctx)

        async def invent(self: LocalAgent, inputs: Inputs, ctx: Context) -> Outputs:
            return invented(ports)

        return invent if name in self.invented else work

    def _watched(self, seen: list[Seen]) -> type[LocalAgent]:
        class Watched(self.agent):
            def through(self, node: str, body: Body) -> Body:
                return WatchedBody(node, super().through(node, body), seen)

        return Watched

    def _reason(self, name: str) -> str:
        if name in self.outside:
            return "it calls something outside of this process"
        return "what it made was not the same twice, or is no JSON"


def _reaches_outside(plan: Plan, name: str) -> bool:
    """Whether a node may call something that a test must not: a server, a feature store, installed tools."""
    called = reached_tools(plan.flow, [name])
    return any(
        registered_tools(each) or ((spec := operation_of(each)) and not spec.op.startswith(_INSIDE))
        for each in all_nodes(plan.node(node) for node in (name, *called))
    )


def _only_reads(node: Node) -> bool:
    """Whether all that a node does outside is to read features."""
    return all(
        not registered_tools(each)
        and not each.prompt
        and ((spec := operation_of(each)) is None or (is_on_store(spec.op) and not has_side_effect(spec.op)))
        for each in all_nodes([node])
    )


def _says_more(example: NodeExample, than: Sequence[NodeExample]) -> bool:
    alike = [each for each in than if each.found.keys() == example.found.keys()]
    return len(alike) < PER_NODE and all(each.inputs != example.inputs for each in alike)


def _is_plain(value: Any) -> bool:
    """Whether a value is JSON, so that it can be written down."""
    try:
        return json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError):
        return False
