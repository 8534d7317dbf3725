"""`prompt.memory`: which turns precede a prompt, and what a session keeps of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import yaml

from agentflow.graph import Graph
from agentflow.memory import memory_plan
from agentflow.planning import plan
from flow_runtime import LocalFlow, LocalSettings
from runtime_core.context import Identity
from runtime_core.errors import StoreUnavailableError
from runtime_core.report import RunReport
from runtime_core.sessions.protocol import SessionRead
from runtime_core.sessions.records import SessionRecord
from support.flows import ScriptedModels, small_flow
from support.sessions import MemorySessions


def node(name: str, memory: str = "none", more: str = "", inputs: str = "x") -> str:
    ports = ", ".join(f"{{name: {port}, type: string}}" for port in inputs.split())
    words = " ".join(f"{{{{ {port} }}}}" for port in inputs.split())
    return f"""
{name}:
  inputs: [{ports}]
  outputs: [{{name: out, type: string}}]
  prompt: {{role: {name}, template: "{name} {words}", memory: {memory}{more}}}
"""


def said(messages: Sequence[dict[str, Any]]) -> list[str]:
    return [str(message["content"]) for message in messages]


def asked_of(models: ScriptedModels, role: str) -> list[list[str]]:
    return [said(messages) for called, messages, _ in models.calls if called == role]


CHAT = small_flow(node("chat", "session"), ["_input.x -> chat.x", "chat.out -> _output"], requires=("x", "session_id"))


async def talk(
    sessions: MemorySessions, models: ScriptedModels, *requests: tuple[str, dict[str, Any]]
) -> list[RunReport]:
    async with LocalFlow(CHAT, models=models, settings=LocalSettings(sessions=sessions)) as runner:
        return [await runner.run(request, identity=Identity(scope_id=scope)) for scope, request in requests]


async def test_three_turns_are_one_conversation_although_every_run_is_another_process():
    sessions, models = MemorySessions(), ScriptedModels({"chat": ["I am Bo.", "Yes.", "Bo."]})
    for text in ("Who are you?", "Really?", "Your name?"):
        [report] = await talk(sessions, models, ("acme", {"x": text, "session_id": "s1"}))
        assert report.error is None
    assert asked_of(models, "chat")[-1] == [
        "chat Who are you?",
        "I am Bo.",
        "chat Really?",
        "Yes.",
        "chat Your name?",
    ]
    assert [message["role"] for message in models.calls[-1][1]] == ["user", "assistant", "user", "assistant", "user"]


async def test_a_session_belongs_to_its_scope_and_its_id():
    sessions, models = MemorySessions(), ScriptedModels({"chat": ["ok"]})
    await talk(
        sessions,
        models,
        ("acme", {"x": "secret of acme", "session_id": "s1"}),
        ("zorro", {"x": "hello", "session_id": "s1"}),
        ("acme", {"x": "other session", "session_id": "s2"}),
    )
    assert [len(asked) for asked in asked_of(models, "chat")] == [1, 1, 1]
    assert set(sessions.sessions) == {("acme", "s1"), ("zorro", "s1"), ("acme", "s2")}


async def test_a_run_is_kept_with_its_ids_only_when_it_has_an_answer():
    sessions = MemorySessions()
    [report] = await talk(sessions, ScriptedModels({"chat": ["hi"]}), ("a", {"x": "1", "session_id": "s"}))
    kept = sessions.sessions["a", "s"]
    assert tuple(kept) == report.records
    assert [(record.role, record.text, record.node, record.run_id) for record in kept] == [
        ("user", "chat 1", "chat", report.run_id),
        ("assistant", "hi", "chat", report.run_id),
    ]
    assert len({record.record_id for record in kept}) == 2
    [failed] = await talk(sessions, ScriptedModels({"chat": [OSError("no")]}), ("a", {"x": "2", "session_id": "s"}))
    assert failed.error is not None and len(sessions.sessions["a", "s"]) == 2


DIAMOND = small_flow(
    node("top") + node("left", "run") + node("right", "run") + node("end", "run", inputs="l r"),
    [
        "_input.x -> top.x",
        "top.out -> left.x",
        "top.out -> right.x",
        "left.out -> end.l",
        "right.out -> end.r",
        "end.out -> _output",
    ],
)


async def test_the_turns_of_ancestors_come_in_topological_order_whichever_branch_was_first():
    for slow in ("left", "right"):

        def answer(name: str, slow: str = slow) -> Any:
            async def answered(messages: Any) -> str:
                await asyncio.sleep(0.05 if name == slow else 0)
                return f"{name}!"

            return [answered]

        models = ScriptedModels({name: answer(name) for name in ("top", "left", "right", "end")})
        async with LocalFlow(DIAMOND, models=models) as runner:
            assert (await runner.run({"x": "go"})).output == "end!"
        assert asked_of(models, "top") == [["top go"]]
        assert asked_of(models, "left") == [["top go", "top!", "left top!"]]
        assert asked_of(models, "end") == [
            ["top go", "top!", "left top!", "left!", "right top!", "right!", "end left! right!"]
        ]


async def test_a_branch_that_fails_leaves_the_turns_of_the_others():
    flow = small_flow(
        node("good", "session")
        + node("bad", "session").replace("  prompt:", "  error: {name: failed}\n  prompt:")
        + """
