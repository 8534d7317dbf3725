"""The `agentflow` command as a user runs it: what it prints where, and with which code it ends.

Most tests call the entry point in this process; those that are about the process itself start one.
`agentflow serve` needs Ray and is tested in tests/serve.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
import yaml

from agentflow_serve.commands import EPILOG
from agentflow_serve.commands.exits import Exit
from support import command_line
from support.command_line import Ended
from support.processes import is_running

AGENTFLOW = Path(sys.executable).parent / "agentflow"
CONFIGS = Path(__file__).parents[2] / "configs"
EXAMPLES = sorted((CONFIGS / "flows").glob("*.yaml"))
SIM = ["--llmhub", str(CONFIGS / "llmhub.sim.yaml")]

DOUBLE = """\
version: "1.0"
metadata: {name: double}
context: {requires: [x]}
inputs: {x: {type: number}}
nodes:
  twice:
    inputs: [{name: x, type: number}]
    outputs: [{name: out, type: object}]
    transform:
      mode: code
      spec: |
        async def transform(inputs, context, state):
            return {"out": {"twice": 2 * inputs["x"], "für": context.get("who", "alle")}}
  after:
    inputs: [{name: value, type: object}]
    outputs: [{name: out, type: object}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: "${value}"}}}
edges:
  - {from: _input.x, to: twice.x}
  - {from: twice.out, to: after.value}
  - {from: after.out, to: _output}
"""
RAISES = DOUBLE.replace("return {", "raise ValueError('no such luck'); return {")
SLEEPS = DOUBLE.replace("return {", "import asyncio; await asyncio.sleep(60); return {")
NO_JSON = DOUBLE.replace('2 * inputs["x"]', "{1, 2}")
PROMPT = """\
version: "1.0"
metadata: {name: ask}
context: {requires: [x]}
nodes:
  ask:
    inputs: [{name: x, type: string}]
    outputs: [{name: out, type: string}]
    prompt: {template: "{{ x }}", role: llm.writer, fallback: {on: error, static_response: canned}}
edges:
  - {from: _input.x, to: ask.x}
  - {from: ask.out, to: _output}
"""


Command = Callable[..., Ended]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with small flows, and the one that commands start in."""
    flows = {"double": DOUBLE, "raises": RAISES, "sleeps": SLEEPS, "no_json": NO_JSON, "ask": PROMPT}
    for name, text in flows.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def agentflow(desk: Path) -> Command:
    """The command, started where the flows are."""
    return command_line.agentflow


# -- validate ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_validate_says_that_a_good_flow_is_valid(agentflow: Command, path: Path):
    assert agentflow("validate", str(path), *SIM) == Ended(0, f"{path}: valid\n", "")


def test_validate_gives_every_finding_its_place_in_the_file_and_a_count(agentflow: Command, desk: Path):
    text = DOUBLE.replace("to: after.value", "to: after.valu").replace("mode: declarative", "mode: declarativ")
    (desk / "bad.yaml").write_text(text.replace("metadata:", "metadatta:"))
    ended = agentflow("validate", "bad.yaml")
    assert ended.code == Exit.INVALID_FLOW
    *findings, count = ended.out.splitlines()
    assert len(findings) >= 3
    for line in findings:
        assert re.match(r"bad\.yaml:\d+:\d+ [\w.\[\]]*: (error|warning) [a-z-]+: ", line), line
    assert any(line.startswith("bad.yaml:2:1 metadatta: error unknown-key: ") for line in findings)
    assert count == f"{len(findings)} errors, 0 warnings"
    assert ended.err == ""


def test_validate_reports_warnings_and_calls_the_flow_valid(agentflow: Command, desk: Path):
    (desk / "warns.yaml").write_text(DOUBLE.replace("  after:\n", "  after:\n    error: {name: broke}\n"))
    ended = agentflow("validate", "warns.yaml")
    warning, count, verdict = ended.out.splitlines()
    assert " warning " in warning
    assert (count, verdict, ended.code) == ("0 errors, 1 warning", "warns.yaml: valid", 0)


