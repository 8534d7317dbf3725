"""`agentflow manifests --check`: what generates is accepted, and what breaks in a cluster is named before it does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentflow_serve.commands.exits import Exit
from agentflow_serve.manifest_check.check import check_manifests
from support.command_line import agentflow
from support.manifests import CONFIGS, CRDS

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "out"
    flow = str(CONFIGS / "flows" / "triage.yaml")
    hub = str(CONFIGS / "llmhub.sim.yaml")
    mode = ("--inference-service", "standard", "--open-to-network")
    ended = agentflow("manifests", flow, "--llmhub", hub, *mode, "-o", str(folder))
    assert ended.code == Exit.OK, ended.err
    return folder


SERVICE = ("base/ray_service.yaml", "base/config.yaml")
GATEWAY = "components/gateway/inference_service.yaml"
OVERLAY = ("overlays/dev/kustomization.yaml", "overlays/dev/ray_service.patch.yaml", "overlays/dev/redis.yaml")


@pytest.fixture
def part(sound: Path, tmp_path: Path) -> Callable[..., Path]:
    """A folder with some of the files: each kind that is left out is one that need not be checked."""

    def copy(*names: str) -> Path:
        for name in names:
            target = tmp_path / "out" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(sound / name, target)
        return tmp_path / "out"

    return copy


def change(file: Path, edit: Change, kind: str | None = None) -> None:
    documents = list(yaml.load_all(file.read_text(), Loader=yaml.CSafeLoader))
    for document in documents:
        if kind is None or document["kind"] == kind:
            edit(document)
    file.write_text(yaml.dump_all(documents, Dumper=yaml.CSafeDumper))


def sentences(folder: Path, crds: Path | None = CRDS) -> list[str]:
    return [str(each) for each in check_manifests(folder, crds=crds).problems]


def cluster(document: dict[str, Any]) -> dict[str, Any]:
    return document["spec"]["rayClusterConfig"]


def head(document: dict[str, Any]) -> dict[str, Any]:
    return cluster(document)["headGroupSpec"]


def worker(document: dict[str, Any]) -> dict[str, Any]:
    return cluster(document)["workerGroupSpecs"][0]


def container(group: dict[str, Any]) -> dict[str, Any]:
    return group["template"]["spec"]["containers"][0]


def serve(edit: Change) -> Change:
    """A change of the serve config inside the text."""

    def inner(document: dict[str, Any]) -> None:
        config = yaml.safe_load(document["spec"]["serveConfigV2"])
        edit(config)
        document["spec"]["serveConfigV2"] = yaml.safe_dump(config)

    return inner


def app(config: dict[str, Any]) -> dict[str, Any]:
    return config["applications"][0]


def test_generated_manifests_are_in_order_in_every_layer(sound: Path):
    report = check_manifests(sound, crds=CRDS)
    assert report.problems == ()
    assert report.skipped == ("some schemas have rules in CEL, which only an API server evaluates",)
    assert report.documents >= 15


INCREMENTAL = {"type": "NewClusterWithIncrementalUpgrade"}
STEPS = {"stepSizePercent": 80, "maxSurgePercent": 50, "intervalSeconds": 10, "gatewayClassName": "g"}

RAY: dict[str, tuple[Change, str]] = {
    "a name that is too long": (
        lambda d: d["metadata"].update(name="a" * 48),
        "the name has 48 characters, and KubeRay allows 47",
    ),
    "a name that begins with a digit": (lambda d: d["metadata"].update(name="1a"), "beginning with a letter"),
    "an old version": (lambda d: d.update(apiVersion="ray.io/v1alpha1"), "v1alpha1 is deprecated"),
    "a duration without a unit that is zero": (
        lambda d: d["metadata"]["annotations"].update({"ray.io/initializing-timeout": "0s"}),
        "'0s' is no duration above zero",
    ),
    "a field that is not there": (
        lambda d: cluster(d).update(enableAutoscaling=True),
        "the CRD knows no 'enableAutoscaling' here",
    ),
    "a field with a typo": (
        lambda d: head(d).update(rayStartParam={}),
        "the CRD knows no 'rayStartParam' here (did you mean 'rayStartParams'?)",
    ),
    "a number that is no text": (
        lambda d: head(d)["rayStartParams"].update({"num-cpus": 0}),
        "0 is not of the type string",
    ),
    "no container": (lambda d: head(d)["template"]["spec"].pop("containers"), "the CRD requires 'containers'"),
    "a container that stands twice": (
        lambda d: container(head(d))["ports"].append({"name": "x", "containerPort": 8000}),
        "the entry with containerPort 8000, protocol TCP stands twice",
    ),
    "a serve config that is no text": (lambda d: d["spec"].update(serveConfigV2={}), "the serve config is a text"),
    "an upgrade that nobody knows": (
        lambda d: d["spec"].update(upgradeStrategy={"type": "Rolling"}),
        "'Rolling' is no way to upgrade",
    ),
    "an incremental upgrade without options": (
        lambda d: d["spec"].update(upgradeStrategy=INCREMENTAL),
        "an incremental upgrade needs clusterUpgradeOptions",
    ),
    "an incremental upgrade with a step above its surge": (
        lambda d: d["spec"].update(upgradeStrategy=INCREMENTAL | {"clusterUpgradeOptions": STEPS}),
        "0 <= stepSizePercent <= maxSurgePercent <= 100 must hold",
    ),
    "no authentication": (lambda d: cluster(d).pop("authOptions"), "without `mode: token` whoever reaches"),
    "authentication by Kubernetes": (
        lambda d: cluster(d)["authOptions"].update(enableK8sTokenAuth=True),
        "KubeRay refuses this for a RayService",
    ),
    "a Ray that has no tokens": (lambda d: cluster(d).update(rayVersion="2.51.0"), "needs Ray 2.52 or newer"),
    "Redis by a variable": (
        lambda d: container(head(d)).update(env=[{"name": "RAY_REDIS_ADDRESS", "value": "r:6379"}]),
        "RAY_REDIS_ADDRESS is for gcsFaultToleranceOptions to say",
    ),
    "Redis by the old switch": (
        lambda d: d["metadata"]["annotations"].update({"ray.io/ft-enabled": "true"}),
        "the old switch and gcsFaultToleranceOptions exclude each other",
    ),
    "storage beside Redis": (
        lambda d: cluster(d)["gcsFaultToleranceOptions"].update(
            storage={"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}
        ),
        "storage is for the backend rocksdb",
    ),
    "a pod that restarts under the autoscaler": (
        lambda d: worker(d)["template"]["spec"].update(restartPolicy="Always"),
        "autoscaler v2 needs Never, not Always",
    ),
    "the autoscaler's version said twice": (
        lambda d: container(head(d)).update(env=[{"name": "RAY_enable_autoscaler_v2", "value": "1"}]),
        "the version and the variable RAY_enable_autoscaler_v2 exclude each other",
    ),
    "resources said twice": (
        lambda d: worker(d).update(resources={"CPU": "2"}, rayStartParams={"num-cpus": "2"}),
        "resources stand here and in `resources`",
    ),
    "labels as a start parameter": (
        lambda d: worker(d).update(rayStartParams={"labels": "a=b"}),
        "move them to `labels`",
    ),
    "bounds the wrong way round": (
        lambda d: worker(d).update(minReplicas=9, replicas=9),
        "minReplicas 9 is above maxReplicas",
    ),
    "two groups of one name": (
        lambda d: cluster(d)["workerGroupSpecs"].append(worker(d)),
        "two groups are called 'cpu'",
    ),
    "a sidecar in front of Ray": (
        lambda d: worker(d)["template"]["spec"]["containers"].insert(0, {"name": "sidecar", "image": "x"}),
        "KubeRay starts Ray in the first container",
    ),
    "a strategy of the cluster": (
        lambda d: cluster(d).update(upgradeStrategy={"type": "Recreate"}),
        "a RayService upgrades by spec.upgradeStrategy",
    ),
    "a name for the head's Service": (
        lambda d: head(d).update(headService={"metadata": {"name": "x"}, "spec": {}}),
        "KubeRay names the Service of the head itself",
    ),
    "a port that Serve does not listen on": (
        serve(lambda c: c["http_options"].update(port=9000)),
        "Serve listens on 9000, and no port `serve` has that number",
    ),
    "Serve on loopback": (serve(lambda c: c["http_options"].update(host="127.0.0.1")), "Serve listens on loopback"),
    "a typo that Serve would drop": (
        serve(lambda c: app(c)["deployments"][0].update(num_replica=2)),
        "Serve knows no 'num_replica' here, and would drop it without a word (did you mean 'num_replicas'?)",
    ),
    "a typo in the autoscaling": (
        serve(lambda c: app(c)["deployments"][1].update(autoscaling_config={"target_ongoing_request": 2})),
        "did you mean 'target_ongoing_requests'?",
    ),
    "autoscaling the wrong way round": (
        serve(
            lambda c: app(c)["deployments"][1].update(
                num_replicas=None, autoscaling_config={"min_replicas": 3, "max_replicas": 2}
            )
        ),
        "Serve refuses this",
    ),
    "an import path that is none": (serve(lambda c: app(c).update(import_path="x")), "Serve refuses this"),
    "a deployment that the flow does not have": (
        serve(lambda c: app(c)["deployments"][1].update(name="triage.acount")),
        "the flow has no deployment 'triage.acount' (did you mean 'triage.account'?)",
    ),
    "an argument that the builder does not know": (
        serve(lambda c: app(c)["args"].update(placment="inline")),
        "args.placment: Extra inputs are not permitted",
    ),
    "a flow that is invalid": (
        serve(lambda c: app(c)["args"]["flow"]["edges"].append({"from": "nobody.x", "to": "_output"})),
        "nobody",
    ),
    "a ConfigMap that is not there": (
        lambda d: container(worker(d))["envFrom"].append({"configMapRef": {"name": "elsewhere"}}),
        "the pods use a ConfigMap 'elsewhere', and none here is called that",
    ),
    "the name of KServe's Service": (
        lambda d: d["spec"]["serveService"]["metadata"].update(name="triage-predictor"),
        "the InferenceService 'triage' makes a Service triage-predictor too",
    ),
}


@pytest.mark.parametrize("case", RAY)
def test_a_broken_service_is_named_with_what_to_do(part: Callable[..., Path], case: str):
    edit, sentence = RAY[case]
    folder = part(*SERVICE, *([GATEWAY] if "KServe" in case else []))
    change(folder / "base" / "ray_service.yaml", edit)
    found = sentences(folder)
    assert any(sentence in each for each in found), found
    assert all(each.startswith("base/") for each in found)


def spec(**values: Any) -> Change:
    return lambda document: document["spec"].update(values)


OTHERS: dict[str, tuple[str, str | None, Change, str]] = {
    "rps without Knative": (
        GATEWAY,
        None,
        lambda d: d["spec"]["predictor"].update(scaleMetric="rps", scaleTarget=40),
        "only Knative counts rps",
    ),
    "a target without a metric": (
        GATEWAY,
        None,
        lambda d: d["spec"]["predictor"].pop("scaleMetric"),
        "without scaleMetric, 60 means percent of the CPU",
    ),
    "a container that KServe does not find": (
        GATEWAY,
        None,
        lambda d: d["spec"]["predictor"]["containers"][0].update(name="main"),
        "KServe looks for a container called kserve-container",
    ),
    "an autoscaler that nobody knows": (
        GATEWAY,
        None,
        lambda d: d["metadata"]["annotations"].update({"serving.kserve.io/autoscalerClass": "magic"}),
        "'magic' is no autoscaler",
    ),
    "a share of pods that have no scale": (
        "overlays/prod/disruption_budget.yaml",
        None,
        spec(minAvailable="50%"),
        "only `minAvailable` with a number works",
    ),
    "a field that a policy does not have": (
        "base/network_policies.yaml",
        None,
        spec(egresss=[]),
        "egresss",
    ),
    "a route to a Service that nobody makes": (
        "components/route/http_route.yaml",
        None,
        lambda d: d["spec"]["rules"][0]["backendRefs"][0].update(name="triage"),
        "nothing here makes a Service 'triage'",
    ),
    "a filter that is none": (
        "components/route/http_route.yaml",
        None,
        lambda d: d["spec"]["rules"][0]["filters"][0].update(type="Strip"),
        '"Strip" is none of',
    ),
    "a token under another key": (
        "secrets.template.yaml",
        "Secret",
        lambda d: d.update(stringData={"token": "x"}),
        "KubeRay reads the key `auth_token`",
    ),
    "a rule without an expression": (
        "components/monitoring/prometheus_rule.yaml",
        None,
        lambda d: d["spec"]["groups"][0]["rules"][0].pop("expr"),
        "the CRD requires 'expr'",
    ),
    "a resource that is not there": (
        "base/kustomization.yaml",
        None,
        lambda d: d["resources"].append("missing.yaml"),
        "resources: there is no missing.yaml",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_is_wrong_beside_the_service_is_named_too(part: Callable[..., Path], case: str):
    name, kind, edit, sentence = OTHERS[case]
    needs_service = name in (
        "overlays/prod/disruption_budget.yaml",
        "components/route/http_route.yaml",
        "secrets.template.yaml",
    )
    folder = part(name, *(SERVICE if needs_service else ()))
    change(folder / name, edit, kind)
    found = sentences(folder)
    assert any(sentence in each and each.startswith(name) for each in found), found


def test_an_overlay_is_checked_as_its_patches_leave_the_base(part: Callable[..., Path]):
    folder = part(*SERVICE, *OVERLAY)
    patch = folder / "overlays" / "dev" / "ray_service.patch.yaml"
    operations = yaml.safe_load(patch.read_text())
    operations[-1]["value"] = 0
    patch.write_text(yaml.safe_dump(operations))
    [found] = sentences(folder)
    assert found.startswith("overlays/dev/ray_service.patch.yaml RayService/triage") and "above maxReplicas 0" in found
    patch.write_text(yaml.safe_dump([{"op": "replace", "path": "/spec/nothing/here", "value": 1}]))
    assert sentences(folder) == [
        "overlays/dev/ray_service.patch.yaml: replace /spec/nothing/here: there is no such place"
    ]


def test_a_merge_into_the_worker_groups_would_drop_their_pods(part: Callable[..., Path]):
    folder = part(*SERVICE, *OVERLAY)
    merge = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "triage"},
        "spec": {"rayClusterConfig": {"workerGroupSpecs": [{"groupName": "cpu", "minReplicas": 1}]}},
    }
    (folder / "overlays" / "dev" / "ray_service.patch.yaml").write_text(yaml.safe_dump(merge))
    [found] = sentences(folder)
    assert "replaces the whole list and drops the pods" in found


def test_two_services_of_one_name_would_replace_each_other(part: Callable[..., Path]):
    folder = part(*SERVICE)
    shutil.copy(folder / "base" / "ray_service.yaml", folder / "base" / "again.yaml")
    [found] = sentences(folder)
    assert found.startswith("base/ray_service.yaml") and "base/again.yaml has a RayService of this name too" in found


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "is not YAML"),
        ("a: 1\na: 2\n", "the key 'a' stands twice"),
        ("[" * 5000, "is not YAML"),
        (
            "a: &a [1, 1]\n" + "".join(f"{n}: &{n} [*{m}, *{m}, *{m}, *{m}]\n" for m, n in pairwise("abcdefghijkl")),
            "aliases",
        ),
        ("just text", "is no Kubernetes object"),
        ("apiVersion: v1\nkind: Secret\n", "a Secret has no metadata.name"),
        ("- op: add\n", "no kustomization names it as a patch"),
    ],
)
def test_a_file_that_is_no_manifest_is_named(part: Callable[..., Path], text: str, sentence: str):
    folder = part("base/config.yaml")
    (folder / "base" / "odd.yaml").write_text(text)
    [found] = sentences(folder)
    assert found.startswith("base/odd.yaml") and sentence in found


def test_without_crds_the_other_layers_still_check(part: Callable[..., Path]):
    folder = part(*SERVICE)
    change(
        folder / "base" / "ray_service.yaml",
        lambda d: (head(d).update(rayStartParam={}), cluster(d).pop("authOptions")),
    )
    ended = agentflow("manifests", "--check", str(folder))
    assert ended.code == Exit.FAILED
    assert "whoever reaches port 8265" in ended.out and "rayStartParam " not in ended.out
    assert "no CRDs are given (--crds FOLDER)" in ended.err
    assert ended.out.splitlines()[-1].endswith("1 problem")


def test_published_crds_are_read_as_yaml_too(part: Callable[..., Path], tmp_path: Path):
    folder = part("components/monitoring/pod_monitor.yaml", *SERVICE)
    import gzip
    import json

    crd = json.loads(gzip.decompress((CRDS / "podmonitors.json.gz").read_bytes()))
    (tmp_path / "crds").mkdir()
    (tmp_path / "crds" / "monitor.yaml").write_text(yaml.safe_dump(crd))
    change(folder / "components" / "monitoring" / "pod_monitor.yaml", spec(selectr={}))
    report = check_manifests(folder, crds=tmp_path / "crds")
    assert [each.message for each in report.problems] == ["the CRD knows no 'selectr' here (did you mean 'selector'?)"]
    assert any("has no CRD of ray.io/v1 RayService" in each for each in report.skipped)


def test_a_folder_without_manifests_is_no_success(tmp_path: Path):
    ended = agentflow("manifests", "--check", str(tmp_path))
    assert ended.code == Exit.FAILED and "holds no manifests" in ended.out
