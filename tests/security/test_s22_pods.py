"""S12, S22: the pods of generated manifests have no rights that they do not need, and nobody reaches what runs code."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.command_line import agentflow
from support.manifests import DESK, documents, one, pods


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifests") / "out"
    ended = agentflow("manifests", *DESK, "--inference-service", "standard", "-o", str(folder))
    assert ended.code == 0, ended.err
    return folder


def test_no_cluster_starts_without_a_token(made: Path):
    assert one(made, "RayService")["spec"]["rayClusterConfig"]["authOptions"]["mode"] == "token"


@pytest.mark.parametrize("name", ["head", "cpu", "gateway", "returns-desk-redis"])
def test_a_pod_has_no_rights_that_it_does_not_need(made: Path, name: str):
    pod = pods(made)[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["runAsNonRoot"] is True and context["runAsUser"] > 0
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
    assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
    assert not [volume for volume in pod.get("volumes", ()) if "hostPath" in volume]


def test_only_the_autoscaler_may_talk_to_kubernetes(made: Path):
    cluster = one(made, "RayService")["spec"]["rayClusterConfig"]
    token = [each["name"] for each in pods(made)["head"]["volumes"] if "projected" in each]
    assert [each["name"] for each in cluster["autoscalerOptions"]["volumeMounts"]][:1] == token
    assert token[0] not in [each["name"] for each in pods(made)["head"]["containers"][0]["volumeMounts"]]
    assert cluster["autoscalerOptions"]["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_network_is_closed_but_for_what_is_listed(made: Path):
    policies = {
        each["metadata"]["name"].removeprefix("returns-desk-"): each
        for each in documents(made)
        if each["kind"] == "NetworkPolicy"
    }
    deny = policies["default-deny"]["spec"]
    assert deny["policyTypes"] == ["Ingress", "Egress"] and not deny.keys() & {"ingress", "egress"}
    ingress = [
        (source["namespaceSelector"]["matchLabels"], [port["port"] for port in rule["ports"]])
        for rule in policies["ingress"]["spec"]["ingress"]
        for source in rule["from"]
    ]
    assert ({"kubernetes.io/metadata.name": "kuberay-operator"}, [8265, 8000]) in ingress
    assert ({"agentflow-serve/client": "true"}, [8000, 8080]) in ingress
    assert ({"kubernetes.io/metadata.name": "monitoring"}, [8080, 44217, 44227]) in ingress
    assert not [ports for labels, ports in ingress if 8265 in ports and "kuberay-operator" not in labels.values()]
    assert not [ports for _, ports in ingress if {6379, 10001} & set(ports)]
    assert policies["egress"]["metadata"]["annotations"]["agentflow-serve/egress-hosts"] == "api.openai.com:443"