def test_validate_as_json_is_one_document_for_programs(agentflow: Command, desk: Path):
    assert json.loads(agentflow("validate", "double.yaml", "--json").out) == {"valid": True, "findings": []}
    (desk / "bad.yaml").write_text(DOUBLE.replace("after.value}", "after.valu}"))
    ended = agentflow("validate", "bad.yaml", "--json")
    document = json.loads(ended.out)
    assert (ended.code, document["valid"]) == (Exit.INVALID_FLOW, False)
    [found] = [each for each in document["findings"] if each["code"] == "unknown-port"]
    assert set(found) == {"code", "message", "hint", "path", "severity", "place"}
    assert (found["path"], found["severity"]) == ("edges[1].to", "error")
    assert found["place"] == {"file": "bad.yaml", "line": 20, "column": 23}


def llmhub(desk: Path, text: str) -> list[str]:
    (desk / "hub.yaml").write_text(f"project: p\nenv: e\nproviders: {{sim: {{}}}}\n{text}")
    return ["--llmhub", "hub.yaml"]


SERVES = "{provider: sim, model: m, mode: chat}"


def test_validate_with_an_llmhub_finds_roles_that_it_does_not_have(agentflow: Command, desk: Path):
    ended = agentflow("validate", "ask.yaml", *llmhub(desk, f"roles: {{llm.other: {SERVES}}}"))
    assert ended.code == Exit.INVALID_FLOW
    assert re.match(
        r"ask\.yaml:8:\d+ nodes\.ask\.prompt\.role: error unknown-role: .*'llm\.writer'.*llm\.other", ended.out
    )


def test_validate_and_run_agree_about_what_an_llmhubs_defaults_serve(agentflow: Command, desk: Path):
    defaults = llmhub(desk, f"roles: {{}}\ndefaults: {SERVES}")
    (desk / "roleless.yaml").write_text(PROMPT.replace("role: llm.writer, ", ""))
    for arguments in (["validate"], ["run", "--input", '{"x": "hi"}']):
        assert agentflow(*arguments, "ask.yaml", *defaults).code == 0
        assert agentflow(*arguments, "roleless.yaml", *defaults).code == Exit.INVALID_FLOW


# -- plan --------------------------------------------------------------------------------------------------------------


def rows(table: str) -> dict[str, list[str]]:
    """The cells of each line of the table, by the node in the second one."""
    cells = [re.split(r" {2,}", line.strip()) for line in table.splitlines()]
    return {line[1]: line for line in cells if len(line) == 7}


def test_plan_shows_what_each_node_does_where_it_runs_and_what_it_waits_for(agentflow: Command):
    ended = agentflow("plan", str(CONFIGS / "flows" / "triage.yaml"))
    assert (ended.code, ended.err) == (0, "")
    table = rows(ended.out)
    assert table["sort"] == ["0", "sort", "prompt", "triage.sort", "8 s", "1", "_input"]
    assert table["urgent"] == ["1", "urgent", "prompt + code, acts", "triage.urgent", "30 s", "1", "account, sort"]
    assert "critical path: sort -> urgent" in ended.out
    assert re.search(r"per_node: +6 deployments, +5 hops at most", ended.out)
    assert re.search(r"inline: +1 deployments, +0 hops at most", ended.out)
    assert re.search(r"^fingerprint: [0-9a-f]{64}$", ended.out, re.MULTILINE)


TOOLS = """\
version: "1.0"
metadata: {name: desk}
context: {requires: [x]}
nodes:
  ask:
    inputs: [{name: x, type: string}]
    outputs: [{name: out, type: string}]
    prompt: {role: main, template: "{{ x }}", tools: [{name: now, maps_to: clock}]}
  clock:
    outputs: [{name: out, type: string}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: noon}}}
edges: [{from: _input.x, to: ask.x}, {from: ask.out, to: _output}]
"""


def test_plan_shows_the_nodes_that_only_a_model_asks_for(agentflow: Command, desk: Path):
    (desk / "tools.yaml").write_text(TOOLS)
    ended = agentflow("plan", "tools.yaml")
    table = rows(ended.out)
    assert table["ask"] == ["0", "ask", "prompt with tools", "desk.ask", "30 s", "1", "_input"]
    assert table["clock"] == ["tool", "clock", "io.format_response", "desk.clock", "30 s", "1", "ask"]
    assert re.search(r"per_node: +3 deployments, +1 hops at most, .* one more for each call of a tool", ended.out)
    inline = rows(agentflow("plan", "tools.yaml", "--placement", "inline").out)
    assert (inline["ask"][3], inline["clock"][3]) == ("desk", "its caller")


