"""docs/findings.md and the source know the same codes, and every example in it is a real one."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from agentflow import inspect_flow
from agentflow.findings import Finding
from support.broken_flows import BROKEN

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "graphs" / "agentflow"
SPEAKERS = [
    "findings",
    "loading",
    "tree",
    "yaml_tree",
    "json_tree",
    "plain_tree",
    "shapes",
    "wiring",
    "subflow_files",
    "compile/findings",
]
CODE = re.compile(r"[a-z]+(-[a-z0-9]+)+|cycle")
ROW = re.compile(r"\| `([a-z0-9-]+)` \| (error|warning) \| (.+?) \| (.+) \|")
NOT_CODES = {"utf-8", "utf-8-sig"}
ONLY_IN_DATA_OR_FILES = {"not-json", "unreadable-file", "bad-subflow-path", "subflow-recursion", "too-many-subflows"}
ONLY_OF_VERY_MANY = {"more-findings"}
ONLY_WHEN_COMPILED = {"code-forbidden"}


def documented() -> dict[str, re.Match[str]]:
    rows = [ROW.fullmatch(line) for line in (ROOT / "docs" / "findings.md").read_text().splitlines()]
    found = [row for row in rows if row]
    assert len({row[1] for row in found}) == len(found), "a code stands twice in the table"
    return {row[1]: row for row in found}


def in_source() -> set[str]:
    paths = [*(PACKAGE / f"{name}.py" for name in SPEAKERS), *(PACKAGE / "checks").glob("*.py")]
    texts = {
        node.value
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return {text for text in texts if CODE.fullmatch(text)} - NOT_CODES


@cache
def real_findings() -> tuple[Finding, ...]:
    found: list[Finding] = []
    for case in BROKEN:
        found += inspect_flow(case.text + "\n", **case.known)[1]
    return tuple(found)


def test_the_table_lists_exactly_the_codes_of_the_source():
    assert set(documented()) == in_source()


def test_every_code_is_shown_by_a_broken_flow():
    elsewhere = ONLY_IN_DATA_OR_FILES | ONLY_OF_VERY_MANY | ONLY_WHEN_COMPILED
    assert {case.code for case in BROKEN} == in_source() - elsewhere


def test_the_table_tells_errors_from_warnings():
    severities = {finding.code: finding.severity for finding in real_findings()}
    assert {code: row[2] for code, row in documented().items() if code in severities} == severities


def test_every_example_in_the_table_is_a_message_that_a_flow_really_gets():
    messages = {(finding.code, finding.message) for finding in real_findings()}
    for code, row in documented().items():
        if code not in ONLY_IN_DATA_OR_FILES | ONLY_OF_VERY_MANY | ONLY_WHEN_COMPILED:
            assert (code, row[4].replace("\\|", "|")) in messages
