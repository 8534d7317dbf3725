"""The text of compiled flows: formatted, the same every time, and nothing of a flow in it but as a literal."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from agentflow import Flow, from_mapping, load, loads, plan
from agentflow.compile import MODULE, TARGETS, compile_plan
from agentflow.compile.literals import quoted
from agentflow.compile.names import class_name, plain
from flow_runtime.compiled import Context, LocalAgent
from support.compiled import agent_of, imported, written
from support.table import table

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "configs" / "flows").glob("*.yaml"))
NASTY = [
    "'''",
    '"""',
    "'",
    '"',
    "it's a \"word\" or 'two'",
    "\\",
    "\\n'''\nimport os\n\"\"\"",
    "{{ x }} {not} ${x} %s {{ '{' }}",
    "a\u2028b\u2029c\x85d",
    "\r\n\ttab\x1b[31m",
    "\u202eright to left",
    "🎉" * 60,
    "漢" * 110 + "\n" + "字" * 110,
    "# fmt: off\n# type: ignore\n",
    "x" * 300,
    "x" * 103 + "\n",
    "\n\n\n" * 40,
    "a" * 70 + "\n" + "b" * 70,
    "line\n" * 30,
    "line\n" * 30 + "end",
]
LONG = "n" * 64
NAMES = [
    "class",
    "def",
    "none",
    "async",
    "run",
    "body",
    "flow",
    "plan",
    "load",
    "predict",
    "ready",
    "node_a",
    "a__",
    LONG,
]


def document(node: str, prompt: str, **more: Any) -> dict[str, Any]:
    return {
        "version": "1.0",
        "metadata": {"name": "nasty", "description": prompt},
        "context": {"requires": ["x"]},
        "nodes": {
            node: {
                "inputs": [{"name": "x", "type": "string", "description": prompt}],
                "outputs": [{"name": "lambda", "type": "object"}],
                "transform": {
                    "mode": "declarative",
                    "spec": {"op": "io.format_response", "args": {"template": {prompt: [prompt], "x": prompt}}},
                },
                **more,
            }
        },
        "edges": [
            {"from": "_input.x", "to": node},
            {"from": node, "to": "_output", "condition": f"value != {prompt!r}"},
        ],
    }


def nasty(node: str, prompt: str) -> Flow:
    """Not by way of a file: that refuses some of it, and this must hold for whatever gets here."""
    return Flow.model_validate(document(node, prompt))