def test_plan_with_a_placement_shows_that_one(agentflow: Command):
    table = rows(agentflow("plan", str(CONFIGS / "flows" / "triage.yaml"), "--placement", "inline").out)
    assert {row[3] for name, row in table.items() if name != "node"} == {"triage"}


def test_plan_names_the_nodes_that_never_run(agentflow: Command, desk: Path):
    idle = DOUBLE.replace(
        "edges:\n", "  idle: {outputs: [{name: o, type: string}], prompt: {template: hi, role: r}}\nedges:\n"
    )
    (desk / "idle.yaml").write_text(idle)
    assert "not needed by any answer, never run: idle" in agentflow("plan", "idle.yaml").out


def test_plan_as_mermaid_is_a_diagram_and_nothing_else(agentflow: Command):
    drawn = agentflow("plan", "double.yaml", "--mermaid").out
    assert drawn.startswith("flowchart ")
    assert "critical path" not in drawn
    assert "twice" in drawn and "after" in drawn


def test_a_command_that_needs_a_good_flow_shows_the_findings_of_a_bad_one(agentflow: Command, desk: Path):
    (desk / "bad.yaml").write_text(DOUBLE.replace("version:", "verzion:"))
    for arguments in (["plan", "bad.yaml"], ["run", "bad.yaml", "--input", "{}"]):
        ended = agentflow(*arguments)
        assert (ended.code, ended.out) == (Exit.INVALID_FLOW, "")
        assert "bad.yaml:1:1 " in ended.err
        assert "(did you mean 'version'?)" in ended.err


# -- run ---------------------------------------------------------------------------------------------------------------


def test_run_prints_the_answer_alone_on_stdout_and_each_node_as_it_happens_on_stderr(agentflow: Command):
    ended = agentflow("run", "double.yaml", "--input", '{"x": 21}')
    assert (ended.code, json.loads(ended.out)) == (0, {"twice": 42, "für": "alle"})
    assert "für" in ended.out, "text stays readable"
    lines = [re.fullmatch(r" +(\d+\.\d) ms  (\w+) +(\w+)", line) for line in ended.err.splitlines()]
    seen = [(line[2], line[3]) for line in lines if line]
    assert None not in lines
    assert seen == [("start", "twice"), ("done", "twice"), ("start", "after"), ("done", "after")]
    at_ms = [float(line[1]) for line in lines if line]
    assert at_ms == sorted(at_ms)


def test_run_takes_the_request_from_a_file(agentflow: Command, desk: Path):
    (desk / "request.json").write_text('{"x": 1.5, "who": "Ümit"}', encoding="utf-8")
    assert json.loads(agentflow("run", "double.yaml", "--input", "@request.json").out) == {"twice": 3.0, "für": "Ümit"}


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        ('{"x": NaN}', "not JSON"),
        ('{"x": "\\ud800"}', "not JSON"),
        ("[" * 5000, "not JSON"),
        ("@binary", "not JSON"),
        ("[1]", "the request must be a JSON object"),
        ("5", "the request must be a JSON object"),
        ("@nowhere.json", "cannot read nowhere.json"),
        ("@.", "cannot read ."),
    ],
)
def test_run_refuses_an_input_that_is_no_json_object(agentflow: Command, desk: Path, request_: str, says: str):
    (desk / "binary").write_bytes(bytes(range(128, 256)))
    ended = agentflow("run", "double.yaml", "--input", request_)
    assert (ended.code, ended.out) == (Exit.USAGE, "")
    assert f"Invalid value for --input: {says}" in ended.err


FEATURES = """\
version: "1.0"
metadata: {name: look}
context: {requires: [user_id]}
nodes:
  look:
    inputs: [{name: user_id, type: string}]
    outputs: [{name: row, type: object}]
    transform:
      mode: declarative
      spec: {op: features.read, args: {feature_view: shopper_risk_v1, key: "${user_id}"}}
edges:
  - {from: _input.user_id, to: look.user_id}
  - {from: look.row, to: _output}
tests:
  - {name: gold, input: {user_id: u1}, expect: {outputs: {tier: gold, refund_rate: 0.1}}}
"""