end:
  inputs: [{name: g, type: string}, {name: b, type: string, optional: true}, {name: e, type: object, optional: true}]
  outputs: [{name: out, type: string}]
  prompt: {role: end, template: "end {{ g }}", memory: session}
""",
        [
            "_input.x -> good.x",
            "_input.x -> bad.x",
            "good.out -> end.g",
            "bad.out -> end.b",
            "bad.failed -> end.e",
            "end.out -> _output",
        ],
        requires=("x", "session_id"),
    )
    sessions = MemorySessions()
    models = ScriptedModels({"good": ["fine"], "bad": [OSError("no")], "end": ["done"]})
    async with LocalFlow(flow, models=models, settings=LocalSettings(sessions=sessions)) as runner:
        assert (await runner.run({"x": "1", "session_id": "s"})).output == "done"
    assert asked_of(models, "end") == [["good 1", "fine", "end fine"]]
    assert [record.text for record in sessions.sessions["default", "s"]] == ["good 1", "fine", "end fine", "done"]


async def test_twenty_branches_at_once_lose_no_record():
    names = [f"n{number}" for number in range(20)]
    nodes = "".join(node(name, "session") for name in names) + node("end", "run", inputs=" ".join(names))
    edges = [
        *(f"_input.x -> {name}.x" for name in names),
        *(f"{name}.out -> end.{name}" for name in names),
        "end.out -> _output",
    ]
    sessions = MemorySessions()
    models = ScriptedModels({name: [f"{name}!"] for name in (*names, "end")})
    flow = small_flow(nodes, edges, requires=("x", "session_id"))
    async with LocalFlow(flow, models=models, settings=LocalSettings(sessions=sessions)) as runner:
        await asyncio.gather(*(runner.run({"x": str(run), "session_id": "s"}) for run in range(3)))
    assert [len(asked) for asked in asked_of(models, "end")] == [41, 41, 41]
    kept = sessions.sessions["default", "s"]
    assert len(kept) == 3 * 40
    runs = [record.run_id for record in kept]
    assert [runs[start : start + 40] for start in (0, 40, 80)] == [[run] * 40 for run in dict.fromkeys(runs)]


async def test_a_session_is_read_once_and_appended_to_once_however_many_nodes_remember_it():
    nodes = node("a", "session") + node("b", "session") + node("c", "session")
    edges = ["_input.x -> a.x", "a.out -> b.x", "b.out -> c.x", "c.out -> _output"]
    sessions = MemorySessions()
    flow = small_flow(nodes, edges, requires=("x", "session_id"))
    models = ScriptedModels({"a": ["1"], "b": ["2"], "c": ["3"]})
    async with LocalFlow(flow, models=models, settings=LocalSettings(sessions=sessions)) as runner:
        await runner.run({"x": "go", "session_id": "s"})
    assert sessions.appended == 1 and len(sessions.sessions["default", "s"]) == 6


async def test_a_node_that_runs_for_each_element_or_in_rounds_leaves_all_its_turns():
    flow = small_flow(
        """
each:
  inputs: [{name: x, type: array}]
  outputs: [{name: out, type: array}]
  for_each: {input: x}
  prompt: {role: each, template: "each {{ x }}"}
end:
  inputs: [{name: x, type: array}]
  outputs: [{name: out, type: string}]
  prompt: {role: end, template: "end", memory: run}
""",
        ["_input.x -> each.x", "each.out -> end.x", "end.out -> _output"],
    )

    async def echo(messages: Any) -> str:
        await asyncio.sleep(0.02 if "a" in messages[-1]["content"].split()[-1] else 0)
        return str(messages[-1]["content"]).upper()

    models = ScriptedModels({"each": [echo], "end": ["done"]})
    async with LocalFlow(flow, models=models) as runner:
        assert (await runner.run({"x": ["a", "b"]})).output == "done"
    assert asked_of(models, "end") == [["each a", "EACH A", "each b", "EACH B", "end"]]


INNER = """
version: "1.0"
metadata: {name: inner}
context: {requires: [x]}
nodes:
  helper:
    inputs: [{name: x, type: string}]
    outputs: [{name: out, type: string}]
    prompt: {role: helper, template: "helper {{ x }}"}
  talk:
    inputs: [{name: x, type: string}]
    outputs: [{name: out, type: string}]
    prompt: {role: talk, template: "talk {{ x }}", memory: session}
