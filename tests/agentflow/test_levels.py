"""The shape of a graph as people see it: levels and the critical path, on graphs that are not symmetric."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentflow import Flow, plan
from agentflow.graph import Graph
from agentflow.levels import critical_path, levels, topological
from support.flows import small_flow
from support.graphs import graph

# a long and a short way to the same end, and a side branch
ASYMMETRIC = ["_input.x -> a", "a -> b", "a -> c", "c -> d", "d -> e", "b -> f.b", "e -> f.e", "c -> g", "f -> _output"]


def test_a_level_is_the_longest_way_from_the_request():
    assert levels(graph(*ASYMMETRIC)) == (("a",), ("b", "c"), ("d", "g"), ("e",), ("f",))


def test_nodes_without_inputs_are_on_the_first_level():
    assert levels(graph("_input.x -> a", "a -> b", "lone -> b.too", "b -> _output"))[0] == ("a", "lone")


def test_a_graph_without_nodes_has_no_levels():
    assert levels(graph("_input.x -> _output")) == ()


def prompts(*names: str, edges: list[str]) -> Flow:
    """A flow of string nodes, of which `names` are prompts."""
    everyone = dict.fromkeys(
        end.partition(".")[0] for edge in edges for end in edge.split(" -> ") if not end.startswith("_")
    )
    nodes = ""
    for name in everyone:
        ports = [edge.split(" -> ")[1].partition(".")[2] or "in" for edge in edges if f"-> {name}" in edge]
        inputs = ", ".join(f"{{name: {port}, type: string}}" for port in dict.fromkeys(ports))
        does = 'prompt: {template: "hi", role: r}' if name in names else FORMAT
        nodes += f"\n{name}:\n  inputs: [{inputs}]\n  outputs: [{{name: out, type: string}}]\n  {does}"
    return small_flow(nodes, edges)


FORMAT = "transform: {mode: declarative, spec: {op: io.format_response, args: {template: x}}}"


def test_the_critical_path_is_the_way_with_the_most_model_calls():
    edges = [
        "_input.x -> a",
        "a -> quick",
        "quick -> quicker",
        "quicker -> quickest",
        "quickest -> join.q",
        "a -> slow",
        "slow -> slower",
        "slower -> join.s",
        "join -> _output",
    ]
    assert critical_path(plan(prompts("slow", "slower", edges=edges))) == ("a", "slow", "slower", "join")
    assert critical_path(plan(prompts("quick", edges=edges))) == ("a", "quick", "quicker", "quickest", "join")


def test_without_prompts_the_longest_way_is_critical():
    edges = ["_input.x -> a", "a -> b", "b -> c.b", "_input.x -> short", "short -> c.s", "c -> _output"]
    assert critical_path(plan(prompts(edges=edges))) == ("a", "b", "c")


def test_a_flow_without_nodes_has_no_critical_path():
    assert critical_path(plan(small_flow("", ["_input.x -> _output"]))) == ()


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    names = [f"n{number}" for number in range(draw(st.integers(1, 12)))]
    edges = [
        f"{draw(st.sampled_from(names[:number]))} -> {names[number]}.p{port}"
        for number in range(1, len(names))
        for port in range(draw(st.integers(0, 3)))
    ]
    return graph(*draw(st.permutations(edges)), f"{names[-1]} -> _output", alone=names)


@given(graphs())
def test_every_node_comes_once_and_after_all_that_feed_it(target: Graph):
    order = topological(target)
    assert sorted(order) == sorted(target.nodes)
    place = {name: at for at, name in enumerate(order)}
    level = {name: at for at, names in enumerate(levels(target)) for name in names}
    for wire in target.wires:
        if wire.source is not None and wire.target is not None:
            assert place[wire.source] < place[wire.target]
            assert level[wire.source] < level[wire.target]
    for name, at in level.items():
        before = [level[wire.source] for wire in target.incoming.get(name, ()) if wire.source is not None]
        assert at == max(before, default=-1) + 1