def test_run_and_test_read_the_feature_store_that_is_named(agentflow: Command, desk: Path):
    (desk / "look.yaml").write_text(FEATURES)
    store = ["--feature-store", f"local:{CONFIGS / 'features'}"]
    ended = agentflow("run", "look.yaml", "--input", '{"user_id": "u2"}', *store)
    assert (ended.code, json.loads(ended.out)) == (0, {"tier": "basic", "refund_rate": 0.9})
    assert agentflow("test", "look.yaml", *store).out == "ok    gold\n1 test, 0 failed\n"
    for arguments in (["run", "--input", '{"user_id": "u2"}'], ["test"]):
        ended = agentflow(arguments[0], "look.yaml", *arguments[1:])
        assert (ended.code, ended.out) == (Exit.ENVIRONMENT, "")
        assert "error: the flow uses features: name a feature store" in ended.err


def test_serve_writes_the_feature_store_and_the_embedder_into_its_config(agentflow: Command, desk: Path):
    (desk / "look.yaml").write_text(FEATURES)
    options = ["--feature-store", "local:features", "--embedder", "near", "--write-config", "out.yaml"]
    assert agentflow("serve", "look.yaml", *options).code == 0
    args = yaml.safe_load((desk / "out.yaml").read_text())["applications"][0]["args"]
    assert (args["feature_store"], args["embedder"]) == ("local:features", "near")


def test_serve_opens_nothing_to_a_network_unless_it_is_said(agentflow: Command, desk: Path):
    outside = ("serve", str(CONFIGS / "flows" / "triage.yaml"), "--host", "0.0.0.0", "--write-config", "serve.yaml")
    refused = agentflow(*outside)
    assert refused.code == Exit.ENVIRONMENT and "give it `auth: keys` under args" in refused.err
    assert not (desk / "serve.yaml").exists()
    for said, written in ((("--auth", "keys"), "auth: keys"), (("--open-to-network",), "open_to_network: true")):
        assert agentflow(*outside, *said).code == 0
        assert written in (desk / "serve.yaml").read_text()


def test_run_as_json_is_one_document_with_output_nodes_trace_id_and_error(agentflow: Command):
    ended = agentflow("run", "double.yaml", "--input", '{"x": 1}', "--json")
    document = json.loads(ended.out)
    assert list(document) == ["output", "nodes", "use", "trace_id", "error"]
    assert (ended.code, document["output"], document["error"]) == (0, {"twice": 2, "für": "alle"}, None)
    assert document["nodes"]["twice"]["status"] == "succeeded"
    assert re.fullmatch(r"[0-9a-f]{32}", document["trace_id"])
    assert ended.err == "", "a program that reads this wants nothing else"


def test_a_run_that_fails_ends_with_one_sentence_that_names_the_node_and_the_trace(agentflow: Command):
    ended = agentflow("run", "raises.yaml", "--input", '{"x": 1}')
    assert (ended.code, ended.out) == (Exit.FAILED, "")
    *progress, last = ended.err.splitlines()
    assert any(re.search(r"FAILED +twice$", line) for line in progress)
    assert re.fullmatch(r"error: .*'twice'.*no such luck.* \[node_failed, trace [0-9a-f]{32}\]", last)


def test_a_run_that_fails_says_so_in_json_too(agentflow: Command):
    ended = agentflow("run", "raises.yaml", "--input", '{"x": 1}', "--json")
    document = json.loads(ended.out)
    assert (ended.code, document["output"]) == (Exit.FAILED, None)
    assert set(document["error"]) == {"code", "message", "node", "retry_after", "refused"}
    assert (document["error"]["code"], document["error"]["node"]) == ("node_failed", "twice")
    assert document["nodes"]["twice"]["error"]["type"] == "error"


def test_a_request_that_does_not_fit_is_a_failed_run_that_says_what_is_wrong(agentflow: Command):
    for given, says in (
        ("{}", "lacks the required field 'x'"),
        ('{"x": "1"}', "field 'x': it is a string, not a number"),
    ):
        ended = agentflow("run", "double.yaml", "--input", given)
        assert ended.code == Exit.FAILED
        assert says in ended.err and "[bad_input, trace " in ended.err


