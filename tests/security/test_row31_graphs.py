"""RELIABILITY row 31: a graph that cannot run is refused with its path and line, and a large one is checked soon."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import inspect_flow
from agentflow.checks import check
from agentflow.findings import Finding
from agentflow.ir import Edge, Flow
from support.broken_flows import BROKEN, Broken
from support.cost import assert_cheap
from support.doors import errors_of

CODES = {
    "cycle",
    "duplicate-key",
    "type-mismatch",
    "unknown-port",
    "unknown-node",
    "unwired-input",
    "doubled-input",
    "unneeded-node",
}
CASES = [case for case in BROKEN if case.code in CODES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code}:{case.path[:40]}")
def test_a_broken_graph_is_found_with_the_path_and_line_of_the_defect(case: Broken):
    text = case.text + "\n"
    assert_cheap(lambda: inspect_flow(text), mib=None)
    found = [(each.code, each.dotted_path, each.place and each.place.line) for each in inspect_flow(text)[1]]
    assert (case.code, case.path, case.line) in found


def test_the_corpus_has_every_kind_of_broken_graph():
    assert {case.code for case in CASES} == CODES


Edges = list[tuple[int, int]]


def graph(size: int, edges: Edges) -> str:
    """A flow in which every edge has an input of its own, so that only cycles can be wrong."""
    port = {"type": "object"}
    nodes = {
        f"n{node}": {
            "inputs": [
                *({"name": f"i{index}", **port} for index, (_, target) in enumerate(edges) if target == node),
                {"name": "start", **port},
            ],
            "outputs": [{"name": "out", **port}],
            "transform": {"mode": "code", "module": "a:b"},
        }
        for node in range(size)
    }
    wires = [{"from": f"n{source}.out", "to": f"n{target}.i{index}"} for index, (source, target) in enumerate(edges)]
    wires += [{"from": "_input.x", "to": f"n{node}.start"} for node in range(size)]
    wires += [{"from": "n0.out", "to": "_output"}]
    top = {"version": "1.0", "metadata": {"name": "g"}, "context": {"requires": ["x"]}}
    return json.dumps({**top, "nodes": nodes, "edges": wires}, indent=0)


def has_cycle(size: int, edges: Edges) -> bool:
    """The oracle: depth first, a node that is still open is met again."""
    state: dict[int, str] = {}

    def visit(node: int) -> bool:
        if node in state:
            return state[node] == "open"
        state[node] = "open"
        found = any(visit(target) for source, target in edges if source == node)
        state[node] = "done"
        return found

    return any(visit(node) for node in range(size))


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, Edges]:
    size = draw(st.integers(1, 7))
    node = st.integers(0, size - 1)
    return size, draw(st.lists(st.tuples(node, node), max_size=12))


@given(graphs())
def test_a_flow_is_refused_for_a_cycle_exactly_when_a_simple_search_finds_one(case: tuple[int, Edges]):
    found = errors_of(graph(*case))
    assert {finding.code for finding in found} == ({"cycle"} if has_cycle(*case) else set())
    assert all(finding.place is not None and finding.place.line > 1 for finding in found)


def chain(length: int) -> Flow:
    """A flow of that many nodes in a row."""
    port = {"name": "a", "type": "object"}
    more = {"name": "b", "type": "object", "optional": True}
    node = {"inputs": [port, more], "outputs": [port], "transform": {"mode": "code", "module": "a:b"}}
    edges = [{"from": f"n{index}.a", "to": f"n{index + 1}.a"} for index in range(length - 1)]
    edges += [{"from": "_input.r", "to": "n0.a"}, {"from": f"n{length - 1}.a", "to": "_output"}]
    nodes = {f"n{index}": node for index in range(length)}
    top = {"version": "1.0", "metadata": {"name": "chain"}, "context": {"requires": ["r"]}}
    return Flow.model_validate({**top, "nodes": nodes, "edges": edges})


def test_ten_thousand_nodes_in_a_row_are_checked_within_a_second_closed_to_a_circle_or_not():
    flow = chain(10_000)
    found: list[Finding] = []
    assert_cheap(lambda: found.extend(check(flow)), ms=1_000, mib=None)
    assert found == []
    back = Edge.model_validate({"from": "n9999.a", "to": "n0.b"})
    [finding] = check(flow.model_copy(update={"edges": (*flow.edges, back)}))
    assert finding.code == "cycle" and len(finding.message) < 150
    assert finding.path == ("edges", 10_001)


def test_a_file_of_ten_thousand_nodes_is_refused_with_the_line_where_it_became_too_large():
    node = "{inputs: [{name: a, type: object}], outputs: [{name: b, type: object}]}"
    nodes = "".join(f"  n{index}: {node}\n" for index in range(10_000))
    text = f"version: '1.0'\nmetadata: {{name: g}}\ncontext: {{requires: [x]}}\nnodes:\n{nodes}edges: []\n"
    [finding] = errors_of(text)
    assert finding.code == "too-many-nodes"
    assert finding.place is not None and finding.place.line > 4_000
