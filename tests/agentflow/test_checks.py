"""What makes a well-formed flow wrong, and what does not."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import FlowInvalid, inspect_flow, loads
from agentflow.checks import check
from agentflow.checks.cycles import cycles
from agentflow.ir import Flow, Runtime
from agentflow.operations import OperationSpecification, has_side_effect
from support.broken_flows import GOOD, LATER, MEANING, ROLE, Broken

SHARED = sorted((Path(__file__).parent / "flows").glob("*.yaml"))
CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "flows").glob("*.yaml"))


@pytest.mark.parametrize("case", MEANING, ids=lambda case: f"{case.code}:{case.path}")
def test_a_defect_gives_one_finding_at_its_place(case: Broken):
    flow, findings = inspect_flow(case.text, **case.known)
    assert flow is not None
    found = [(each.code, each.dotted_path, each.place.line if each.place else 0, each.severity) for each in findings]
    assert found == [(case.code, case.path, case.line, case.severity)]
    if case.severity == "error":
        with pytest.raises(FlowInvalid):
            loads(case.text, **case.known)


@pytest.mark.parametrize("path", SHARED, ids=lambda path: path.stem)
def test_the_flows_on_the_feature_store_are_without_findings(path: Path):
    assert inspect_flow(path)[1] == ()


def test_a_handle_may_go_to_code_in_its_own_process_and_nowhere_else():
    text = (
        GOOD.replace("op: io.format_response", "op: hopsworks.get_model")
        .replace('{text: "${reply.text}"}', "x")
        .replace("template: x", "name: fraud")
        .replace("to: _output}", "to: use.model}\n  - {from: use.out, to: _output}")
        .replace(
            "edges:",
            "  use:\n    inputs: [{name: model, type: object}]\n    outputs: [{name: out, type: object}]\n"
            "    transform: {mode: code, module: 'shop.models:score'}\nedges:",
        )
    )
    assert [finding.code for finding in inspect_flow(text)[1]] == ["handle-leaves"]
    inline = f"{text}deployment: {{target: ray, ray: {{placement: inline}}}}\n"
    assert inspect_flow(inline)[1] == ()


def test_a_query_that_is_a_vector_needs_no_embedder():
    search = GOOD.replace("op: io.format_response", "op: features.vector_search").replace(
        "{name: result, type: object}", "{name: result, type: array}"
    )
    for port, query, codes in (
        ("object", "${reply.vector}", []),
        ("embedding", "${reply}", []),
        ("object", "${context.question}", []),
        ("string", "${reply}", ["no-embedder"]),
    ):
        text = search.replace('template: {text: "${reply.text}"}', f"index: rules_v1\n          query: {query}")
        text = text.replace("{name: reply, type: object}", f"{{name: reply, type: {port}}}")
        assert [finding.code for finding in inspect_flow(text, has_embedder=False)[1]] == codes, (port, query)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_example_flows_are_without_findings(path: Path):
    flow, findings = inspect_flow(path)
    assert flow is not None and findings == ()


def test_installed_operations_stand_beside_the_catalogue():
    text = GOOD.replace("op: io.format_response", "op: shop.price")
    installed = OperationSpecification("shop.price", {"template": True}, False, "prices things")
    assert [finding.code for finding in inspect_flow(text)[1]] == ["unknown-operation"]
    assert loads(text, operations=[installed]).findings == ()
    assert has_side_effect("shop.price") and not has_side_effect("io.format_response")


def test_the_hint_names_the_nearest_operation_and_argument():
    [finding] = inspect_flow(GOOD.replace("io.format_response", "io.format_respons"))[1]
    assert finding.hint.startswith("did you mean 'io.format_response'?")
    [finding] = inspect_flow(GOOD.replace("io.format_response", "llm.generate"))[1]
    assert "give the node a prompt" in finding.hint


def test_a_role_may_come_from_the_prompt_the_flow_or_the_server():
    without = GOOD.replace(ROLE, "")
    assert loads(without, has_default_role=True).findings == ()
    assert loads(without.replace("edges:\n", "defaults: {role: fast}\nedges:\n")).findings == ()
    assert loads(GOOD, roles=["fast"], providers=[]).findings == ()


def test_fields_that_are_supported_give_no_finding():
    runtime = (
        "{timeout_ms: 5, retries: 2, retry_backoff_ms: 0, concurrency: 3, placement: inline, idempotent: true,"
        " backoff: constant, jitter: false, requires_context: [locale, trace_id],"
        " resources: {num_cpus: 0.5, memory: 1Gi}, autoscaling: {min_replicas: 0, max_replicas: 2}}"
    )
    text = GOOD.replace(ROLE, f"{ROLE}      memory: none\n    runtime: {runtime}\n").replace(
        "edges:\n",
        "inputs: {locale: {type: string, default: en}}\noutputs: {text: {type: object}}\n"
        "defaults: {temperature: 0, max_tokens: 5}\ndurability: none\n"
        "deployment: {target: kserve, ray: {placement: inline}, kserve: {min_replicas: 1}}\nedges:\n",
    )
    assert loads(text).findings == ()


def test_every_field_that_only_parses_is_refused_by_name():
    assert len({case.path for case in LATER}) == len(LATER)
    fields = {case.path.rpartition(".")[2] for case in LATER}
    later_runtime = {"placement"}
    now_runtime = {"timeout_ms", "retries", "retry_backoff_ms", "requires_context", "concurrency"}
    now_runtime |= {
        "resources",
        "autoscaling",
        "idempotent",
        "retry_on",
        "backoff",
        "max_backoff_ms",
        "jitter",
        "cache",
    }
    assert later_runtime <= fields
    assert later_runtime | now_runtime == set(Runtime.model_fields) | {"placement"}


def graph_flow(edges: str, *, optional: str = "", fields: str = "optional: [o, p]", errors: str = "") -> Flow:
    """A flow whose nodes are single letters with inputs `a b` and output `x`, from edges like `A.x>B.a`.

    A lower-case source is a request field; `?` makes an edge conditional; `A!` is A's error port.
    """
    nodes: dict[str, Any] = {}
    listed: list[dict[str, str]] = []
    wired: dict[str, set[str]] = {}
    for edge in edges.split():
        ends, mark, _ = edge.partition("?")
        source, target = ends.split(">")
        listed.append({"from": _end(source), "to": _end(target)} | ({"condition": "value"} if mark else {}))
        for end in (source, target):
            if end[0].isupper():
                nodes.setdefault(end[0].lower(), {})
        if target != "_output":
            wired.setdefault(target[0].lower(), set()).add(target[2])
    for name, node in nodes.items():
        node["inputs"] = [
            {"name": port, "type": "object", "optional": f"{name.upper()}.{port}" in optional.split()}
            for port in sorted(wired.get(name, ()))
        ]
        node["outputs"] = [{"name": "x", "type": "object"}]
        node["error"] = {"name": "err"} if f"{name.upper()}!" in edges or name in errors else None
        node["transform"] = {"mode": "code", "module": "a:b"}
    key, _, names = fields.partition(": ")
    context = {"requires": ["r"], key: names.strip("[]").split(", ")}
    return Flow.model_validate(
        {"version": "1.0", "metadata": {"name": "g"}, "context": context, "nodes": nodes, "edges": listed}
    )


def _end(text: str) -> str:
    if text == "_output":
        return text
    if text[0].islower():
        return f"_input.{text}"
    return f"{text[0].lower()}.err" if text[1:] == "!" else f"{text[0].lower()}{text[1:]}"


@pytest.mark.parametrize(
    "edges",
    [
        "r>A.a r>B.a A.x>D.a? B.x>D.a? D.x>_output",
        "r>A.a A.x>D.a A!>D.a D.x>_output",
        "r>A.a A.x>D.a A!>H.a H.x>D.a D.x>_output",
        "r>A.a A.x>B.a? A.x>C.a? B.x>D.a C.x>D.a D.x>_output",
        "r>A.a A.x>B.a? B.x>C.a C.x>E.a A.x>D.a? D.x>E.a E.x>_output",
        "o>A.a p>A.a A.x>_output",
        "r>A.a A.x>B.a? B.x>D.a A.x>D.a D.x>_output",
        "r>A.a A.x>_output A!>_output",
    ],
)
def test_edges_that_may_exclude_each_other_can_share_an_input(edges: str):
    assert check(graph_flow(edges)) == ()


@pytest.mark.parametrize(
    ("edges", "second"),
    [
        ("r>A.a r>B.a A.x>D.a B.x>D.a D.x>_output", 3),
        ("r>A.a A.x>D.a A.x>D.a D.x>_output", 2),
        ("r>A.a r>A.a A.x>_output", 1),
        ("r>A.a A.x>B.a? B.x>C.a B.x>D.a C.x>D.a D.x>_output", 4),
        ("r>A.a A.x>B.a? B.x>C.a B.x>D.a r>D.b C.x>D.a D.x>_output", 5),
        ("r>A.a r>D.a A.x>D.a D.x>_output", 2),
    ],
)
def test_edges_that_are_always_live_together_cannot_share_an_input(edges: str, second: int):
    assert [(finding.code, finding.path) for finding in check(graph_flow(edges))] == [
        ("doubled-input", ("edges", second))
    ]


def test_an_optional_input_does_not_decide_when_a_node_runs():
    together = "r>A.a A.x>B.a? r>B.b B.x>D.a r>C.a C.x>D.a D.x>_output"
    assert check(graph_flow(together)) == ()
    findings = check(graph_flow(together, optional="B.a"))
    assert [finding.code for finding in findings] == ["doubled-input"]


def test_a_default_makes_an_optional_field_always_there():
    flow = graph_flow("o>A.a r>A.a A.x>_output")
    assert check(flow) == ()
    data = {**flow.model_dump(by_alias=True), "inputs": {"o": {"default": {}}}}
    with_default = Flow.model_validate(data)
    assert [finding.code for finding in check(with_default)] == ["doubled-input"]


def test_a_node_that_acts_is_needed_although_nothing_follows_from_it():
    text = GOOD.replace("{from: answer.result, to: _output}", "{from: draft.reply, to: _output}")
    acting = text.replace("op: io.format_response", "op: http.post").replace(
        'template: {text: "${reply.text}"}', "url: 'https://hooks.test'"
    )
    assert [finding.code for finding in inspect_flow(text)[1]] == ["unneeded-node"]
    assert inspect_flow(acting)[1] == ()


def test_a_handler_of_a_needed_node_is_needed():
    text = GOOD.replace("    prompt:", "    error: {name: failed}\n    prompt:").replace(
        "  - {from: answer.result, to: _output}\n", "  - {from: draft.reply, to: _output}\n"
    )
    handled = text.replace("{from: draft.reply, to: answer.reply}", "{from: draft.failed, to: answer.reply}")
    assert {finding.code for finding in inspect_flow(text)[1]} == {"unneeded-node", "unwired-error"}
    assert inspect_flow(handled)[1] == ()


def test_a_cycle_is_named_with_the_edge_that_closes_it():
    flow = graph_flow("r>A.b A.x>B.a? B.x>C.a? C.x>A.a? C.x>_output D.x>D.a? D.x>_output")
    found = [finding for finding in check(flow) if finding.code == "cycle"]
    assert [(finding.path, finding.message) for finding in found] == [
        (("edges", 3), "these nodes wait for each other: a -> b -> c -> a"),
        (("edges", 5), "these nodes wait for each other: d -> d"),
    ]


def test_a_broken_condition_is_a_condition_all_the_same():
    flow = graph_flow("r>A.a A.x>B.a? A.x>B.a? B.x>_output")
    edges = [edge.model_copy(update={"condition": "==" if edge.condition else None}) for edge in flow.edges]
    findings = check(flow.model_copy(update={"edges": tuple(edges)}))
    assert [finding.code for finding in findings] == ["bad-condition", "bad-condition"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=25))
def test_a_graph_has_cycles_exactly_when_it_has_no_order(edges: list[tuple[int, int]]):
    targets: dict[str, list[str]] = {}
    for source, target in edges:
        targets.setdefault(str(source), []).append(str(target))
    found = list(cycles([str(node) for node in range(10)], targets))
    try:
        TopologicalSorter(targets).prepare()
    except CycleError:
        assert found
    else:
        assert not found
    for cycle in found:
        assert all(after in targets[before] for before, after in zip(cycle, [*cycle[1:], cycle[0]], strict=True))
    knots = [set(cycle) for cycle in found]
    assert sum(map(len, knots)) == len(set[str]().union(*knots))


def test_an_edge_that_cannot_be_resolved_does_not_leave_its_target_unwired():
    text = GOOD.replace("from: draft.reply,", "from: draft.replies,")
    assert [finding.code for finding in inspect_flow(text)[1]] == ["unknown-port"]


def test_one_edge_may_answer_with_all_declared_outputs():
    text = GOOD.replace("edges:\n", "outputs: {a: {type: object}, b: {type: string}}\nedges:\n")
    assert loads(text).findings == ()
    apart = text.replace("to: _output}", "to: _output.a}\n  - {from: _input.locale, to: _output.b}")
    assert loads(apart).findings == ()


def test_a_port_named_error_is_a_port_like_any_other():
    assert loads(GOOD.replace("name: reply", "name: error").replace("reply", "error")).findings == ()