def test_an_answer_that_is_no_json_is_a_failed_run_as_it_is_on_a_server(agentflow: Command):
    ended = agentflow("run", "no_json.yaml", "--input", '{"x": 1}')
    assert (ended.code, ended.out) == (Exit.FAILED, "")
    assert "not JSON" in ended.err and "[bad_output, trace " in ended.err
    document = json.loads(agentflow("run", "no_json.yaml", "--input", '{"x": 1}', "--json").out)
    assert (document["output"], document["error"]["code"]) == (None, "bad_output")


def test_a_deadline_ends_the_run(agentflow: Command):
    ended = agentflow("run", "sleeps.yaml", "--input", '{"x": 1}', "--deadline", "0.1")
    assert ended.code == Exit.FAILED
    assert "'twice'" in ended.err and "[deadline_exceeded, trace " in ended.err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e300", "soon"])
def test_a_deadline_that_is_none_is_refused(agentflow: Command, seconds: str):
    ended = agentflow("run", "double.yaml", "--input", '{"x": 1}', "--deadline", seconds)
    assert ended.code == Exit.USAGE
    assert "--deadline" in ended.err


def test_code_off_runs_no_code_and_says_how_to_allow_it(agentflow: Command):
    ended = agentflow("run", "double.yaml", "--input", '{"x": 1}', "--code", "off")
    assert (ended.code, ended.out) == (Exit.ENVIRONMENT, "")
    assert re.fullmatch(r"error: node 'twice' has code, and this server runs none; .*\n", ended.err)


def test_a_prompt_without_an_llmhub_is_one_sentence_and_not_the_prompts_fallback(agentflow: Command):
    ended = agentflow("run", "ask.yaml", "--input", '{"x": "hi"}')
    assert (ended.code, ended.out) == (Exit.ENVIRONMENT, "")
    assert re.fullmatch(r"error: node 'ask' has a prompt.*llmhub\.yaml.*\n", ended.err)


def test_a_prompt_is_answered_by_the_simulated_model_over_http(agentflow: Command):
    ended = agentflow("run", "ask.yaml", "--input", '{"x": "hello there"}', *SIM)
    assert ended.code == 0
    assert json.loads(ended.out).startswith("[sim:sim-large]")


def test_a_role_that_nobody_serves_ends_the_run_before_it_starts(agentflow: Command, desk: Path):
    ended = agentflow("run", "ask.yaml", "--input", '{"x": "hi"}', *llmhub(desk, "roles: {}"))
    assert ended.code == Exit.ENVIRONMENT
    assert re.fullmatch(r"error: .*no role 'llm\.writer'.*\n", ended.err)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["validate", "nowhere.yaml"], 2, "'nowhere.yaml' does not exist"),
        (["validate", "."], 2, "is a directory"),
        (["validate", "ask.yaml", "--llmhub", "double.yaml"], 4, "double.yaml"),
        (["run", "double.yaml"], 2, "Missing option '--input'"),
        (["run", "double.yaml", "--input", "{}", "--allow-host", "http://x"], 2, "is not a host or host:port"),
        (["run", "double.yaml", "--input", "{}", "--code", "some"], 2, "--code"),
        (["run", "ask.yaml", "--input", "{}", "--llmhub", "double.yaml"], 4, "double.yaml"),
        (["plan", "double.yaml", "--placement", "auto"], 2, "--placement"),
        (["wat"], 2, "No such command 'wat'"),
        (["--wat"], 2, "No such option"),
    ],
)
def test_a_mistake_in_the_call_ends_with_its_code_and_a_sentence(
    agentflow: Command, arguments: list[str], code: int, says: str
):
    ended = agentflow(*arguments)
    assert (ended.code, ended.out) == (code, "")
    assert says in ended.err


def test_a_store_that_cannot_be_opened_is_a_sentence(agentflow: Command, desk: Path):
    (desk / "keeps.yaml").write_text(
        DOUBLE.replace("    transform:\n", "    state: {scope: request, backend: store}\n    transform:\n")
    )
    for store in ("mysql://x", "sqlite:////nowhere/at/all.sqlite"):
        ended = agentflow("run", "keeps.yaml", "--input", '{"x": 1}', "--store", store)
        assert ended.code == Exit.ENVIRONMENT
        assert re.fullmatch(r"error: .+\n", ended.err)


