"""What `agentflow manifests` writes: the service as the plan has it, pods that are locked down, and whole folders."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentflow import load, plan
from agentflow_serve.builder import app
from agentflow_serve.commands.exits import Exit
from agentflow_serve.manifest_check.check import check_manifests
from agentflow_serve.manifests.sizing import worker_groups
from agentflow_serve.request_headers import CONTROL_HEADERS
from support.applications import bound
from support.command_line import Ended, agentflow
from support.manifests import CONFIGS, CRDS, DESK, ROOT, documents, one, pods
from support.readme import tidy

HUB = CONFIGS / "llmhub.sim.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifests") / "out"
    ended = agentflow("manifests", *DESK, "--inference-service", "standard", "-o", str(folder))
    assert ended.code == Exit.OK, ended.err
    return folder


def written(tmp_path: Path, flow: dict[str, Any], *options: str) -> tuple[Ended, Path]:
    """The manifests of a flow that stands nowhere else."""
    file = tmp_path / "flow.yaml"
    file.write_text(yaml.safe_dump(flow))
    out = tmp_path / "out"
    callers = () if "--auth" in options else ("--open-to-network",)
    return agentflow("manifests", str(file), "--llmhub", str(HUB), "-o", str(out), *callers, *options), out


def flow_of(*, name: str = "desk", nodes: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    nodes = nodes or {"a": prompt()}
    return {
        "version": "1.0",
        "metadata": {"name": name},
        "context": {"requires": ["x"]},
        "nodes": nodes,
        "edges": [
            edge
            for node in nodes
            for edge in ({"from": "_input.x", "to": f"{node}.x"}, {"from": f"{node}.out", "to": f"_output.{node}"})
        ],
        **top,
    }


def prompt(**runtime: Any) -> dict[str, Any]:
    return {
        "inputs": [{"name": "x", "type": "string"}],
        "outputs": [{"name": "out", "type": "string"}],
        "prompt": {"role": "llm.writer", "template": "{{ x }}"},
        "runtime": runtime,
    }


def calls(url: str) -> dict[str, Any]:
    spec = {"op": "http.get", "args": {"url": url}}
    ports = {"inputs": [{"name": "x", "type": "string"}], "outputs": [{"name": "out", "type": "object"}]}
    return {**ports, "transform": {"mode": "declarative", "spec": spec}}


def serve_config(folder: Path) -> dict[str, Any]:
    return yaml.load(one(folder, "RayService")["spec"]["serveConfigV2"], Loader=yaml.CSafeLoader)


# -- the service -------------------------------------------------------------------------------------------------------


def test_the_example_in_the_repository_is_what_the_command_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    readme = (ROOT / "k8s" / "README.md").read_text()
    [command] = [line[2:] for line in readme.splitlines() if line.startswith("$ agentflow manifests configs/")]
    shutil.copytree(CONFIGS, tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    ended = agentflow(*command.split()[1:])
    assert tidy(ended.out) in readme and ended.code == Exit.OK
    example = ROOT / "k8s" / "returns-desk"
    fresh = {str(path.relative_to(tmp_path / "k8s" / "returns-desk")): path for path in (tmp_path / "k8s").rglob("*.*")}
    assert fresh.keys() == {str(path.relative_to(example)) for path in example.rglob("*.*")}
    for name, path in fresh.items():
        assert path.read_text() == (example / name).read_text(), f"{name}: run the command in k8s/README.md again"
    checked = agentflow("manifests", "--check", str(example), "--crds", str(CRDS))
    assert checked.code == Exit.OK and tidy(checked.out) in readme


def test_serve_builds_the_deployments_that_the_serve_config_lists_with_the_same_options(made: Path):
    [application] = serve_config(made)["applications"]
    from agentflow_serve.args import parse_args

    predictor, (_, nodes, _) = bound(app(parse_args(application["args"])))
    built = {each.name: each for each in (predictor, *(bound(node)[0] for node in nodes.values()))}
    listed = {each["name"]: each for each in application["deployments"]}
    assert list(listed) == list(built)
    for name, options in listed.items():
        config = built[name]._deployment_config
        assert options["max_ongoing_requests"] == config.max_ongoing_requests
        assert options["graceful_shutdown_timeout_s"] == config.graceful_shutdown_timeout_s
        assert options["ray_actor_options"]["num_cpus"] == built[name].ray_actor_options["num_cpus"]


def test_nodes_bring_their_resources_and_autoscaling_and_a_gpu_gets_workers_of_its_own(tmp_path: Path):
    sized = prompt(
        resources={"num_cpus": 1.5, "memory": "2Gi"},
        autoscaling={"min_replicas": 2, "max_replicas": 8, "target_ongoing_requests": 4},
    )
    ended, out = written(tmp_path, flow_of(nodes={"a": sized, "b": prompt(resources={"num_gpus": 1})}))
    assert ended.code == Exit.OK, ended.err
    listed = {each["name"]: each for each in serve_config(out)["applications"][0]["deployments"]}
    assert listed["desk.a"]["autoscaling_config"] == {
        "min_replicas": 2,
        "max_replicas": 8,
        "target_ongoing_requests": 4,
    }
    assert listed["desk.a"]["ray_actor_options"] == {"num_cpus": 1.5, "num_gpus": 0.0, "memory": 2 * 1024**3}
    cpu, gpu = one(out, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert (cpu["groupName"], cpu["minReplicas"], cpu["maxReplicas"]) == ("cpu", 2, 8)
    assert gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_workers_hold_what_the_replicas_ask_for():
    one_replica = {"num_replicas": 1, "ray_actor_options": {"num_cpus": 1.0, "num_gpus": 0.0}}
    [group] = worker_groups({str(number): one_replica for number in range(9)}, cpus=2, memory="4Gi", max_workers=None)
    assert (group.min_replicas, group.max_replicas) == (5, 6)
    [small] = worker_groups({"a": one_replica}, cpus=2, memory="4Gi", max_workers=1)
    assert (small.min_replicas, small.max_replicas) == (1, 1)


def test_a_worker_has_the_size_that_the_flow_or_the_operator_gives_it(tmp_path: Path):
    sized = flow_of(deployment={"kserve": {"resources": {"cpu": "1500m", "memory": "3Gi"}}})
    for options, limits in (
        ((), {"cpu": "2", "memory": "3Gi"}),
        (("--worker-cpus", "8"), {"cpu": "8", "memory": "3Gi"}),
    ):
        ended, out = written(tmp_path, sized, *options)
        assert ended.code == Exit.OK, ended.err
        assert pods(out)["cpu"]["containers"][0]["resources"]["limits"] == limits


def test_the_cluster_asks_for_a_token_survives_its_head_and_keeps_the_head_free(made: Path):
    spec = one(made, "RayService")["spec"]
    cluster = spec["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "returns-desk-ray-auth"}
    assert "auth_token" in one(made, "Secret", "returns-desk-ray-auth")["stringData"]
    assert cluster["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]["secretKeyRef"]["key"] == "password"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        ports = {each["name"]: each["containerPort"] for each in group["template"]["spec"]["containers"][0]["ports"]}
        assert ports["serve"] == serve_config(made)["http_options"]["port"] == 8000
    predictor = serve_config(made)["applications"][0]["deployments"][0]
    assert predictor["autoscaling_config"]["min_replicas"] == 2


def test_a_pod_that_ends_has_time_for_every_call_that_it_accepted(made: Path):
    [application] = serve_config(made)["applications"]
    longest = max(each["graceful_shutdown_timeout_s"] for each in application["deployments"])
    worker = pods(made)["cpu"]
    [_, _, script] = worker["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    drain, sleep, stop = script.split("; ")
    waits = int(sleep.removeprefix("sleep "))
    assert drain.startswith("ray drain-node ") and drain.endswith(f" {waits}") and stop == "ray stop"
    assert longest <= waits < worker["terminationGracePeriodSeconds"]


def test_the_flow_can_stand_in_a_config_map_that_is_another_one_when_the_flow_changes(tmp_path: Path):
    names: set[str] = set()
    for title in ("one", "two"):
        folder = tmp_path / title
        folder.mkdir()
        ended, out = written(folder, flow_of(defaults={"timeout_ms": len(title) * 1000}), "--config-map")
        assert ended.code == Exit.OK
        if title == "two":
            ended, out = written(folder, flow_of(defaults={"timeout_ms": 9000}), "--config-map")
            assert ended.code == Exit.OK, ended.err
        args = serve_config(out)["applications"][0]["args"]
        assert (args["flow"], args["llmhub"]) == ("/etc/agentflow/flow/flow.yaml", "/etc/agentflow/flow/llmhub.yaml")
        [volume] = [each for each in pods(out)["cpu"]["volumes"] if each["name"] == "flow"]
        config = one(out, "ConfigMap", volume["configMap"]["name"])
        assert config["immutable"] is True
        assert plan(load_text(config["data"]["flow.yaml"])).name == "desk"
        names.add(config["metadata"]["name"])
    assert len(names) == 2


def load_text(text: str) -> Any:
    from agentflow import loads

    return loads(text).flow


def test_the_keys_are_files_and_the_template_names_every_one(made: Path):
    secret = one(made, "Secret", "returns-desk-keys")
    assert sorted(secret["stringData"]) == ["HOPSWORKS_API_KEY", "HOPSWORKS_HOST", "OPENAI_API_KEY"]
    for name in ("head", "cpu"):
        pod = pods(made)[name]
        [volume] = [each for each in pod["volumes"] if each["name"] == "keys"]
        assert volume["secret"] == {"secretName": "returns-desk-keys", "defaultMode": 0o440}
        assert "env" not in pod["containers"][0]
    listed = [name for each in documents(made) if each["kind"] == "Kustomization" for name in each["resources"]]
    assert not any("secret" in name for name in listed), "applying an overlay must not overwrite keys"


# -- the network, and who comes in ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "peer", "port"),
    [
        ("https://api.example.com/v1", {"cidr": "0.0.0.0/0"}, 443),
        ("https://${x}.example.com/", {"cidr": "0.0.0.0/0"}, 443),
        ("http://10.1.2.3:8080/x", {"cidr": "10.1.2.3/32"}, 8080),
        ("http://stock.shop.svc.cluster.local:81/x", {"kubernetes.io/metadata.name": "shop"}, 81),
        ("http://stock:81/x", {}, 81),
        ("https://[2001:db8::1]:8443/", {"cidr": "2001:db8::1/128"}, 8443),
    ],
)
def test_the_hosts_of_http_nodes_are_in_the_egress_policy(tmp_path: Path, url: str, peer: dict[str, str], port: int):
    ended, out = written(tmp_path, flow_of(nodes={"a": calls(url)}))
    assert ended.code == Exit.OK, ended.err
    [rule] = one(out, "NetworkPolicy", "desk-egress")["spec"]["egress"]
    [to] = rule["to"]
    found = {**to.get("ipBlock", {}), **to.get("namespaceSelector", {}).get("matchLabels", {})}
    assert peer.items() <= found.items()
    assert [each["port"] for each in rule["ports"]] == [port]
    if peer.get("cidr") == "0.0.0.0/0":
        assert "169.254.0.0/16" in found["except"]


def test_a_name_that_may_be_a_service_or_public_can_be_reached_as_either(tmp_path: Path):
    ended, out = written(tmp_path, flow_of(nodes={"a": calls("https://example.shop:8443/")}))
    assert ended.code == Exit.OK, ended.err
    public, service = sorted(str(rule["to"]) for rule in one(out, "NetworkPolicy", "desk-egress")["spec"]["egress"])
    assert "0.0.0.0/0" in public and "'kubernetes.io/metadata.name': 'shop'" in service


def test_a_flow_that_calls_nobody_may_call_nobody(tmp_path: Path):
    ended, out = written(tmp_path, flow_of())
    assert ended.code == Exit.OK and "the models are simulated" in ended.err
    assert "desk-egress" not in [each["metadata"]["name"] for each in documents(out) if each["kind"] == "NetworkPolicy"]


def test_the_route_takes_the_kserve_paths_and_strips_every_control_header(made: Path):
    [rule] = one(made, "HTTPRoute")["spec"]["rules"]
    assert {match["path"]["value"] for match in rule["matches"]} == {"/v1/models", "/v2"}
    [change] = rule["filters"]
    removed = change["requestHeaderModifier"]["remove"]
    assert {name.decode() for name in CONTROL_HEADERS} | {"serve_multiplexed_model_id"} == set(removed)
    assert rule["backendRefs"] == [{"name": "returns-desk-serve-svc", "port": 8000}]


@pytest.mark.parametrize(
    ("mode", "annotation", "scale"),
    [
        ("standard", "hpa", {"scaleMetric": "cpu", "scaleTarget": 60}),
        ("knative", None, {"scaleMetric": "rps", "scaleTarget": 40}),
        ("keda", "keda", {}),
    ],
)
def test_the_gateway_scales_as_its_mode_can(tmp_path: Path, mode: str, annotation: str | None, scale: dict[str, Any]):
    deployment = {"kserve": {"target_rps": 40}}
    ended, out = written(tmp_path, flow_of(deployment=deployment), "--inference-service", mode)
    assert ended.code == Exit.OK, ended.err
    service = one(out, "InferenceService")
    assert service["metadata"]["annotations"].get("serving.kserve.io/autoscalerClass") == annotation
    predictor = service["spec"]["predictor"]
    assert {key: predictor[key] for key in ("scaleMetric", "scaleTarget") if key in predictor} == scale
    assert ("autoScaling" in predictor) == (mode == "keda")


# -- names, and what is not written ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flow", "options", "message"),
    [
        ({"name": "a" * 48}, (), "with 48 characters, and KubeRay allows 47"),
        ({}, ("--name", "9-lives"), "gives '9-lives', which is no name for Kubernetes"),
        ({"deployment": {"kserve": {"service_name": "Desk_1"}}}, (), "the service name gives 'Desk_1'"),
        ({}, ("--name", "x" * 60), "60 characters"),
        ({}, ("--namespace", "Not_One"), "'Not_One' is no namespace"),
        ({"deployment": {"kserve": {"namespace": "a" * 64}}}, (), "is no namespace"),
        ({}, ("--store", "postgresql://u:secret@db/x"), "--store holds a password"),
        ({}, ("--worker-memory", "4 GB"), "--worker-memory"),
        ({}, ("--redis", "redis"), "--redis"),
        (
            {"deployment": {"kserve": {"resources": {"memory": "4 GB"}}}},
            (),
            "resources.memory '4 GB' must be in Mi or Gi",
        ),
    ],
)
def test_what_cannot_be_deployed_is_a_sentence_and_nothing_is_written(
    tmp_path: Path, flow: dict[str, Any], options: tuple[str, ...], message: str
):
    ended, out = written(tmp_path, flow_of(**flow), *options)
    assert ended.code == Exit.ENVIRONMENT
    assert message in ended.err and "secret@" not in ended.err
    assert not out.exists() and [path.name for path in tmp_path.iterdir()] == ["flow.yaml"]


STATEFUL = prompt() | {"state": {"scope": "session", "key": "s_{context.session_id}", "backend": "store"}}
ASKING = prompt() | {
    "outputs": [{"name": "out", "type": "object"}],
    "transform": {
        "mode": "declarative",
        "spec": {"op": "action.require", "args": {"type": "review", "payload": {"a": "hi"}}},
    },
}
del ASKING["prompt"]


@pytest.mark.parametrize(
    ("flow", "rules", "why"),
    [
        ({"nodes": {"a": STATEFUL}, "context": {"requires": ["x", "session_id"]}}, {}, "keeps state in the run store"),
        ({"budgets": {"max_tokens": 9}}, {}, "the flow's budgets"),
        ({"nodes": {"a": ASKING}}, {}, "the flow asks people"),
        ({}, {"budgets": {"budgets": [{"max_tokens_daily": 9}]}}, "--budgets"),
        (
            {},
            {"policy": {"rules": [{"kind": "model", "model_patterns": ["*"], "require_approval": True}]}},
            "the policy asks people",
        ),
    ],
    ids=["state", "flow budgets", "asks", "budgets.yaml", "approval"],
)
def test_what_pods_share_needs_a_store_that_all_of_them_reach(
    tmp_path: Path, flow: dict[str, Any], rules: dict[str, Any], why: str
):
    options: list[str] = []
    for name, document in rules.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(document))
        options += [f"--{name}", str(tmp_path / f"{name}.yaml")]
    ended, out = written(tmp_path, flow_of(**flow), *options)
    assert ended.code == Exit.ENVIRONMENT and not out.exists()
    assert why in ended.err and "--store postgresql://" in ended.err
    ended, _ = written(tmp_path, flow_of(**flow), *options, "--store", "postgresql://agentflow@db.shop:5432/agentflow")
    assert ended.code == Exit.OK, ended.err


def test_a_folder_is_renewed_as_a_whole_and_only_where_it_is_ours(tmp_path: Path):
    _, out = written(tmp_path, flow_of())
    ended, _ = written(tmp_path, flow_of(), "--max-workers", "3", "--inference-service", "keda")
    assert ended.code == Exit.OK
    assert one(out, "InferenceService")
    ended, _ = written(tmp_path, flow_of(), "--max-workers", "3")
    assert ended.code == Exit.OK and not (out / "components" / "gateway").exists()
    assert set(json.loads((out / ".agentflow.json").read_text())["files"]) == {
        str(path.relative_to(out)) for path in out.rglob("*.yaml")
    }


@pytest.mark.parametrize("change", ["edited", "added", "foreign", "other flow"])
def test_what_is_not_ours_to_replace_stays(tmp_path: Path, change: str):
    _, out = written(tmp_path, flow_of(name="my_desk"))
    match change:
        case "edited":
            (out / "base" / "config.yaml").write_text("mine")
        case "added":
            (out / "base" / "mine.yaml").write_text("mine")
        case "foreign":
            (out / ".agentflow.json").unlink()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    name = "my-desk" if change == "other flow" else "my_desk"  # one slug for both
    ended, _ = written(tmp_path, flow_of(name=name))
    assert ended.code == Exit.ENVIRONMENT and "choose another folder" in ended.err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("method", ["write_text", "rename"])
def test_a_renewal_that_fails_half_way_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
):
    _, out = written(tmp_path, flow_of())
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    real, calls_made = getattr(Path, method), []

    def full(path: Path, *args: Any, **options: Any) -> Any:
        if ".agentflow-" in str(path) or path == out:
            calls_made.append(path)
            if len(calls_made) == 3:  # in the middle of the files; and when the new folder takes the old one's place
                raise OSError(28, "No space left on device")
        return real(path, *args, **options)

    monkeypatch.setattr(Path, method, full)
    ended, _ = written(tmp_path, flow_of(), "--max-workers", "3")
    assert ended.code == Exit.ENVIRONMENT and "No space left on device" in ended.err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"flow.yaml", "out"}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl, which has kustomize")
@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_kustomize_builds_the_overlays_to_what_passes_the_check(made: Path, tmp_path: Path, overlay: str):
    command = ["kubectl", "kustomize", str(made / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    (tmp_path / "built.yaml").write_text(done.stdout)
    report = check_manifests(tmp_path / "built.yaml")
    assert report.problems == () and report.documents > 8
    cluster = one(tmp_path, "RayService")["spec"]["rayClusterConfig"]
    assert cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] == "agentflow/returns-desk:dev"
    assert cluster["workerGroupSpecs"][0]["minReplicas"] == (
        1 if overlay == "dev" else cluster["workerGroupSpecs"][0]["replicas"]
    )


def test_the_plan_of_the_example_is_the_fingerprint_of_its_service(made: Path):
    planned = plan(load(CONFIGS / "flows" / "returns_desk.yaml").flow)
    annotations = one(made, "RayService")["metadata"]["annotations"]
    assert annotations["agentflow-serve/fingerprint"] == planned.fingerprint
