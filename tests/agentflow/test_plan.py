"""From a flow to its plan: which nodes run, with which settings, and what the flow takes and gives."""

from __future__ import annotations

import gc
import time
from typing import Any

import pytest

from agentflow import Flow, plan
from agentflow.ir import ModelRef
from agentflow.planning import acts
from agentflow.settings import roles_of
from agentflow.types import PortType
from support.flows import small_flow

ANSWER = """
answer:
  inputs: [{name: x, type: string}]
  outputs: [{name: out, type: string}]
  prompt: {template: "{{ x }}", role: main}
"""
ANSWERED = ["_input.x -> answer.x", "answer.out -> _output"]


def aside(does: str) -> str:
    """A node that gets the request and feeds nothing."""
    return f"""
aside:
  inputs: [{{name: x, type: string}}]
  outputs: [{{name: out, type: object}}]
  {does}
"""


def operation(op: str, args: str = "{}") -> str:
    return f"transform: {{mode: declarative, spec: {{op: {op}, args: {args}}}}}"


SESSION = "state: {scope: session, key: 's_{context.session_id}'}\n  "
REQUEST = "state: {scope: request}\n  "
PROMPT = 'prompt: {template: "{{ x }}", role: main}'
CODE = 'transform: {mode: code, spec: "def transform(inputs, context, state): return {}"}'


@pytest.mark.parametrize(
    ("does", "runs"),
    [
        (operation("http.post", "{url: 'https://example.com'}"), True),
        (CODE, True),
        (f"{SESSION}{PROMPT}", True),
        (f"{PROMPT}\n  {CODE}", True),
        (f"{PROMPT}\n  {operation('http.post', '{url: https://example.com}')}", True),
        (PROMPT, False),
        (f"{REQUEST}{PROMPT}", False),
        (operation("http.get", "{url: 'https://example.com'}"), False),
        (operation("io.format_response", "{template: x}"), False),
        (operation("transform.filter", "{input: '${x}', expression: 'True'}"), False),
    ],
)
def test_a_node_that_no_answer_needs_runs_only_if_it_acts(does: str, runs: bool):
    flow = small_flow(ANSWER + aside(does), [*ANSWERED, "_input.x -> aside.x"], requires=["x", "session_id"])
    planned = plan(flow)
    assert acts(flow.nodes["aside"]) is runs
    assert set(planned.graph.nodes) == ({"answer", "aside"} if runs else {"answer"})
    assert set(planned.settings) == set(planned.graph.nodes)


@pytest.mark.parametrize("op", ["features.write", "hopsworks.write_features", "shop.unheard_of"])
def test_writing_operations_and_those_that_nobody_knows_are_taken_to_act(op: str):
    node = {"transform": {"mode": "declarative", "spec": {"op": op}}}
    flow = Flow.model_validate(
        {"version": "1.0", "metadata": {"name": "f"}, "context": {}, "nodes": {"write": node}, "edges": []}
    )
    assert acts(flow.nodes["write"])
    assert set(plan(flow).graph.nodes) == {"write"}


def test_what_an_acting_node_or_a_handler_needs_runs_too_and_a_handlers_dead_end_does_not():
    def text(name: str, *ports: str, error: bool = False) -> str:
        inputs = ", ".join(f"{{name: {port}, type: {'object' if port == 'problem' else 'string'}}}" for port in ports)
        broke = "\n  error: {name: broke}" if error else ""
        return f"""
{name}:
  inputs: [{inputs}]
  outputs: [{{name: out, type: string}}]{broke}
  {PROMPT.replace("{{ x }}", "hi")}
"""

    nodes = [
        text("answer", "x", error=True),
        text("feeds_handler", "x"),
        text("handler", "problem", "more", error=True),
        text("handles_the_handler", "problem"),
        text("after_handler", "x"),
        text("feeds_action", "x"),
        text("unused", "x", error=True),
        text("handles_unused", "problem"),
    ]
    flow = small_flow(
        "".join(nodes) + aside(CODE),
        [
            *ANSWERED,
            "_input.x -> feeds_handler.x",
            "answer.broke -> handler.problem",
            "feeds_handler.out -> handler.more",
            "handler.broke -> handles_the_handler.problem",
            "handler.out -> after_handler.x",
            "_input.x -> feeds_action.x",
            "feeds_action.out -> aside.x",
            "_input.x -> unused.x",
            "unused.broke -> handles_unused.problem",
        ],
    )
    graph = plan(flow).graph
    left_out = {"after_handler", "unused", "handles_unused"}
    assert set(flow.nodes) - set(graph.nodes) == left_out
    assert not {wire.target for wire in graph.wires} & left_out
    assert graph.handles_failure("answer")