# -- schema ------------------------------------------------------------------------------------------------------------


def test_the_schema_accepts_the_example_flows_and_refuses_a_typo(agentflow: Command):
    ended = agentflow("schema")
    schema = json.loads(ended.out)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in EXAMPLES:
        document = yaml.safe_load(path.read_text())
        assert list(validator.iter_errors(document)) == []
        first = next(iter(document["nodes"].values()))
        first["runtme"] = {}
        assert not validator.is_valid(document)


# -- the process -------------------------------------------------------------------------------------------------------


def test_help_lists_the_commands_and_says_what_every_exit_code_means(agentflow: Command):
    ended = agentflow("--help")
    assert ended.code == 0
    for name in ("validate", "plan", "run", "serve", "schema"):
        assert re.search(rf"^ +{name} ", ended.out, re.MULTILINE)
    text = " ".join(ended.out.split())
    assert EPILOG in text
    assert set(map(int, re.findall(r"\b(\d+) [a-z]", EPILOG))) == {each.value for each in Exit}


def started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [AGENTFLOW, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


INTERRUPTED = PROMPT.replace(
    "edges:\n",
    """\
  think:
    inputs: [{name: x, type: string}]
    outputs: [{name: out, type: string}]
    transform:
      mode: code
      spec: |
        def transform(inputs, context, state):
            import time
            time.sleep(120)
            return {"out": "late"}
edges:
  - {from: _input.x, to: think.x}
  - {from: think.out, to: _output.late}
""",
).replace("to: _output}", "to: _output.soon}")


def test_ctrl_c_ends_a_run_with_130_and_leaves_no_process(desk: Path):
    (desk / "long.yaml").write_text(INTERRUPTED)
    with started("run", "long.yaml", "--input", '{"x": "hi"}', *SIM) as run:
        try:
            assert run.stderr is not None and run.stdout is not None
            said = ""
            while "done       ask" not in said:
                line = run.stderr.readline()
                assert line, said
                said += line
            give_up = time.monotonic() + 60
            while len(family := psutil.Process(run.pid).children(recursive=True)) < 2:
                assert time.monotonic() < give_up, "the simulated model and the sandbox of 'think'"
                time.sleep(0.05)
            run.send_signal(signal.SIGINT)
            assert run.wait(timeout=60) == Exit.INTERRUPTED
            assert "Traceback" not in said + run.stderr.read()
            assert run.stdout.read() == ""
            psutil.wait_procs(family, timeout=20)
            assert [each.pid for each in family if is_running(each.pid)] == []
        finally:
            run.kill()


def test_a_reader_that_stops_reading_gets_no_traceback(desk: Path):
    with started("plan", "double.yaml") as plan:
        assert plan.stdout is not None and plan.stderr is not None
        plan.stdout.close()
        plan.wait(timeout=60)
        assert "Traceback" not in plan.stderr.read()


HEAVY = ("ray", "any_llm", "kserve", "mellea", "httpx", "uvicorn", "fastapi", "openai", "numpy", "jsonschema", "rich")
HEAVY += ("duckdb", "hsfs")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["validate", "double.yaml"], ["validate", "ask.yaml", *SIM], ["schema"]]
)
def test_commands_that_only_look_import_nothing_heavy(desk: Path, arguments: list[str]):
    code = f"""
import sys
from agentflow_serve.commands import main
sys.argv = ["agentflow", *{arguments!r}]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
sys.stderr.write(" ".join(sorted(set(sys.modules) & set({HEAVY!r}))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""


def cpu_s(*command: Any) -> float:
    """The CPU time of a process, the best of three."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command], capture_output=True, check=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(once() for _ in range(3))


def test_help_and_validate_cost_little_more_than_the_libraries_they_stand_on(desk: Path):
    click_alone = cpu_s(sys.executable, "-c", "import click")
    libraries = cpu_s(sys.executable, "-c", "import click, pydantic, jinja2.sandbox, yaml; pydantic.BaseModel")
    assert cpu_s(AGENTFLOW, "--help") < 3 * click_alone
    assert cpu_s(AGENTFLOW, "validate", EXAMPLES[1]) < 3 * libraries
