"""`agentflow test`: the tests that a flow carries, with what differs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentflow_serve.commands.exits import Exit
from agentflow_serve.commands.options import embedder_option, feature_store_option
from agentflow_serve.commands.paths import DOCUMENT

if TYPE_CHECKING:
    from flow_runtime.flow_tests import FlowTestResult


@click.command("test")
@click.argument("flow", type=DOCUMENT)
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON document.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Also write a JUnit XML report there.")
@feature_store_option
@embedder_option
def command(flow: Path, as_json: bool, junit: Path | None, feature_store: str | None, embedder: str | None) -> int:
    """Run the tests of FLOW in this process: no keys, no server, models answer as each test says.

    Operations and code do what they always do: features are really read from and written to the feature store that
    is named. Text for a vector search is embedded as the simulated model does it. The exit code is 1 when a test fails.
    """
    from agentflow.loading import load
    from flow_runtime.flow_tests import run_tests

    loaded = load(flow)
    results = asyncio.run(run_tests(loaded.flow, feature_store=feature_store, embedder=embedder))
    failed = sum(not result.passed for result in results)
    if junit is not None:
        junit.write_bytes(junit_xml(loaded.flow.metadata.name, results))
    if as_json:
        click.echo(json.dumps({"passed": not failed, "tests": [_document(result) for result in results]}, indent=2))
    else:
        _show(flow, results, failed)
    return Exit.FAILED if failed else Exit.OK


def _show(flow: Path, results: list[FlowTestResult], failed: int) -> None:
    for result in results:
        click.echo(f"{'ok  ' if result.passed else 'FAIL'}  {result.name}")
        for problem in result.problems:
            click.echo(f"      {problem}")
    if results:
        click.echo(f"{len(results)} {'test' if len(results) == 1 else 'tests'}, {failed} failed")
    else:
        click.echo(f"{flow} has no tests")


def _document(result: FlowTestResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "passed": result.passed,
        "problems": list(result.problems),
        "duration_s": round(result.duration_s, 6),
    }


def junit_xml(suite: str, results: list[FlowTestResult]) -> bytes:
    """The results as JUnit XML in UTF-8, as build servers read it."""
    from xml.etree.ElementTree import Element, SubElement, tostring

    total = sum(result.duration_s for result in results)
    counts = {"tests": str(len(results)), "failures": str(sum(not result.passed for result in results))}
    root = Element("testsuite", {"name": suite, **counts, "errors": "0", "skipped": "0", "time": f"{total:.3f}"})
    for result in results:
        name = _printable(result.name)
        case = SubElement(root, "testcase", {"classname": suite, "name": name, "time": f"{result.duration_s:.3f}"})
        if not result.passed:
            text = _printable("\n".join(result.problems))
            SubElement(case, "failure", {"message": text.partition("\n")[0]}).text = text
    return tostring(root, encoding="utf-8", xml_declaration=True)


def _printable(text: str) -> str:
    """XML has no way to write most control characters."""
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)
