"""The tests of a compiled flow: what its nodes and its runs did when they were generated, as text.

What they did is found out elsewhere, by running them; this only writes it down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentflow.compile.layout import STEP, Atom, Tree, call, written
from agentflow.compile.literals import literal, text
from agentflow.compile.module import FIRST_LINE, Places, file_of
from agentflow.compile.names import class_name, plain
from agentflow.planning import Plan

TESTED_WITH = "flow_runtime.compiled.testing"


@dataclass(frozen=True, slots=True)
class NodeExample:
    """What a node made of its inputs in a request like this, the models answering so. `told` says where from."""

    node: str
    told: str
    inputs: Mapping[str, Any]
    request: Mapping[str, Any]
    answers: Mapping[str, Any]
    found: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunExample:
    """How a whole run ended."""

    told: str
    request: Mapping[str, Any]
    answers: Mapping[str, Any]
    found: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Examples:
    """`untested` are the nodes without an example, with the reason."""

    nodes: tuple[NodeExample, ...] = ()
    runs: tuple[RunExample, ...] = ()
    untested: Mapping[str, str] | None = None


def tests_module(plan: Plan, examples: Examples, *, module: str, places: Places) -> str:
    """The text of the test module; `module` is the name by which it imports the agent."""
    agent = class_name(plan.name)
    used = [*(["node_behaviour"] if examples.nodes else []), *(["run_behaviour"] if examples.runs else [])]
    first = FIRST_LINE.format(what="Tests of the flow", name=plain(plan.name), file=file_of(places))
    lines = [first, "", *_ABOUT, *_untested(examples), '"""']
    if used:
        lines += ["", f"from {module} import {agent}", f"from {TESTED_WITH} import {', '.join(used)}"]
    taken: set[str] = set()
    for example in examples.nodes:
        place = places(("nodes", example.node))
        where = f"line {place.line}: " if place else ""
        name = _free(f"test_node_{example.node}", taken)
        lines += _test(name, f"{where}{plain(example.told, most=90)}", _node_call(agent, example), example.found)
    for example in examples.runs:
        lines += _test(_free("test_run", taken), plain(example.told, most=90), _run_call(agent, example), example.found)
    return "\n".join(lines) + "\n"


_ABOUT = (
    "They hold the flow to what it did when they were generated: a test that fails says that a node, or the way to it,",
    "does something else now. Models answer from the test; nothing outside of this process is called.",
)


def _untested(examples: Examples) -> Iterator[str]:
    if examples.untested:
        yield ""
        yield "Without a test:"
        yield from (f"    {node}: {reason}" for node, reason in examples.untested.items())


def _test(name: str, told: str, behaviour: Tree, found: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", "", f"def {name}():", f"{STEP}# {told}")
    yield from written(behaviour, indent=STEP, head="found = ")
    yield from written(literal(found), indent=STEP, head="assert found == ")


def _node_call(agent: str, example: NodeExample) -> Tree:
    named = {"inputs": example.inputs, "request": example.request, "answers": example.answers}
    told = {name: literal(value) for name, value in named.items() if value}
    return call("node_behaviour", Atom(agent), text(example.node), **told)


def _run_call(agent: str, example: RunExample) -> Tree:
    answers = {"answers": literal(example.answers)} if example.answers else {}
    return call("run_behaviour", Atom(agent), literal(example.request), **answers)


def _free(name: str, taken: set[str]) -> str:
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    taken.add(f"{name}_{number}")
    return f"{name}_{number}"
