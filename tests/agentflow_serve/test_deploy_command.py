"""`agentflow deploy` without a cluster: what is checked and shown before anything is sent, and how graphs compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from agentflow_serve.args import parse_args
from agentflow_serve.builder import app
from agentflow_serve.commands.exits import Exit
from agentflow_serve.errors import DeployFailed
from agentflow_serve.inputs import read_inputs
from agentflow_serve.rest_api import read_token, reason
from agentflow_serve.topology import deployed_topology, differences, topology_of
from support.applications import bound
from support.command_line import agentflow
from support.manifests import CONFIGS, ROOT
from support.ports import free_port

FLOW = (str(CONFIGS / "flows" / "triage.yaml"), "--llmhub", str(CONFIGS / "llmhub.sim.yaml"))


def test_a_dry_run_without_a_cluster_shows_the_config_that_would_be_sent(tmp_path: Path):
    shown = agentflow("deploy", *FLOW, "--dry-run", "--placement", "inline", "--open-to-network")
    assert shown.code == Exit.OK
    config = yaml.safe_load(shown.out)
    assert config["proxy_location"] == "EveryNode" and config["http_options"] == {"host": "0.0.0.0", "port": 8000}
    [application] = config["applications"]
    assert (application["name"], application["args"]["placement"]) == ("triage", "inline")


def test_a_flow_that_asks_nobody_for_a_key_is_not_sent_to_a_network_by_mistake():
    refused = agentflow("deploy", *FLOW, "--dry-run")
    assert refused.code == Exit.FAILED and "anybody who reaches 0.0.0.0 could call it" in refused.err
    shown = agentflow("deploy", *FLOW, "--dry-run", "--auth", "keys", "--store", "postgresql://a@b/c")
    assert (shown.code, yaml.safe_load(shown.out)["applications"][0]["args"]["auth"]) == (Exit.OK, "keys"), shown.err


def test_the_manifest_of_a_service_can_be_deployed_by_hand():
    manifest = ROOT / "k8s" / "returns-desk" / "base" / "ray_service.yaml"
    shown = agentflow("deploy", "--config", str(manifest), "--dry-run")
    assert shown.code == Exit.OK, shown.err
    inside = yaml.safe_load(yaml.safe_load(manifest.read_text())["spec"]["serveConfigV2"])
    assert yaml.safe_load(shown.out) == inside


def test_the_files_of_a_config_go_with_it_because_the_cluster_does_not_have_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    shown = agentflow("deploy", "--config", "configs/triage.yaml", "--dry-run")
    assert shown.code == Exit.OK, shown.err
    [application] = yaml.safe_load(shown.out)["applications"]
    assert application["args"]["flow"]["metadata"]["name"] == "triage"
    assert application["args"]["llmhub"]["providers"]["sim"] == {}


def test_a_service_whose_flow_is_in_a_config_map_is_sent_as_it_is(tmp_path: Path):
    made = agentflow("manifests", *FLOW, "--config-map", "--open-to-network", "-o", str(tmp_path / "out"))
    assert made.code == Exit.OK, made.err
    shown = agentflow("deploy", "--config", str(tmp_path / "out" / "base" / "ray_service.yaml"), "--dry-run")
    assert shown.code == Exit.OK, shown.err
    assert yaml.safe_load(shown.out)["applications"][0]["args"]["flow"] == "/etc/agentflow/flow/flow.yaml"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((*FLOW,), Exit.USAGE, "--address says where"),
        (("--dry-run",), Exit.USAGE, "give FLOW, or --config"),
        ((*FLOW, "--config", FLOW[0], "--dry-run"), Exit.USAGE, "not both"),
        (("--config", FLOW[0], "--dry-run"), Exit.ENVIRONMENT, "is not a serve config"),
        (("--config", str(CONFIGS / "triage.yaml"), "--store", "x", "--dry-run"), Exit.USAGE, "says everything itself"),
    ],
)
def test_wrong_usage_is_a_sentence(options: tuple[str, ...], code: Exit, message: str):
    ended = agentflow("deploy", *options)
    assert ended.code == code and message in ended.err


def test_a_config_that_serve_would_read_wrongly_is_not_sent(tmp_path: Path):
    config = yaml.safe_load((CONFIGS / "triage.yaml").read_text())
    config["applications"][0]["deployments"] = [{"name": "triage.sort", "num_replica": 3}]
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config))
    ended = agentflow("deploy", "--config", str(tmp_path / "serve.yaml"), "--address", "http://127.0.0.1:1")
    assert ended.code == Exit.FAILED and "did you mean 'num_replicas'?" in ended.err


def test_a_cluster_that_is_not_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    ended = agentflow("deploy", *FLOW, "--open-to-network", "--address", f"127.0.0.1:{free_port()}")
    assert ended.code == Exit.ENVIRONMENT and "no Serve REST API answers at http://127.0.0.1" in ended.err


@pytest.mark.parametrize("placement", ["per_node", "inline"])
@pytest.mark.parametrize("name", ["returns_desk", "triage", "research_brief"])
def test_the_topology_of_a_flow_is_what_the_builder_binds(name: str, placement: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["applications"][0]["args"]
    args = parse_args({**config, "placement": placement})
    found: dict[str, frozenset[str]] = {}

    def walk(value: Any) -> None:
        deployment, given = bound(value)
        inner = [each for part in given for each in (part.values() if isinstance(part, dict) else [part])]
        applications = [each for each in inner if type(each) is type(value)]
        found[deployment.name] = frozenset(bound(each)[0].name for each in applications)
        for each in applications:
            walk(each)

    walk(app(args))
    assert differences(topology_of(read_inputs(args), args), found) == ()


def test_a_graph_that_is_not_the_flows_is_told_edge_by_edge():
    details = {
        "deployment_topology": {
            "nodes": {
                "f": {"outbound_deployments": [{"name": "f.a", "app_name": "f"}]},
                "f.a": {"outbound_deployments": []},
                "f.x": {"outbound_deployments": []},
            }
        }
    }
    expected = {"f": frozenset({"f.a", "f.b"}), "f.a": frozenset({"f.sim"}), "f.b": frozenset[str]()}
    assert differences(expected, deployed_topology(details)) == (
        "the deployment 'f.b' is missing",
        "there is a deployment 'f.x' that the flow does not have",
        "'f' does not call 'f.b'",
        "'f.a' does not call 'f.sim'",
    )


def test_the_token_is_found_where_ray_finds_it(tmp_path: Path):
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("default\n")
    (tmp_path / "named").write_text("named\n")
    home = {"HOME": str(tmp_path)}
    assert read_token({"HOME": str(tmp_path / "nobody")}, None) is None
    assert read_token(home, None) == "default"
    assert read_token({**home, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "named")}, None) == "named"
    assert read_token({**home, "RAY_AUTH_TOKEN": "set"}, None) == "set"
    assert read_token({**home, "RAY_AUTH_TOKEN": "set"}, tmp_path / "named") == "named"
    with pytest.raises(DeployFailed, match="cannot be read"):
        read_token(home, tmp_path / "missing")


def test_why_an_app_did_not_start_is_the_last_line_of_what_failed():
    trace = 'Traceback (most recent call last):\n  File "/a/b.py", line 1\nValueError: no such role'
    app = {
        "message": "",
        "deployments": {"a": {"status": "HEALTHY", "message": "ok"}, "b": {"status": "UNHEALTHY", "message": trace}},
    }
    assert reason(app) == "ValueError: no such role"
