"""Loading: what a flow file may be, what is refused, and where findings say the trouble is."""

from __future__ import annotations

import gc
import json
import pickle
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agentflow import FlowInvalid, from_mapping, inspect_flow, load, loads, plan
from agentflow.diagram import mermaid
from agentflow.findings import Place
from agentflow.scalars import NumberError, resolve
from agentflow.yaml_tree import read_yaml
from support.broken_flows import BROKEN, GOOD, IN_TEXT, SHAPES, Broken

FLOWS = sorted((Path(__file__).parent / "flows").glob("*.yaml"))
CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "flows").glob("*.yaml"))


def findings_of(text: str, **known: Any) -> list[tuple[str, str, int]]:
    with pytest.raises(FlowInvalid) as caught:
        loads(text, file="desk.yaml", **known)
    return [(each.code, each.dotted_path, each.place.line if each.place else 0) for each in caught.value.findings]


def name_of(case: Broken) -> str:
    return f"{case.code}:{case.path[:40]}"


def data_of(text: str) -> dict[str, Any]:
    return read_yaml(text, file="data").data


@pytest.mark.parametrize("case", [*IN_TEXT, *SHAPES], ids=name_of)
def test_a_file_that_is_no_flow_gets_one_finding_at_the_place_of_the_defect(case: Broken):
    assert findings_of(case.text) == [(case.code, case.path, case.line)]


@pytest.mark.parametrize("case", IN_TEXT, ids=name_of)
def test_the_python_parser_refuses_the_same_texts(case: Broken):
    if not case.text.startswith(("{", "[", "#")) and case.code not in ("control-character", "not-utf-8"):
        tree = read_yaml(case.text, file="f", reader=yaml.SafeLoader)
        assert [each.code for each in tree.findings] == [case.code]


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.name)
def test_both_yaml_parsers_read_a_flow_alike(path: Path):
    text = path.read_text()
    tree = read_yaml(text, file="f", reader=yaml.SafeLoader)
    assert tree.findings == ()
    assert tree == read_yaml(text, file="f")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("true", True),
        ("False", False),
        ("", None),
        ("~", None),
        ("null", None),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("-7", -7),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        ("2024-01-31T10:00:00Z", "2024-01-31T10:00:00Z"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("=", "="),
        ("0b11", "0b11"),
        ("infinity", "infinity"),
    ],
)
def test_a_plain_scalar_means_what_the_core_schema_of_yaml_1_2_says(text: str, value: Any):
    assert (type(resolve(text)), resolve(text)) == (type(value), value)


@given(st.text(max_size=20))
def test_every_plain_scalar_has_a_meaning_or_is_refused(text: str):
    try:
        value = resolve(text)
    except NumberError:
        return
    assert value is None or isinstance(value, str | int | float)
    json.dumps(value, allow_nan=False)


def test_an_unquoted_on_is_the_key_of_a_fallback():
    text = GOOD.replace("      role: fast\n", "      role: fast\n      fallback: {on: [timeout, error], role: slow}\n")
    fallback = loads(text).flow.nodes["draft"].prompt.fallback  # type: ignore[union-attr]
    assert fallback is not None and fallback.on == ("timeout", "error")


def test_yaml_json_and_data_give_the_same_flow():
    data = data_of(GOOD)
    flow = loads(GOOD).flow
    assert loads(json.dumps(data)).flow == flow
    assert loads(json.dumps(data, indent="\t")).flow == flow
    assert loads("\ufeff" + GOOD).flow == flow
    assert loads(GOOD.replace("\n", "\r\n")).flow == flow
    assert from_mapping(data).flow == flow


def test_json_may_escape_what_yaml_cannot():
    data = data_of(GOOD)
    data["metadata"]["description"] = "fits \U0001f44d / \u2028 and \x7f"
    assert loads(json.dumps(data)).flow.metadata.description == data["metadata"]["description"]
    assert "\\ud83d\\udc4d" in json.dumps(data)


def test_findings_in_json_have_places_too():
    text = json.dumps(data_of(GOOD), indent=2).replace('"template": "Answer', '"templat": "Answer')
    line = text[: text.index('"templat"')].count("\n") + 1
    assert ("unknown-key", "nodes.draft.prompt.templat", line) in findings_of(text)
    assert [finding[0] for finding in findings_of('{"a": 1,\n "a": 2}')] == ["duplicate-key"]


