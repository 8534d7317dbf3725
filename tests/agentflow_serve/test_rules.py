"""budgets.yaml and a policy on their way into an app: read before anything starts, and carried along."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from agent_runtime import Budget
from agentflow_serve import app
from agentflow_serve.args import parse_args
from agentflow_serve.call import CallMeta
from agentflow_serve.commands.exits import Exit
from agentflow_serve.errors import AppInvalid, run_failed
from agentflow_serve.predictor import Predictor
from agentflow_serve.self_contained import self_contained
from agentflow_serve.serve_config import check_config
from llmhub_runtime.names import SERVED_FLOW
from llmhub_runtime.sim import SimServer
from runtime_core.context import Identity
from runtime_core.errors import DocumentInvalid
from runtime_core.report import RunReport
from support.applications import bound
from support.command_line import agentflow
from support.manifests import one

FLOW = {
    "version": "1.0",
    "metadata": {"name": "desk"},
    "context": {"requires": ["x"]},
    "nodes": {
        "ask": {
            "inputs": [{"name": "x", "type": "string"}],
            "outputs": [{"name": "out", "type": "string"}],
            "prompt": {"template": "{{ x }}", "role": "main"},
        }
    },
    "edges": [{"from": "_input.x", "to": "ask.x"}, {"from": "ask.out", "to": "_output"}],
}
HUB = {
    "project": "p",
    "env": "e",
    "providers": {"sim": {}},
    "roles": {"main": {"provider": "sim", "model": "m", "mode": "chat"}},
}
BUDGETS = {"budgets": [{"scope_id": "acme", "role": "main", "max_cost_daily": "0.5"}, {"max_requests_total": 1}]}
POLICY = {"rules": [{"kind": "model", "model_patterns": ["sim/*"], "denied_scopes": ["trial-*"]}]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `serve run` is started."""
    monkeypatch.chdir(tmp_path)
    for name, document in {"flow": FLOW, "llmhub": HUB, "budgets": BUDGETS, "policy": POLICY}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(document))
    return tmp_path


def config(**args: Any) -> dict[str, Any]:
    return {"applications": [{"name": "n", "import_path": "agentflow_serve:app", "args": args}]}


NAMED = {"flow": "flow.yaml", "llmhub": "llmhub.yaml", "budgets": "budgets.yaml", "policy": "policy.yaml"}


@pytest.mark.parametrize("inline", [False, True], ids=["files", "inline"])
def test_the_predictor_gets_the_budgets_and_every_replica_the_policy(folder: Path, inline: bool):
    given = {"flow": FLOW, "llmhub": HUB, "budgets": BUDGETS, "policy": POLICY} if inline else NAMED
    target = app(parse_args(given))
    _, (spec, nodes, _) = bound(target)
    assert [budget.account.role for budget in spec.budgets] == ["main", ""]
    assert spec.process.policy.rules[0].denied_scopes == ("trial-*",)
    _, (node, *_) = bound(nodes["ask"])
    assert node.process.policy == spec.process.policy


def test_what_is_wrong_is_told_with_its_line_before_anything_starts(folder: Path):
    (folder / "budgets.yaml").write_text("budgets:\n  - role: mian\n    max_cost_daily: 1\n")
    with pytest.raises(DocumentInvalid, match=r"budgets\.yaml:2: budgets\[0\]\.role is 'mian', and no model .*: main"):
        check_config(config(**NAMED), None)
    with pytest.raises(AppInvalid, match="`budgets` need a store that all replicas share"):
        parse_args(NAMED | {"store": "memory:"})
    with pytest.raises(AppInvalid, match=r"there is no file nowhere\.yaml"):
        check_config(config(**NAMED | {"budgets": None, "policy": "nowhere.yaml"}), None)


def test_both_documents_travel_in_a_config_that_needs_no_files(folder: Path):
    made = self_contained(config(**NAMED))
    assert {file.name for file in made.files} == {"flow.yaml", "llmhub.yaml", "budgets.yaml", "policy.yaml"}
    [served] = made.document["applications"]
    again = json.loads(json.dumps(served["args"]))
    assert again["policy"] == POLICY
    _, (spec, *_) = bound(app(parse_args(again)))
    assert spec.budgets == (
        Budget(scope_id="acme", role="main", max_cost_daily="0.5"),  # pyright: ignore[reportArgumentType]
        Budget(max_requests_total=1),
    )


def test_manifests_and_a_written_serve_config_carry_them(folder: Path):
    files = ("--llmhub", "llmhub.yaml", "--budgets", "budgets.yaml", "--policy", "policy.yaml")
    shared = ("--store", "postgresql://agentflow@db:5432/agentflow")
    done = agentflow("manifests", "flow.yaml", "-o", "out", "--open-to-network", *shared, *files)
    assert done.code == Exit.OK, done.err
    inside = yaml.safe_load(one(folder / "out" / "base", "RayService")["spec"]["serveConfigV2"])
    assert agentflow("serve", "flow.yaml", "--write-config", "serve.yaml", *files).code == Exit.OK
    for document in (inside, yaml.safe_load((folder / "serve.yaml").read_text())):
        [served] = document["applications"]
        assert served["args"]["policy"] == POLICY
        assert parse_args(served["args"]).budgets == BUDGETS | {
            "budgets": [BUDGETS["budgets"][0], {"scope_id": "default", "max_requests_total": 1}]
        }


