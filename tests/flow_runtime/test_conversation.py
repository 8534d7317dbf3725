"""`prompt.memory`: which turns precede a prompt, and which of them a session keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from agentflow import Flow, plan
from agentflow.schedule import Failure
from flow_runtime.call import NodeCall
from flow_runtime.runner import FlowRunner
from flow_runtime.state import StateBackends
from runtime_core.clock import ManualClock
from runtime_core.errors import StoreFullError, StoreUnavailableError
from runtime_core.ids import SequentialIds
from runtime_core.loop import NodeOutcome
from runtime_core.sessions.protocol import SessionRead
from runtime_core.sessions.records import SessionRecord
from support.flows import small_flow


def turn(text: str, *, run: str = "run-1", node: str | None = None) -> SessionRecord:
    return SessionRecord(record_id=f"{run}/{text}", run_id=run, role="user", text=text, node=node)


def texts(records: Iterable[SessionRecord]) -> list[str]:
    return [record.text for record in records]


class Talkers:
    """Every node says its name and keeps what it was told; `failing` nodes fail."""

    def __init__(self, *failing: str) -> None:
        self.told: dict[str, list[str]] = {}
        self._failing = failing

    async def call(self, node: str, inputs: Mapping[str, Any], call: NodeCall) -> NodeOutcome:
        self.told[node] = texts(call.memory or ())
        if node in self._failing:
            return NodeOutcome(failure=Failure("no"))
        return NodeOutcome(outputs={"out": node}, records=(turn(node, run=call.context.run_id, node=node),))


class OneSession:
    """A session store of one session."""

    def __init__(self, *said: str, error: Exception | None = None) -> None:
        self.records = [turn(text, run="run-0") for text in said]
        self.appended: list[tuple[str, str, int]] = []
        self.error = error

    async def read(self, *, scope_id: str, session_id: str, since: int = 0) -> SessionRead:
        return SessionRead(len(self.records), tuple(self.records[since:]))

    async def append(self, *, scope_id: str, session_id: str, records: Sequence[SessionRecord], base: int) -> int:
        if self.error is not None:
            raise self.error
        self.appended.append((scope_id, session_id, base))
        self.records += records
        return len(self.records)


def remembering(flow: Flow, **memories: str) -> Flow:
    """The flow with these memories of its prompts."""
    document = flow.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for node, memory in memories.items():
        document["nodes"][node]["prompt"]["memory"] = memory
    return Flow.model_validate(document)


def talk(**memories: str) -> Flow:
    """a and b side by side, both into c; each node has a prompt with the memory that it is given."""
    nodes = "\n".join(
        f"""
        {name}:
          inputs: [{{name: x, type: string}}, {{name: y, type: string, optional: true}}]
          outputs: [{{name: out, type: string}}]
          prompt: {{template: "{{{{ x }}}}", role: llm.writer}}
        """
        for name in memories
    )
    edges = ["_input.x -> b.x", "_input.x -> a.x", "a.out -> c.x", "b.out -> c.y", "c.out -> _output"]
    return remembering(small_flow(nodes, edges), **memories)


def runner(flow: Flow, talkers: Talkers, sessions: OneSession) -> FlowRunner:
    return FlowRunner(
        plan(flow),
        talkers,
        clock=ManualClock(),
        ids=SequentialIds(),
        state=StateBackends({}),
        sessions=sessions,
    )


ASK = {"x": "hi", "session_id": "s"}


async def test_memory_none_is_told_nothing_run_its_ancestors_and_session_what_was_before_too():
    talkers, sessions = Talkers(), OneSession("earlier")
    report = await runner(talk(a="none", b="run", c="session"), talkers, sessions).run(ASK)
    assert talkers.told == {"a": [], "b": [], "c": ["earlier", "a", "b"]}
    assert texts(report.records) == ["c"]
    assert texts(sessions.records) == ["earlier", "c"], "a session keeps what prompts with `memory: session` said"
    assert sessions.appended == [("default", "s", 1)]

    talkers = Talkers()
    await runner(talk(a="session", b="session", c="run"), talkers, OneSession("earlier")).run(ASK)
    assert talkers.told == {"a": ["earlier"], "b": ["earlier"], "c": ["a", "b"]}


async def test_a_failed_node_leaves_the_turns_of_the_others_and_a_failed_run_leaves_none():
    handled = small_flow(
        """
        a:
          inputs: [{name: x, type: string}]
          outputs: [{name: out, type: string}]
          prompt: {template: "{{ x }}", role: llm.writer}
          error: {name: broken}
        b:
          inputs: [{name: x, type: string}, {name: y, type: object, optional: true}]
          outputs: [{name: out, type: string}]
          prompt: {template: "{{ x }}", role: llm.writer}
        """,
        ["_input.x -> a.x", "_input.x -> b.x", "a.broken -> b.y", "b.out -> _output"],
    )
    handled = remembering(handled, a="session", b="session")
    sessions = OneSession()
    assert (await runner(handled, Talkers("a"), sessions).run(ASK)).error is None
    assert texts(sessions.records) == ["b"]

    sessions = OneSession()
    report = await runner(talk(a="session", b="session", c="session"), Talkers("c"), sessions).run(ASK)
    assert report.error is not None
    assert sessions.records == []


@pytest.mark.parametrize("error", [StoreFullError("The session is full."), StoreUnavailableError("Gone.")])
async def test_an_answer_whose_turns_cannot_be_kept_is_none_and_says_why(error: Exception):
    report = await runner(talk(a="none", b="none", c="session"), Talkers(), OneSession(error=error)).run(ASK)
    assert report.output is None
    assert report.error is not None
    assert str(error) in report.error.message