def test_everything_that_is_wrong_is_reported_at_once_and_in_the_order_of_the_file():
    text = (
        GOOD.replace('"Answer: {{ question }}"', '"{{ nothing }}"')
        .replace("op: io.format_response", "op: io.frmat")
        .replace('"${reply.text}"', '"${nothing}"')
        .replace("answer.reply}", "answer.replies}")
        .replace("optional: [locale]", "optional: [question]")
    )
    assert [code for code, _, _ in findings_of(text)] == [
        "contradictory-field",
        "bad-template",
        "unwired-input",
        "unknown-operation",
        "bad-placeholder",
        "unknown-port",
    ]
    shapes = GOOD.replace("role: fast", "rol: 3").replace("mode: declarative", "mode: x").replace("{name: desk}", "{}")
    assert [code for code, _, _ in findings_of(shapes)] == ["missing-key", "unknown-key", "bad-value"]


def test_a_finding_reads_like_a_compiler_message():
    with pytest.raises(FlowInvalid) as caught:
        loads(GOOD.replace("      role: fast", "      rolle: fast"), file="flows/desk.yaml")
    [finding] = caught.value.findings
    assert str(finding) == (
        "flows/desk.yaml:15:7 nodes.draft.prompt.rolle: error unknown-key: unknown key 'rolle' (did you mean 'role'?)"
    )
    assert str(finding) in str(caught.value)


def test_places_lead_to_the_nearest_thing_in_the_text():
    loaded = loads(GOOD, file="desk.yaml")
    assert loaded.source_of(("nodes", "draft", "prompt", "template")) == Place("desk.yaml", 14, 7)
    assert loaded.source_of(("edges", 1)) == Place("desk.yaml", 30, 5)
    assert loaded.source_of(("edges", 1, "to")) == Place("desk.yaml", 30, 25)
    assert loaded.source_of(("nodes", "draft", "runtime", "retries")) == Place("desk.yaml", 7, 3)
    assert loaded.source_of(("edges", 99)) == Place("desk.yaml", 28, 1)
    assert from_mapping(data_of(GOOD)).source_of(("nodes",)) is None


def test_warnings_do_not_keep_a_flow_from_loading():
    loaded = loads(GOOD.replace("role: fast\n", "role: fast\n    runtime: {jitter: true}\n"))
    assert [(each.code, each.severity) for each in loaded.findings] == [("unused-retry", "warning")]
    assert loads(GOOD).findings == ()


def test_a_flow_file_is_read_with_its_name_in_every_place(tmp_path: Path):
    path = tmp_path / "desk.yaml"
    path.write_text(GOOD)
    assert load(path).flow == loads(GOOD).flow
    assert str(load(str(path)).source_of(("nodes",))) == f"{path}:6:1"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load(path).flow == loads(GOOD).flow


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        (None, "unreadable-file", 1),
        (b"version: '1.0'\nmetadata: \xff\n", "not-utf-8", 2),
        (GOOD.encode("utf-16"), "not-utf-8", 1),
        (b"a" * (1024 * 1024 + 1), "too-large", 1),
        (b"\xff" * (1024 * 1024 + 1), "too-large", 1),
        (b"", "wrong-type", 1),
    ],
)
def test_a_file_that_cannot_be_read_is_a_finding(tmp_path: Path, content: bytes | None, code: str, line: int):
    path = tmp_path / "flow.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FlowInvalid, match=re.escape(str(path))) as caught:
        load(path)
    [finding] = caught.value.findings
    assert (finding.code, finding.place and finding.place.line) == (code, line)


@pytest.mark.parametrize("path", ["", ".", "/", "/dev/zero", "no\0such", "x" * 5000])
def test_a_path_that_is_no_file_is_a_finding(path: str):
    with pytest.raises(FlowInvalid) as caught:
        load(path)
    assert [finding.code for finding in caught.value.findings] == ["unreadable-file"]


def test_inspecting_never_raises_and_keeps_a_flow_of_good_shape(tmp_path: Path):
    path = tmp_path / "desk.yaml"
    path.write_text(GOOD.replace("role: fast", "role: slow"))
    flow, findings = inspect_flow(path, roles=["fast"])
    assert flow is not None and [finding.code for finding in findings] == ["unknown-role"]
    assert inspect_flow(GOOD) == (loads(GOOD).flow, ())
    assert inspect_flow(data_of(GOOD)) == (loads(GOOD).flow, ())
    assert inspect_flow(json.dumps(data_of(GOOD))) == (loads(GOOD).flow, ())
    flow, findings = inspect_flow(tmp_path / "missing.yaml")
    assert flow is None and [finding.code for finding in findings] == ["unreadable-file"]


class Endless(dict[str, Any]):
    """A mapping that holds itself."""

    def __init__(self) -> None:
        super().__init__()
        self["again"] = self


