"""Where nodes run and what their replicas ask for: whose word counts, and the defaults."""

from __future__ import annotations

from typing import Any

import pytest

from agentflow import plan
from agentflow.placement import Replicas, Stage, memory_bytes, node_replicas, placement_of, predictor_replicas, stages
from agentflow.planning import Plan
from support.flows import small_flow


def planned(first: str = "", second: str = "", **deployment: Any) -> Plan:
    """Two nodes, `a` and `b`, with what their `runtime` says."""
    nodes = "".join(
        f"""
{name}:
  inputs: [{{name: x, type: string}}]
  outputs: [{{name: out, type: string}}]
  runtime: {{{runtime}}}
  transform: {{mode: declarative, spec: {{op: io.format_response, args: {{template: "${{x}}"}}}}}}
"""
        for name, runtime in (("a", first), ("b", second))
    )
    return plan(small_flow(nodes, ["_input.x -> a.x", "a.out -> b.x", "b.out -> _output"], deployment=deployment))


def test_by_default_every_node_is_a_deployment_of_its_own():
    assert stages(planned()) == (
        Stage("small.a", ("a",), Replicas()),
        Stage("small.b", ("b",), Replicas()),
    )


def test_nodes_inline_share_the_predictors_process_and_the_rest_keep_their_own():
    assert [(stage.deployment, stage.nodes) for stage in stages(planned(second="placement: inline"))] == [
        (None, ("b",)),
        ("small.a", ("a",)),
    ]
    assert [(stage.deployment, stage.nodes) for stage in stages(planned(), "inline")] == [(None, ("a", "b"))]


def test_the_serve_config_overrules_the_node_and_the_node_the_flow():
    of_both = planned(first="placement: per_node", ray={"placement": "inline"})
    assert placement_of(of_both, "a") == "per_node"
    assert placement_of(of_both, "b") == "inline"
    assert placement_of(of_both, "a", "inline") == "inline"
    assert placement_of(of_both, "b", "per_node") == "per_node"


def test_a_replica_asks_for_a_twentieth_of_a_cpu_unless_somebody_says_otherwise():
    flow = planned(first="resources: {num_gpus: 1}", ray={"resources": {"num_cpus": 2, "memory": "1Gi"}})
    assert node_replicas(planned(), "a").num_cpus == 0.05
    assert (node_replicas(flow, "a").num_cpus, node_replicas(flow, "a").num_gpus) == (0.05, 1)
    assert (node_replicas(flow, "b").num_cpus, node_replicas(flow, "b").memory) == (2, 1024**3)


def test_an_explicit_zero_of_cpus_is_kept():
    assert node_replicas(planned(first="resources: {num_cpus: 0}"), "a").num_cpus == 0


@pytest.mark.parametrize(
    ("written", "is_"),
    [
        (None, 0),
        (0, 0),
        (123, 123),
        ("123", 123),
        ("512Mi", 512 * 1024**2),
        ("2G", 2_000_000_000),
        ("1.5Gi", 1_610_612_736),
        ("3K", 3_000),
        ("1Ti", 1024**4),
    ],
)
def test_memory_is_bytes_or_text_with_a_decimal_or_binary_unit(written: int | str | None, is_: int):
    assert memory_bytes(written) == is_


def test_autoscaling_is_the_nodes_own_or_the_flows_and_never_below_its_minimum():
    wide = {"autoscaling": {"min_replicas": 0, "max_replicas": 8, "target_ongoing_requests": 3}}
    flow = planned(first="autoscaling: {min_replicas: 2, max_replicas: 4}", ray=wide)
    own, shared = node_replicas(flow, "a"), node_replicas(flow, "b")
    assert (own.min_replicas, own.max_replicas, own.target_ongoing_requests) == (2, 4, None)
    assert (shared.min_replicas, shared.max_replicas, shared.target_ongoing_requests) == (0, 8, 3)


def test_concurrency_is_per_replica_and_sixty_four_when_nobody_says():
    flow = planned(first="concurrency: 3", ray={"concurrency": 7})
    assert [node_replicas(each, "a").concurrency for each in (flow, planned())] == [3, 64]
    assert node_replicas(flow, "b").concurrency == 7


@pytest.mark.parametrize(
    ("kserve", "low", "high"),
    [
        ({}, 1, 1),
        ({"min_replicas": 3}, 3, 3),
        ({"max_replicas": 5}, 1, 5),
        ({"min_replicas": 0, "max_replicas": 2}, 0, 2),
        ({"min_replicas": 0}, 0, 1),
    ],
)
def test_kserves_replicas_size_the_predictor(kserve: dict[str, int], low: int, high: int):
    replicas = predictor_replicas(planned(kserve=kserve))
    assert (replicas.min_replicas, replicas.max_replicas) == (low, high)


def test_a_node_that_never_runs_gets_no_deployment():
    flow = small_flow(
        """
        used:
          inputs: [{name: x, type: string}]
          outputs: [{name: out, type: string}]
          prompt: {template: hi, role: r}
        idle:
          inputs: [{name: x, type: string}]
          outputs: [{name: out, type: string}]
          prompt: {template: hi, role: r}
        """,
        ["_input.x -> used.x", "_input.x -> idle.x", "used.out -> _output"],
    )
    assert [stage.deployment for stage in stages(plan(flow))] == ["small.used"]


TOOLS = """
ask:
  inputs: [{name: x, type: string}]
  outputs: [{name: out, type: string}]
  prompt: {role: main, template: "{{ x }}", tools: [{name: near, maps_to: near}, {name: far, maps_to: far}]}
  runtime: {%s}
near:
  outputs: [{name: out, type: string}]
  prompt: {role: main, template: hi, tools: [{name: deep, maps_to: deep}]}
  runtime: {placement: inline}
far:
  outputs: [{name: out, type: string}]
  prompt: {role: main, template: hi, tools: [{name: far, maps_to: deep}]}
deep:
  outputs: [{name: out, type: string}]
  transform: {mode: declarative, spec: {op: io.format_response, args: {template: hi}}}
"""


def test_a_tool_has_a_deployment_of_its_own_or_runs_where_it_is_asked_for():
    flow = plan(small_flow(TOOLS % "", ["_input.x -> ask.x", "ask.out -> _output"]))
    assert [(stage.deployment, stage.nodes, stage.tools) for stage in stages(flow)] == [
        ("small.ask", ("ask", "near"), ("far", "deep")),
        ("small.far", ("far",), ("deep",)),
        ("small.deep", ("deep",), ()),
    ]
    inline = plan(small_flow(TOOLS % "placement: inline", ["_input.x -> ask.x", "ask.out -> _output"]))
    assert [(stage.deployment, stage.nodes, stage.tools) for stage in stages(inline)] == [
        (None, ("ask", "near"), ("far", "deep")),
        ("small.far", ("far",), ("deep",)),
        ("small.deep", ("deep",), ()),
    ]
    assert [(stage.deployment, stage.nodes) for stage in stages(flow, "inline")] == [
        (None, ("ask", "near", "far", "deep")),
    ]
