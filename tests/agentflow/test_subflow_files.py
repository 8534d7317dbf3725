"""Subflows in files: found beside the flow that names them, never anywhere else, and never in a circle."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentflow import FlowInvalid, from_mapping, inspect_flow, load
from agentflow.checks import check
from agentflow.ir import Flow
from agentflow.subflow_files import MAX_DEPTH, MAX_FILES
from agentflow.subflows import all_flows
from agentflow.yaml_tree import read_yaml

FLOW = """\
version: "1.0"
metadata: {name: %(name)s}
context: {requires: [x]}
nodes:
%(nodes)s
edges:
%(edges)s
  - {from: _input.x, to: last.x}
  - {from: last.y, to: _output}
"""
PART = (
    "  %(id)s: {type: subflow, flow: %(path)s, inputs: [{name: x, type: string}], outputs: [{name: y, type: string}]}"
)
LAST = """\
  last:
    inputs: [{name: x, type: string}]
    outputs: [{name: y, type: string}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: "${x}"}}}"""


def write(path: Path, *parts: str) -> Path:
    """A flow that has these files as subflows; every part goes to the answer's own name."""
    nodes = [PART % {"id": f"part{number}", "path": part} for number, part in enumerate(parts)]
    edges = [f"  - {{from: _input.x, to: part{number}.x}}" for number in range(len(parts))]
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.stem
    path.write_text(FLOW % {"name": name, "nodes": "\n".join([*nodes, LAST]), "edges": "\n".join(edges)})
    return path


def codes(path: Path) -> list[tuple[str, str]]:
    """Errors only: the parts of these flows lead nowhere."""
    findings = inspect_flow(path)[1]
    return [(finding.code, finding.dotted_path) for finding in findings if finding.severity == "error"]


def test_a_path_is_relative_to_the_file_that_names_it(tmp_path: Path):
    write(tmp_path / "parts" / "deep" / "c.yaml")
    write(tmp_path / "parts" / "b.yaml", "deep/c.yaml")
    flow = load(write(tmp_path / "a.yaml", "parts/b.yaml", "parts/deep/c.yaml")).flow
    assert [each.metadata.name for each in all_flows(flow)] == ["a", "b", "c", "c"]
    embedded = flow.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    assert from_mapping(embedded).flow == flow, "a loaded flow is whole: nobody needs the files again"


def test_a_link_within_the_folder_is_followed(tmp_path: Path):
    write(tmp_path / "b.yaml")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "b.yaml")
    assert codes(write(tmp_path / "a.yaml", "link.yaml")) == []


def test_a_flow_that_is_not_a_file_names_no_files(tmp_path: Path):
    text = write(tmp_path / "a.yaml", "b.yaml").read_text()
    [finding] = [each for each in inspect_flow(text)[1] if each.severity == "error"]
    assert finding.code == "bad-subflow-path"
    assert finding.place is not None and finding.place.line == 5


def test_a_circle_is_named_with_its_files(tmp_path: Path):
    write(tmp_path / "b.yaml", "c.yaml")
    write(tmp_path / "c.yaml", "b.yaml")
    [finding] = inspect_flow(write(tmp_path / "a.yaml", "b.yaml"))[1]
    assert finding.code == "subflow-recursion"
    assert finding.message == "a flow runs itself: b.yaml -> c.yaml -> b.yaml"
    assert finding.place is not None and finding.place.file == str(tmp_path / "c.yaml")
    assert codes(write(tmp_path / "self.yaml", "self.yaml")) == [("subflow-recursion", "nodes.part0.flow")]


def test_depth_and_number_of_files_are_bounded(tmp_path: Path):
    for number in range(MAX_DEPTH + 1):
        write(tmp_path / f"f{number}.yaml", f"f{number + 1}.yaml")
    write(tmp_path / f"f{MAX_DEPTH + 1}.yaml")
    assert [code for code, _ in codes(tmp_path / "f0.yaml")] == ["too-many-subflows"]
    assert codes(tmp_path / "f1.yaml") == []
    for number in range(MAX_DEPTH):
        write(tmp_path / f"g{number}.yaml", *[f"g{number + 1}.yaml"] * 3)
    write(tmp_path / f"g{MAX_DEPTH}.yaml")
    found = codes(tmp_path / "g0.yaml")
    assert {code for code, _ in found} == {"too-many-subflows"}
    assert len(found) < 3 * MAX_FILES


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        ("a: [", "yaml-syntax", "nodes.part0.flow.a[0]"),
        ("version: '1.0'\nmetadata: {name: b}\nnodes: {}\n", "missing-key", "nodes.part0.flow.context"),
        (None, "unknown-operation", "nodes.part0.flow.nodes.last.transform.spec.op"),
    ],
)
def test_what_is_wrong_inside_is_found_with_its_own_file_and_line(
    text: str | None, code: str, where: str, tmp_path: Path
):
    inner = write(tmp_path / "b.yaml")
    inner.write_text(inner.read_text().replace("io.format_response", "io.format") if text is None else text)
    path = write(tmp_path / "a.yaml", "b.yaml")
    [finding] = [each for each in inspect_flow(path)[1] if each.severity == "error"]
    assert (finding.code, finding.dotted_path) == (code, where)
    assert finding.place is not None and finding.place.file == str(inner)
    with pytest.raises(FlowInvalid, match=r"b\.yaml"):
        load(path)


def test_places_inside_a_subflow_are_in_its_file(tmp_path: Path):
    inner = write(tmp_path / "b.yaml")
    loaded = load(write(tmp_path / "a.yaml", "b.yaml"))
    place = loaded.source_of(("nodes", "part0", "flow", "nodes", "last"))
    assert place is not None and (place.file, place.line) == (str(inner), 5)
    here = loaded.source_of(("nodes", "part0", "flow"))
    assert here is not None and here.file == str(tmp_path / "a.yaml")


def test_a_flow_that_was_never_loaded_with_its_subflows_cannot_run(tmp_path: Path):
    text = write(tmp_path / "a.yaml", "b.yaml").read_text()
    flow = Flow.model_validate(read_yaml(text, file="a").data)
    assert [finding.code for finding in check(flow) if finding.severity == "error"] == ["bad-subflow"]