def shared_parts(depth: int) -> list[Any]:
    part: list[Any] = []
    for _ in range(depth):
        part = [part] * 9
    return part


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (Endless(), "too-deep"),
        ({"a": shared_parts(9)}, "too-many-nodes"),
        ({"a": float("nan")}, "bad-number"),
        ({"a": 10**100}, "bad-number"),
        ({"a": {1, 2}}, "not-json"),
        ({"a": b"bytes"}, "not-json"),
        ({1: "a"}, "bad-key"),
        ({"a": "x" * (1024 * 1024 + 1)}, "too-large"),
        ({"a": "\ud800"}, "not-utf-8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_data_is_held_to_the_limits_of_a_file(data: Any, code: str):
    with pytest.raises(FlowInvalid) as caught:
        from_mapping(data)
    assert [(finding.code, finding.place) for finding in caught.value.findings] == [(code, None)]


def test_a_loaded_flow_is_apart_from_the_data_it_was_made_of():
    data = data_of(GOOD)
    flow = from_mapping(data).flow
    data["nodes"]["answer"]["transform"]["spec"]["args"]["template"]["text"] = "changed"
    assert flow == loads(GOOD).flow


def test_the_error_crosses_a_process_boundary_with_its_findings():
    with pytest.raises(FlowInvalid) as caught:
        loads(GOOD.replace("role: fast", "rolle: fast"))
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.findings) == (str(caught.value), caught.value.findings)
    assert pickle.loads(pickle.dumps(loads(GOOD))) == loads(GOOD)


def test_loading_leaves_garbage_collection_as_it_was():
    for switch in (gc.disable, gc.enable):
        switch()
        before = gc.isenabled()
        loads(GOOD)
        with pytest.raises(FlowInvalid):
            loads("{")
        assert gc.isenabled() == before


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def places_in(data: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of some data."""
    pairs: list[tuple[Any, Any]] = []
    pending = [data]
    while pending:
        part = pending.pop()
        if isinstance(part, dict | list):
            keys = list(part) if isinstance(part, dict) else range(len(part))
            pairs += [(part, key) for key in keys]
            pending += [part[key] for key in keys]
    return pairs


@given(st.data())
def test_a_mutated_flow_loads_or_is_refused_and_nothing_else(data: st.DataObject):
    flow_data = data_of(data.draw(st.sampled_from([path.read_text() for path in (*FLOWS, *CONFIGS)])))
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places_in(flow_data)))
        match data.draw(st.sampled_from(["drop", "replace", "rename", "repeat", "swap"])):
            case "drop":
                del container[key]
            case "replace":
                container[key] = data.draw(JSON_VALUES)
            case "rename" if isinstance(container, dict):
                container[data.draw(st.text(max_size=10))] = container.pop(key)
            case "repeat" if isinstance(container, list):
                container.append(container[key])
            case _:
                other, name = data.draw(st.sampled_from(places_in(flow_data)))
                container[key] = json.loads(json.dumps(other[name]))
    try:
        loaded = from_mapping(flow_data)
    except FlowInvalid as exc:
        assert exc.findings
        return
    plan(loaded.flow)
    mermaid(loaded.flow)


@given(st.data())
def test_a_mutated_text_loads_or_is_refused_and_nothing_else(data: st.DataObject):
    text = GOOD
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(at, min(len(text), at + 20)))
        text = (
            text[:at]
            + data.draw(st.text(max_size=6) | st.sampled_from(["\t", "&a ", "*a", "!!x ", "{", "- "]))
            + text[end:]
        )
    flow, findings = inspect_flow(text + "\n")
    assert flow is not None or findings
    for finding in findings:
        assert finding.message and str(finding)


def test_a_flow_of_2500_nodes_is_loaded_and_planned_in_about_a_second():
    node = (
        "  n{0}:\n    inputs:\n      - {{name: a, type: string}}\n    outputs:\n      - {{name: b, type: string}}\n"
        "    prompt:\n      template: 'Step {0} of {{{{ a }}}}'\n      role: fast\n"
        "    runtime: {{timeout_ms: 2000, retries: 2}}\n"
    )
    text = (
        "version: '1.0'\nmetadata: {name: long}\ncontext: {requires: [q]}\nnodes:\n"
        + "".join(node.format(index) for index in range(2500))
        + "edges:\n  - {from: _input.q, to: n0.a}\n  - {from: n2499.b, to: _output}\n"
        + "".join(f"  - {{from: n{index}.b, to: n{index + 1}.a}}\n" for index in range(2499))
    )
    before = time.process_time()
    made = plan(loads(text).flow)
    assert time.process_time() - before < 3
    assert len(made.graph.nodes) == 2500


def test_there_is_a_broken_flow_for_every_place_that_can_be_marked():
    marked = [case for case in BROKEN if case.line != 1]
    assert len(marked) > 100
