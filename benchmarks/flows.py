"""The flows that the benchmarks run, and their size."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from agentflow import Flow, from_mapping

HEAD, BRANCHES, TAIL = "head", ("b1", "b2", "b3", "b4", "b5", "b6"), "tail"
DIAMOND = (HEAD, *BRANCHES, TAIL)
TRIVIAL = {"mode": "declarative", "spec": {"op": "io.format_response", "args": {"template": {"v": "${x}"}}}}
WAITS = {"mode": "code", "module": "benchmarks.work:wait"}
TIMEOUT_S = 30.0


def diamond(name: str, transform: Mapping[str, Any]) -> dict[str, Any]:
    """Eight nodes: one, then six side by side, then one. `transform` turns `x` into `out`, both objects."""
    tail_ports = ("x", *BRANCHES[1:])
    nodes = {node: _node(("x",), transform) for node in (HEAD, *BRANCHES)} | {TAIL: _node(tail_ports, transform)}
    edges = [
        ("_input.x", f"{HEAD}.x"),
        *((f"{HEAD}.out", f"{branch}.x") for branch in BRANCHES),
        *((f"{branch}.out", f"{TAIL}.{port}") for branch, port in zip(BRANCHES, tail_ports, strict=True)),
        (f"{TAIL}.out", "_output"),
    ]
    return document(name, nodes, edges)


def single(name: str, transform: Mapping[str, Any] = TRIVIAL) -> dict[str, Any]:
    """One node."""
    return document(name, {HEAD: _node(("x",), transform)}, [("_input.x", f"{HEAD}.x"), (f"{HEAD}.out", "_output")])


def document(name: str, nodes: Mapping[str, Any], edges: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A flow file's data, whose request has the field `x`."""
    return {
        "version": "1.0",
        "metadata": {"name": name},
        "context": {"requires": ["x"]},
        "defaults": {"timeout_ms": int(TIMEOUT_S * 1000), "retries": 1},
        "nodes": dict(nodes),
        "edges": [{"from": source, "to": target} for source, target in edges],
    }


def waiting(name: str, seconds: Mapping[str, float], edges: Sequence[tuple[str, str]]) -> Flow:
    """Nodes that wait, each for its own time, joined as `edges` says; ends are node names."""
    ports = {node: [f"from_{source}" for source, target in edges if target == node] for node in seconds}
    wait = {"mode": "code", "module": "benchmarks.work:wait_as_told"}
    nodes = {node: _node(("seconds", *ports[node]), wait, seconds="number") for node in seconds}
    wires = [(f"_input.{node}", f"{node}.seconds") for node in seconds]
    wires += [(f"{source}.out", f"{target}.from_{source}") for source, target in edges]
    wires += [(f"{node}.out", f"_output.{node}") for node in seconds if node not in {source for source, _ in edges}]
    data = document(name, nodes, wires)
    data["context"]["requires"] = list(seconds)
    data["inputs"] = {node: {"type": "number"} for node in seconds}
    return from_mapping(data).flow


def wide_yaml(nodes: int) -> str:
    """A flow file of many prompts: chains of ten, as a generated flow has them."""
    lines = ['version: "1.0"', "metadata: {name: wide}", "context: {requires: [x]}", "nodes:"]
    for number in range(nodes):
        lines += [
            f"  n{number}:",
            "    inputs: [{name: x, type: string}]",
            "    outputs: [{name: out, type: string}]",
            "    prompt:",
            "      role: llm.writer",
            '      template: "Rewrite {{ x }} in one sentence."',
            "    runtime: {timeout_ms: 8000, retries: 2}",
        ]
    lines.append("edges:")
    for number in range(nodes):
        source = "_input.x" if number % 10 == 0 else f"n{number - 1}.out"
        lines.append(f"  - {{from: {source}, to: n{number}.x}}")
        if number % 10 == 9 or number == nodes - 1:
            lines.append(f"  - {{from: n{number}.out, to: _output.o{number}}}")
    return "\n".join(lines) + "\n"


def wide_flow(nodes: int) -> Flow:
    """`wide_yaml` as an object; more of it than a file may hold."""
    return Flow.model_validate(yaml.load(wide_yaml(nodes), Loader=yaml.CSafeLoader))


def request_body(request: Mapping[str, Any]) -> bytes:
    """A request in KServe's V1 form."""
    return json.dumps({"instances": [request]}).encode()


def _node(inputs: Sequence[str], transform: Mapping[str, Any], **types: str) -> dict[str, Any]:
    return {
        "inputs": [{"name": name, "type": types.get(name, "object")} for name in inputs],
        "outputs": [{"name": "out", "type": "object"}],
        "transform": dict(transform),
    }
