"""Generated tests pass as they were generated, and fail when what they are about does something else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agentflow import loads
from agentflow_serve.compiler import compile_loaded, generated_tests
from support.compiled import imported

ROOT = Path(__file__).parents[2]
FLOW = """
version: "1.0"
metadata: {name: desk}
context: {requires: [question, items, session_id]}
inputs: {question: {type: string}, items: {type: array}, session_id: {type: string}}
nodes:
  ask:
    inputs: [{name: question, type: string}]
    outputs: [{name: reply, type: object}]
    error: {name: silent}
    prompt:
      role: llm.writer
      template: "Answer: {{ question }}"
      output_schema: {type: object, required: [text], properties: {text: {type: string}}}
    runtime: {retries: 2, retry_backoff_ms: 0}
  excuse:
    inputs: [{name: problem, type: object}]
    outputs: [{name: reply, type: object}]
    transform:
      mode: declarative
      spec: {op: io.format_response, args: {template: {text: "sorry after ${problem.attempts}"}}}
  large:
    inputs: [{name: items, type: array}]
    outputs: [{name: items, type: array}]
    transform: {mode: declarative, spec: {op: transform.filter, args: {input: "${items}", expression: "item > 2"}}}
  count:
    inputs: [{name: items, type: array}]
    outputs: [{name: n, type: number}]
    state: {scope: session, key: "counts_{session_id}"}
    transform:
      mode: code
      spec: |
        async def transform(inputs, context, state):
            seen = await state.get("seen", 0)
            await state.set("seen", seen + 1)
            return {"n": len(inputs["items"]) + 10 * seen}
  fetch:
    inputs: [{name: n, type: number}]
    outputs: [{name: page, type: object, schema: {type: object, required: [title], properties: {title: {const: T}}}}]
    transform: {mode: declarative, spec: {op: http.get, args: {url: "https://example.com/${n}"}}}
  show:
    inputs: [{name: page, type: object}]
    outputs: [{name: out, type: string}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: "title ${page.title}"}}}
  guess:
    inputs: [{name: n, type: number}]
    outputs: [{name: n, type: number}]
    transform:
      mode: code
      spec: |
        import random
        async def transform(inputs, context, state):
            return {"n": random.random()}
edges:
  - {from: _input.question, to: ask.question}
  - {from: ask.silent, to: excuse.problem}
  - {from: _input.items, to: large.items}
  - {from: large.items, to: count.items}
  - {from: count.n, to: fetch.n}
  - {from: count.n, to: guess.n}
  - {from: fetch.page, to: show.page}
  - {from: ask.reply, to: _output.reply}
  - {from: excuse.reply, to: _output.reply}
  - {from: show.out, to: _output.page}
tests:
  - name: an answer
    input: {question: why, items: [1, 2, 3], session_id: s1}
    models: {llm.writer: {text: because}}
  - name: silence
    input: {question: why, items: [], session_id: s1}
    models: {llm.writer: {error: timeout}}
"""
CHANGES = {
    "ask": [
        ("Answer: {{ question }}", "Reply: {{ question }}"),
        ("retries=2", "retries=3"),
        ('["text"]', "[]"),
        ('required": ["text"]', 'required": ["tex"]'),
    ],
    "excuse": [("sorry after", "excuse after")],
    "large": [("item > 2", "item >= 2")],
    "count": [("10 * seen", "10 + seen")],
    "show": [("title ${page.title}", "Title ${page.title}")],
}


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    compiled = compile_loaded(loads(FLOW, file="desk.yaml"), target="local")
    return {"agent.py": compiled.module(), "test_agent.py": generated_tests(compiled)}


def outcomes(files: Mapping[str, str], folder: Path) -> dict[str, bool]:
    """Which of the generated tests pass, each called as pytest would."""
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    with imported(folder / "agent.py") as agent:
        sys.modules["agent"] = agent
        try:
            with imported(folder / "test_agent.py") as tests:
                return {name: passes(tests, name) for name in vars(tests) if name.startswith("test_")}
        finally:
            del sys.modules["agent"]


def passes(tests: ModuleType, name: str) -> bool:
    try:
        getattr(tests, name)()
    except AssertionError:
        return False
    return True


def test_they_pass_as_generated_under_plain_pytest(files: dict[str, str], tmp_path: Path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert f"{files['test_agent.py'].count('def test_')} passed" in done.stdout


def test_every_node_that_can_be_tested_is(files: dict[str, str]):
    text = files["test_agent.py"]
    assert all(f"def test_node_{node}_1():" in text for node in CHANGES)
    assert "    fetch: it calls something outside of this process\n" in text
    assert "    guess: what it made was not the same twice, or is no JSON\n" in text
    assert "def test_node_fetch" not in text and "def test_node_guess" not in text


@pytest.mark.parametrize(("node", "change"), [(node, each) for node, changes in CHANGES.items() for each in changes])
def test_a_changed_node_fails_its_own_tests_and_no_other_nodes(
    node: str, change: tuple[str, str], files: dict[str, str], tmp_path: Path
):
    changed = files["agent.py"].replace(*change)
    assert changed != files["agent.py"]
    failed = {name for name, passed in outcomes({**files, "agent.py": changed}, tmp_path).items() if not passed}
    assert failed
    assert {name for name in failed if name.startswith("test_node_")} == failed - {"test_run_1", "test_run_2"}
    assert all(name.startswith((f"test_node_{node}_", "test_run_")) for name in failed)
    assert any(name.startswith(f"test_node_{node}_") for name in failed)


def test_changed_wiring_fails_a_test_of_a_whole_run(tmp_path: Path):
    flow = FLOW.replace("  - {from: show.out, to: _output.page}\n", "").replace(
        "  - {from: count.n, to: fetch.n}\n", ""
    )
    flow = flow.replace("  - {from: fetch.page, to: show.page}\n", "  - {from: _input.page, to: show.page}\n")
    flow = flow.replace("session_id]}", "session_id], optional: [page]}")
    for node in ("fetch",):
        start = flow.index(f"  {node}:")
        flow = flow[:start] + flow[flow.index("  show:") :]
    compiled = compile_loaded(loads(flow), target="local")
    files = {"agent.py": compiled.module(), "test_agent.py": generated_tests(compiled)}
    assert all(outcomes(files, tmp_path).values())
    changed = files["agent.py"].replace('into="reply"', 'into="answer"', 1)
    failed = {name for name, passed in outcomes({**files, "agent.py": changed}, tmp_path).items() if not passed}
    assert failed == {"test_run_1"}


def test_generating_twice_gives_the_same_tests(files: dict[str, str]):
    compiled: Any = compile_loaded(loads(FLOW, file="desk.yaml"), target="local")
    assert generated_tests(compiled) == files["test_agent.py"]
