"""`agentflow test`: exit codes, the lines for people, JSON and JUnit for machines."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from agentflow.errors import FlowInvalid
from agentflow_serve.commands.test import command

FLOW = """\
version: "1.0"
metadata: {name: hello}
context: {requires: [name]}
nodes:
  greet:
    inputs: [{name: name, type: string}]
    outputs: [{name: text, type: string}]
    prompt: {template: "{{ name }}", role: writer}
edges:
  - {from: _input.name, to: greet.name}
  - {from: greet.text, to: _output}
tests:
  - {name: a good day, input: {name: Ada}, models: {writer: Hello}, expect: {outputs: Hello}}
"""
BAD = '  - {name: "a \\u0007 <bad> day", input: {name: Ada}, models: {writer: "no"}, expect: {outputs: Hello}}\n'


def ran(tmp_path: Path, text: str, *options: str) -> Result:
    path = tmp_path / "hello.yaml"
    path.write_text(text)
    return CliRunner().invoke(command, [str(path), *options], standalone_mode=False)


def test_all_is_well(tmp_path: Path):
    result = ran(tmp_path, FLOW)
    assert (result.return_value, result.output) == (0, "ok    a good day\n1 test, 0 failed\n")


def test_a_failed_test_is_exit_code_1_with_what_differs(tmp_path: Path):
    result = ran(tmp_path, FLOW + BAD)
    assert result.return_value == 1
    assert result.output.splitlines()[2:] == ['      outputs: expected "Hello", got "no"', "2 tests, 1 failed"]


def test_json_and_junit_say_the_same(tmp_path: Path):
    junit = tmp_path / "report.xml"
    result = ran(tmp_path, FLOW + BAD, "--json", "--junit", str(junit))
    document = json.loads(result.output)
    assert document["passed"] is False
    assert [test["passed"] for test in document["tests"]] == [True, False]
    root = ElementTree.parse(junit).getroot()
    assert (root.attrib["name"], root.attrib["tests"], root.attrib["failures"]) == ("hello", "2", "1")
    good, bad = root.findall("testcase")
    assert good.find("failure") is None
    failure = bad.find("failure")
    assert bad.attrib["name"] == "a ? <bad> day"
    assert failure is not None and failure.text == document["tests"][1]["problems"][0]


def test_a_flow_without_tests_says_so_and_an_invalid_one_is_refused(tmp_path: Path):
    without = ran(tmp_path, FLOW[: FLOW.index("tests:")])
    assert without.return_value == 0
    assert without.output.endswith("hello.yaml has no tests\n")
    refused = ran(tmp_path, FLOW.replace("expect:", "expects:"))
    assert isinstance(refused.exception, FlowInvalid)
    with pytest.raises(FlowInvalid, match="expects"):
        raise refused.exception