def test_a_formatter_leaves_everything_as_it_is_and_a_linter_finds_every_name(tmp_path: Path):
    for path in EXAMPLES:
        loaded = load(path)
        for target in TARGETS:
            source = compile_plan(plan(loaded.flow), target=target, places=loaded.source_of)[MODULE]
            (tmp_path / f"{path.stem}-{target}.py").write_text(source, encoding="utf-8")
    flows = {case.id: from_mapping(case.document).flow for case in table()}
    flows |= {f"nasty-{number}": nasty(NAMES[number % len(NAMES)], prompt) for number, prompt in enumerate(NASTY)}
    flows |= {f"name-{name}": nasty(name, "x" * length) for length, name in enumerate(NAMES * 5, start=40)}
    for name, flow in flows.items():
        for target in TARGETS:
            source = compile_plan(plan(flow), target=target)[MODULE]
            (tmp_path / f"{name}-{target}.py").write_text(source, encoding="utf-8")
    options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    for command in (["format", "--diff"], ["check", "--quiet", "--select", "F,E4,E7,E9,W"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *options, str(tmp_path)], capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("prompt", NASTY, ids=range(len(NASTY)))
def test_any_text_arrives_as_it_was(prompt: str, tmp_path: Path):
    planned = plan(nasty("a", prompt))
    with imported(written(planned, tmp_path)) as module:
        made = agent_of(module).plan()
    assert (made.flow.nodes, made.flow.metadata) == (planned.flow.nodes, planned.flow.metadata)
    assert made.graph == planned.graph


@pytest.mark.parametrize("name", NAMES)
async def test_any_name_of_a_node_is_a_method(name: str, tmp_path: Path):
    planned = plan(nasty(name, "y"))
    with imported(written(planned, tmp_path)) as module:
        async with agent_of(module)() as agent:
            assert (await getattr(agent, f"node_{name}")({"x": "1"}, Context()))["lambda"] == {"y": ["y"], "x": "y"}
            assert (await agent.run({"x": "1"})).output == {"y": ["y"], "x": "y"}


@pytest.mark.parametrize("text", [*NASTY, "\ud800 half", "\x00", "\udcff'\""])
def test_a_literal_is_ascii_or_printable_and_means_its_text(text: str):
    assert ast.literal_eval(quoted(text)) == text
    assert quoted(text).isprintable()
    assert quoted(text).encode()


@pytest.mark.parametrize("prompt", NASTY, ids=range(len(NASTY)))
def test_every_text_is_a_literal_and_declarations_hold_nothing_else(prompt: str):
    module = ast.parse(compile_plan(plan(nasty("a", prompt)), target="local")[MODULE])
    [agent] = [each for each in module.body if isinstance(each, ast.ClassDef)]
    [flow, method] = agent.body[1:]
    assert isinstance(flow, ast.Assign) and isinstance(method, ast.AsyncFunctionDef)
    allowed = (
        ast.Call | ast.keyword | ast.Constant | ast.Name | ast.Attribute | ast.Tuple | ast.List | ast.Dict | ast.Load
    )
    for part in (flow.value, *method.decorator_list):
        assert {type(each) for each in ast.walk(part) if not isinstance(each, allowed)} == set()
        names = {each.id for each in ast.walk(part) if isinstance(each, ast.Name)}
        assert names <= {"flow_facts", "node", "port", "edge", "operation", "ir"}


def test_the_same_flow_gives_the_same_bytes_in_every_process(tmp_path: Path):
    code = (
        "import sys; from agentflow import load, plan; from agentflow.compile import compile_plan\n"
        "loaded = load(sys.argv[1])\n"
        "for target in ('local', 'ray', 'kserve'):\n"
        "    text = compile_plan(plan(loaded.flow), target=target, places=loaded.source_of)['agent.py']\n"
        "    sys.stdout.buffer.write(text.encode())\n"
    )
    made: list[bytes] = []
    for seed, path in (("1", EXAMPLES[0]), ("2", tmp_path / "elsewhere" / EXAMPLES[0].name)):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(EXAMPLES[0].read_bytes())
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], env=environment, stdout=subprocess.PIPE, check=True
        )
        made.append(done.stdout)
    assert made[0] and made[0] == made[1]


@pytest.mark.parametrize(
    ("flow", "name"),
    [
        ("returns-desk", "ReturnsDeskAgent"),
        ("support_agent", "SupportAgent"),
        ("agent", "Agent"),
        ("Desk.v2", "DeskV2Agent"),
        ("a-b", "ABAgent"),
        ("none", "NoneAgent"),
        ("x" * 63, f"X{'x' * 62}Agent"),
    ],
)
def test_a_class_is_named_for_its_flow_and_says_agent_once(flow: str, name: str):
    assert class_name(flow) == name


@pytest.mark.parametrize("name", ['"""\nimport os', "a\nb.yaml", "\u2028", "coding: rot13.yaml", "\\", "x" * 300, ""])
def test_the_name_of_a_file_cannot_leave_its_comment(name: str):
    shown = plain(name)
    assert shown.isprintable() and not set(shown) & set("\"'\\\n#") and 0 < len(shown) < 70
    loaded = loads(json_text(document("a", "y")), file=name)
    source = compile_plan(plan(loaded.flow), target="local", places=loaded.source_of)[MODULE]
    compile(source.encode(), "agent.py", "exec")


def json_text(value: Any) -> str:
    import json

    return json.dumps(value)


async def test_comments_and_tracebacks_name_the_line_of_the_flow(tmp_path: Path):
    path = ROOT / "configs" / "flows" / "triage.yaml"
    loaded = load(path)
    line = 1 + path.read_text().splitlines().index("  calm:")
    file = written(plan(loaded.flow), tmp_path, places=loaded.source_of)
    assert file.read_text().count(f"    # triage.yaml:{line}\n") == 1

    class Broken(LocalAgent):
        async def body(self, node: str, inputs: Any, ctx: Any) -> Any:
            raise ZeroDivisionError

    with imported(file) as module:
        agent = type("Tried", (Broken, agent_of(module)), {})()
        with pytest.raises(ZeroDivisionError) as caught:
            await agent.node_calm({}, Context())
    lines = "".join(traceback.format_exception(caught.value))
    assert f'return await self.body("calm", inputs, ctx)  # triage.yaml:{line}' in lines