edges:
  - {from: _input.x, to: helper.x}
  - {from: helper.out, to: talk.x}
  - {from: talk.out, to: _output}
"""


async def test_a_subflow_shares_the_session_and_gives_on_what_its_prompts_keep():
    inner = yaml.safe_load(INNER)
    flow = small_flow(
        f"""
sub:
  type: subflow
  inputs: [{{name: x, type: string}}]
  outputs: [{{name: out, type: string}}]
  flow: {inner!r}
"""
        + node("end", "run"),
        ["_input.x -> sub.x", "sub.out -> end.x", "end.out -> _output"],
        requires=("x", "session_id"),
    )
    sessions = MemorySessions()
    models = ScriptedModels({"helper": ["help"], "talk": ["one", "two"], "end": ["done"]})
    async with LocalFlow(flow, models=models, settings=LocalSettings(sessions=sessions)) as runner:
        for text in ("a", "b"):
            assert (await runner.run({"x": text, "session_id": "s"})).error is None
    assert asked_of(models, "talk")[1] == ["talk help", "one", "helper b", "help", "talk help"]
    assert asked_of(models, "end")[1] == ["talk help", "two", "end two"]
    assert [record.text for record in sessions.sessions["default", "s"]] == ["talk help", "one", "talk help", "two"]


async def test_without_a_session_id_and_without_a_store_every_run_begins_anew():
    flow = small_flow(
        node("chat", "session"),
        ["_input.x -> chat.x", "chat.out -> _output"],
        context={"requires": ["x"], "optional": ["session_id"]},
    )
    models = ScriptedModels({"chat": ["ok"]})
    for settings in (LocalSettings(sessions=MemorySessions()), LocalSettings()):
        async with LocalFlow(flow, models=models, settings=settings) as runner:
            for _ in range(2):
                assert (await runner.run({"x": "hi"})).output == "ok"
    assert [len(asked) for asked in asked_of(models, "chat")] == [1] * 4


class BrokenSessions(MemorySessions):
    """Fails where the test says."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    async def read(self, **key: Any) -> SessionRead:
        if self.where == "read":
            raise StoreUnavailableError("the store is away")
        return await super().read(**key)

    async def append(self, *, records: Sequence[SessionRecord], **key: Any) -> int:
        if self.where == "append":
            raise StoreUnavailableError("the store is away")
        return await super().append(records=records, **key)


async def test_a_store_that_does_not_answer_is_told_and_nothing_is_said_to_be_kept():
    for where, says in (("read", "could not be read"), ("append", "could not be kept")):
        models = ScriptedModels({"chat": ["ok"]})
        [report] = await talk(BrokenSessions(where), models, ("a", {"x": "1", "session_id": "s"}))
        assert report.error is not None
        assert (report.error.code, report.output, report.records) == ("unavailable", None, ())
        assert says in report.error.message and "the store is away" in report.error.message
        assert len(models.calls) == (where == "append")


async def test_a_cache_does_not_hide_turns_that_somebody_remembers():
    cached = node("first").rstrip() + "\n  runtime: {cache: {ttl_seconds: 60}}\n"
    flow = small_flow(cached + node("end", "run"), ["_input.x -> first.x", "first.out -> end.x", "end.out -> _output"])
    models = ScriptedModels({"first": ["1"], "end": ["2"]})
    async with LocalFlow(flow, models=models) as runner:
        for _ in range(2):
            assert (await runner.run({"x": "hi"})).output == "2"
    assert asked_of(models, "end") == [["first hi", "1", "end 1"]] * 2


async def test_a_flow_in_which_nobody_remembers_keeps_no_records():
    flow = small_flow(node("a") + node("b"), ["_input.x -> a.x", "a.out -> b.x", "b.out -> _output"])
    assert memory_plan(flow, plan(flow).graph).sees == {}
    assert memory_plan(flow, Graph(nodes={}, wires=())).keeps == ()
    models = ScriptedModels({"a": ["1"], "b": ["2"]})
    async with LocalFlow(flow, models=models) as runner:
        assert (await runner.run({"x": "hi"})).records == ()
    assert asked_of(models, "b") == [["b 1"]]