def test_a_node_is_repeatable_if_it_has_no_effects_or_says_that_it_is_idempotent():
    answer = ANSWER.replace("answer:", "careful:").replace("role: main}", "role: main}\n  runtime: {idempotent: false}")
    flow = small_flow(
        aside(CODE) + aside(CODE + "\n  runtime: {idempotent: true}").replace("aside", "safe") + answer + ANSWER,
        [
            "_input.x -> answer.x",
            "answer.out -> _output if out",
            *(f"_input.x -> {name}.x" for name in ("aside", "safe", "careful")),
            "careful.out -> _output if out",
        ],
    )
    assert {name: node.repeatable for name, node in plan(flow).graph.nodes.items()} == {
        "aside": False,
        "safe": True,
        "careful": False,
        "answer": True,
    }


# -- settings ----------------------------------------------------------------------------------------------------------


def settings_of(node: str = "", **defaults: Any):
    nodes = ANSWER.replace("role: main}", f"role: main}}\n  runtime: {{{node}}}")
    return plan(small_flow(nodes, ANSWERED, defaults=defaults)).settings["answer"]


def test_a_node_that_says_nothing_has_a_timeout_and_one_attempt():
    settings = settings_of()
    assert (settings.timeout_s, settings.attempts, settings.backoff_s) == (30.0, 1, 1.0)
    assert (settings.concurrency, settings.temperature, settings.max_tokens) == (None, None, None)


def test_the_flows_defaults_stand_where_the_node_says_nothing_and_the_nodes_word_over_them():
    defaults = {"timeout_ms": 5000, "retries": 4, "retry_backoff_ms": 70, "temperature": 0.2, "max_tokens": 9}
    settings = settings_of("retries: 2", **defaults)
    assert (settings.timeout_s, settings.attempts, settings.backoff_s) == (5.0, 2, 0.07)
    assert (settings.temperature, settings.max_tokens) == (0.2, 9)


def test_an_explicit_zero_is_a_value_and_not_a_gap():
    flow = small_flow(
        ANSWER.replace("role: main}", "role: main, temperature: 0}\n  runtime: {retry_backoff_ms: 0}"),
        ANSWERED,
        defaults={"temperature": 0.7, "retry_backoff_ms": 500},
    )
    settings = plan(flow).settings["answer"]
    assert (settings.temperature, settings.backoff_s) == (0, 0)
    assert settings_of(temperature=0, retry_backoff_ms=0).temperature == 0


def test_a_prompts_model_is_its_own_role_or_model_else_the_flows_default():
    def model_of(written: str, **top: Any) -> Any:
        flow = small_flow(ANSWER.replace("role: main", written), ANSWERED, **top)
        return plan(flow).settings["answer"].model

    default = {"defaults": {"role": "other"}}
    assert model_of("role: main", **default) == "main"
    assert model_of("model: {provider: openai, name: m}", **default) == ModelRef(provider="openai", name="m")
    assert model_of("system: s", **default) == "other"


def test_a_node_without_a_prompt_has_no_model_even_when_the_flow_has_a_default():
    flow = small_flow(
        aside(CODE), ["_input.x -> aside.x", "aside.out -> _output"], defaults={"role": "main", "temperature": 1}
    )
    settings = plan(flow).settings["aside"]
    assert (settings.model, settings.temperature) == (None, None)


def test_the_roles_of_a_flow_are_those_of_prompts_defaults_and_fallbacks():
    nodes = ANSWER.replace("role: main}", "role: main, fallback: {on: error, role: spare}}")
    nodes += aside('prompt: {template: "hi"}')
    flow = small_flow(nodes, [*ANSWERED, "_input.x -> aside.x"], defaults={"role": "standard"})
    assert roles_of(flow) == {"main", "spare", "standard"}


def test_the_names_of_the_request_fields_are_kept_once_however_many_nodes_there_are():
    settings = plan(small_flow(ANSWER + aside(CODE), [*ANSWERED, "_input.x -> aside.x"])).settings
    assert settings["answer"].context_names is settings["aside"].context_names
    assert settings["answer"].context_names == {"x", "trace_id", "event_time"}


# -- signature ---------------------------------------------------------------------------------------------------------


