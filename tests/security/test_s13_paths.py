"""RELIABILITY S13: no name is a way out: not of the folder of a flow, and not of the routes of a predictor."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentflow import inspect_flow
from support.cost import assert_cheap
from support.doors import PLAIN, assert_tells_nothing, predictor, refused_flow

FLOW = """\
version: "1.0"
metadata: {{name: {name}}}
context: {{requires: [x]}}
nodes:
  {node}:
    type: subflow
    flow: {flow}
    inputs: [{{name: x, type: string}}]
    outputs: [{{name: y, type: string}}]
edges: [{{from: _input.x, to: part.x}}, {{from: part.y, to: _output}}]
"""
ESCAPES = [
    "../b.yaml",
    "..",
    ".",
    "/etc/hostname",
    "//etc/hostname",
    "parts/../../b.yaml",
    "./b.yaml",
    "parts//b.yaml",
    "b.yaml/",
    "~/b.yaml",
    "~root/b.yaml",
    "$HOME/b.yaml",
    "%2e%2e/b.yaml",
    "..%2fb.yaml",
    "%00b.yaml",
    "C:\\b.yaml",
    "C:/b.yaml",
    "\\\\server\\share\\b.yaml",
    "..\\b.yaml",
    "parts\\b.yaml",
    "file:///etc/hostname",
    "https://example.com/b.yaml",
    "\uff0e\uff0e/b.yaml",
    "\u2025/b.yaml",
    "",
    "gone.yaml",
    ".hidden/b.yaml",
    "link.yaml",
    "folder/b.yaml",
    "loop.yaml",
    "a" * 5_000,
    "b.yaml\0.png",
    "b.yaml\n",
]


def escaped(text: str) -> str:
    """A YAML scalar in double quotes."""
    return '"' + text.replace("\\", "\\\\").replace("\0", "\\0").replace("\n", "\\n") + '"'


@pytest.mark.parametrize("path", ESCAPES, ids=lambda path: ascii(path)[:40])
def test_a_subflow_outside_the_folder_of_its_flow_is_not_read(path: str, tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "b.yaml").write_text("canary: 4711")
    (home / "link.yaml").symlink_to(tmp_path / "b.yaml")
    (home / "folder").symlink_to(tmp_path)
    (home / "loop.yaml").symlink_to("loop.yaml")
    file = home / "a.yaml"
    file.write_text(FLOW.format(name="a", node="part", flow=escaped(path)))
    assert_cheap(lambda: inspect_flow(file), mib=None)
    errors = [finding for finding in inspect_flow(file)[1] if finding.severity == "error"]
    assert [(finding.code, finding.dotted_path) for finding in errors] == [("bad-subflow-path", "nodes.part.flow")]
    assert all("canary" not in str(finding) and str(finding).isprintable() for finding in errors)


NAMES = ["../x", "..", "/etc/passwd", "a/b", "a\\b", "a\0b", "a\nb", "a%2eb", "C:a", "~a", "-a", ".a", " a", "\u0430"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_flow_and_a_node_have_names_that_are_safe_as_file_names(name: str):
    for names in ({"name": escaped(name), "node": "part"}, {"name": "a", "node": escaped(name)}):
        assert refused_flow(FLOW.format(flow="{}", **names)) & {"bad-value", "yaml-syntax", "wrong-type"}


ROUTES = [
    "../m",
    "..%2fm",
    "%2e%2e/m",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%5c..%5cwindows",
    "m%00",
    "m%0d%0aX-Injected:%20yes",
    "m/../m",
    "m%2f..%2fm",
    "//m",
    "%ff%fe",
    "C:m",
    "x" * 5_000,
]


async def test_a_model_name_in_a_route_names_a_model_or_nothing():
    body = b'{"instances": [{"x": "a"}]}'
    async with predictor(PLAIN) as desk:
        for name in ROUTES:
            for method, path in [
                ("GET", f"/v1/models/{name}"),
                ("GET", f"/v2/models/{name}"),
                ("GET", f"/v2/models/{name}/ready"),
                ("POST", f"/v1/models/{name}:predict"),
                ("POST", f"/v2/models/{name}/infer"),
                ("POST", f"/v2/repository/models/{name}/load"),
            ]:
                head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                reply = await desk.send(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
                assert reply.status in (307, 400, 404, 405, 422, 501), (path, reply)
                assert "x-injected" not in reply.headers
                assert_tells_nothing(reply)
    assert desk.calls == []