def test_a_deployed_config_and_an_image_carry_them(folder: Path):
    files = ("--llmhub", "llmhub.yaml", "--budgets", "budgets.yaml", "--policy", "policy.yaml")
    shown = agentflow("deploy", "flow.yaml", "--dry-run", "--open-to-network", *files)
    assert shown.code == Exit.OK, shown.err
    assert agentflow("package", "flow.yaml", "-o", "image", *files).code == Exit.OK
    for text in (shown.out, (folder / "image" / "serve.yaml").read_text()):
        [served] = yaml.safe_load(text)["applications"]
        assert served["args"]["policy"] == POLICY
        assert [each["scope_id"] for each in served["args"]["budgets"]["budgets"]] == ["acme", "default"]


def test_a_run_has_the_budgets_and_the_policy_of_its_files(folder: Path):
    given = ("run", "flow.yaml", "--input", '{"x": "hi"}', "--llmhub", "llmhub.yaml", "--json")
    first = agentflow(*given, "--budgets", "budgets.yaml")
    second = agentflow(*given, "--budgets", "budgets.yaml")
    assert (first.code, second.code) == (Exit.OK, Exit.FAILED)
    assert json.loads(second.out)["error"]["code"] == "budget_exceeded"
    (folder / "policy.yaml").write_text(yaml.safe_dump({"default": "deny"}))
    denied = agentflow(*given, "--policy", "policy.yaml")
    assert json.loads(denied.out)["error"]["code"] == "policy_denied"


def test_a_run_says_how_to_answer_what_its_policy_asks(folder: Path):
    rule = {"kind": "model", "model_patterns": ["*"], "require_approval": True}
    (folder / "policy.yaml").write_text(yaml.safe_dump({"approval_timeout_seconds": 60, "rules": [rule]}))
    given = ("run", "flow.yaml", "--input", '{"x": "hi"}', "--llmhub", "llmhub.yaml", "--policy", "policy.yaml")
    command = [
        sys.executable,
        "-c",
        "from agentflow_serve.commands import main; main()",
        *given,
        "--store",
        "sqlite:///asks.sqlite",
    ]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert run.stderr is not None
        said = next(line for line in run.stderr if "waits for a person" in line)
        answer = re.search(r"agentflow (actions resolve .* --approve)", said)
        assert answer is not None and agentflow(*shlex.split(answer[1])).code == Exit.OK
        run.communicate(timeout=30)
        assert run.returncode == Exit.OK
    finally:
        run.kill()
        run.communicate()


def test_a_wrong_file_ends_a_run_before_it_begins(folder: Path):
    (folder / "budgets.yaml").write_text("budgets:\n  - max_cost_dayly: 1\n")
    given = ("run", "flow.yaml", "--input", "{}", "--budgets", "budgets.yaml")
    assert agentflow(*given).code == Exit.USAGE
    done = agentflow(*given, "--llmhub", "llmhub.yaml")
    assert done.code == Exit.ENVIRONMENT and "budgets.yaml:2:" in done.err and "max_cost_daily" in done.err
    assert not (folder / "agentflow.sqlite").exists()


class Unserved(Predictor.__mro__[1]):  # pyright: ignore[reportUntypedBaseClass]
    """What Serve wraps; Serve awaits its `__del__`, which here nobody calls."""

    def __del__(self) -> None:
        return None


@pytest.fixture
async def predictor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Unserved, SimServer]]:
    """The predictor of an app whose nodes all run in it, without a cluster around it."""
    context = SimpleNamespace(app_name="desk")
    monkeypatch.setattr("ray.serve.get_replica_context", lambda: context)
    monkeypatch.setenv(SERVED_FLOW, "desk")  # it is set for good in a replica
    async with SimServer() as sim:
        hub = HUB | {"providers": {"sim": {"api_base": sim.openai_base}}}
        given = {"flow": FLOW, "llmhub": hub, "budgets": BUDGETS, "policy": POLICY, "placement": "inline"}
        _, (spec, *_) = bound(app(parse_args(given)))
        replica = Unserved.__new__(Unserved)
        await replica.__init__(spec, {}, None)
        yield replica, sim
        await replica._stack.aclose()


async def ask(replica: Unserved, scope: str) -> RunReport:
    return await replica.run({"x": "hi"}, CallMeta(identity=Identity(scope_id=scope, principal_id="ann")))


async def test_a_served_flow_keeps_to_both(predictor: tuple[Unserved, SimServer]):
    replica, sim = predictor
    first, second = await ask(replica, "default"), await ask(replica, "default")
    trial, other = await ask(replica, "trial-1"), await ask(replica, "other")
    assert first.error is None and other.error is None
    assert second.error is not None and (second.error.code, second.error.node) == ("budget_exceeded", "ask")
    assert trial.error is not None and trial.error.code == "policy_denied"
    answer = run_failed(trial.error, trial)
    assert (answer.status, run_failed(second.error, second).status) == (403, 402)
    assert len(sim.log()) == 2