def test_the_inputs_are_what_context_and_inputs_say_together():
    flow = small_flow(
        ANSWER,
        ANSWERED,
        requires=["x", "account"],
        context={"optional": ["locale"]},
        inputs={
            "account": {"type": "string", "schema": {"minLength": 3}},
            "page": {"type": "number", "default": 0},
            "cursor": {"default": None},
            "limit": {"type": "number"},
        },
    )
    fields = {field.name: field for field in plan(flow).signature.inputs}
    assert list(fields) == ["x", "account", "locale", "page", "cursor", "limit"]
    assert {name for name, field in fields.items() if field.required} == {"x", "account", "limit"}
    assert (fields["x"].type, fields["account"].type) == (None, PortType.STRING)
    assert fields["account"].schema == {"minLength": 3}
    assert [(fields[name].has_default, fields[name].default) for name in ("page", "cursor", "locale")] == [
        (True, 0),
        (True, None),
        (False, None),
    ]


TWO = """
one:
  inputs: [{name: x, type: string}]
  outputs: [{name: text, type: string}, {name: score, type: number}]
  error: {name: broke}
  prompt: {template: "{{ x }}", role: main, output_schema: {type: object}}
"""


def outputs_of(*edges: str, **top: Any) -> dict[str, PortType | None]:
    flow = small_flow(TWO, ["_input.x -> one.x", *edges], **top)
    return {field.name: field.type for field in plan(flow).signature.outputs}


def test_declared_outputs_are_the_outputs():
    declared = {"reply": {"type": "document"}, "score": {"type": "number"}}
    edges = ["one.text -> _output.reply", "one.score -> _output.score"]
    assert outputs_of(*edges, outputs=declared) == {"reply": PortType.DOCUMENT, "score": PortType.NUMBER}


def test_undeclared_outputs_are_inferred_from_the_edges_that_name_them():
    assert outputs_of("one.score -> _output.risk", "one.text -> _output.reply") == {
        "risk": PortType.NUMBER,
        "reply": PortType.STRING,
    }


def test_an_output_that_edges_of_different_types_make_has_no_type():
    edges = ["one.text -> _output.reply if text", "one.score -> _output.reply if not value", "one.text -> _output.same"]
    assert outputs_of(*edges) == {"reply": None, "same": PortType.STRING}
    assert outputs_of("one.text -> _output.reply", "one.broke -> _output.reply") == {"reply": None}


def test_an_answer_that_is_one_value_has_no_parts():
    assert outputs_of("one.text -> _output") == {}


# -- cost --------------------------------------------------------------------------------------------------------------


def wide_and_deep(size: int) -> Flow:
    """A tree with shortcuts, half of whose nodes answer, with state and a request of many fields."""
    nodes: dict[str, Any] = {}
    edges: list[dict[str, str]] = [{"from": "_input.f0", "to": "n0.a"}]
    for number in range(size):
        nodes[f"n{number}"] = {
            "inputs": [{"name": "a", "type": "number"}, {"name": "b", "type": "number", "optional": True}],
            "outputs": [{"name": "out", "type": "number"}],
            "state": {"scope": "request"},
            "transform": {"mode": "declarative", "spec": {"op": "io.format_response", "args": {"template": 1}}},
        }
        if number:
            edges.append({"from": f"n{(number - 1) // 2}.out", "to": f"n{number}.a"})
        if number > 2:
            edges.append({"from": f"n{number - 2}.out", "to": f"n{number}.b"})
        if number > size // 2:
            edges.append({"from": f"n{number}.out", "to": "_output"})
    context = {"requires": [f"f{number}" for number in range(size // 10)]}
    return Flow.model_validate(
        {"version": "1.0", "metadata": {"name": "big"}, "context": context, "nodes": nodes, "edges": edges}
    )


def cpu_s(flow: Flow) -> float:
    gc.collect()
    gc.disable()  # its cost grows with what the other tests have left in the process
    try:
        began = time.process_time()
        planned = plan(flow)
        spent = time.process_time() - began
    finally:
        gc.enable()
    assert len(planned.graph.nodes) == len(flow.nodes)
    return spent


def test_ten_thousand_nodes_are_planned_in_about_a_second_and_cost_grows_with_their_number():
    small, large = wide_and_deep(2_500), wide_and_deep(10_000)

    of_small = min(cpu_s(small) for _ in range(3))
    of_large = min(cpu_s(large) for _ in range(2))
    assert of_large < 9 * of_small, "a cost that grows with the square would be sixteen times as high"
    assert of_large < 10, "about a second on a quiet machine"
