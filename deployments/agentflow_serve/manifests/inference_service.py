"""A KServe InferenceService in front of the RayService, for sites whose tools look for one: a pass-through."""

from __future__ import annotations

from agentflow_serve.manifests.common import (
    CONTAINER_SECURITY,
    GATEWAY_PORT,
    POD_SECURITY,
    SERVE_PORT,
    Document,
    document,
    pod_labels,
    serve_service,
)
from agentflow_serve.manifests.pods import DRAIN_MARGIN_S, drain_s, image_of
from agentflow_serve.manifests.settings import GatewayMode
from agentflow_serve.manifests.subject import Subject

DEFAULT_RPS = 100
CPU_PERCENT = 60


def inference_service(subject: Subject, mode: GatewayMode) -> Document:
    """Its Service is `<name>-predictor`; the RayService's has another name."""
    annotations = {"serving.kserve.io/deploymentMode": "Knative" if mode == "knative" else "Standard"}
    if mode != "knative":
        annotations["serving.kserve.io/autoscalerClass"] = "keda" if mode == "keda" else "hpa"
    predictor: Document = {
        "minReplicas": 2,
        "maxReplicas": 6,
        **_scale(subject, mode),
        "timeout": subject.answered_within_s,
        "labels": pod_labels(subject, "gateway"),
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": drain_s(subject) + DRAIN_MARGIN_S,
        "securityContext": POD_SECURITY,
        "containers": [_container(subject)],
    }
    return document(
        subject,
        "serving.kserve.io/v1beta1",
        "InferenceService",
        subject.name,
        annotations=annotations,
        spec={"predictor": predictor},
    )


def _scale(subject: Subject, mode: GatewayMode) -> Document:
    """Requests per second can only be counted by Knative; elsewhere a target is a percentage of the CPU."""
    match mode:
        case "knative":
            return {"scaleMetric": "rps", "scaleTarget": subject.target_rps or DEFAULT_RPS}
        case "standard":
            return {"scaleMetric": "cpu", "scaleTarget": CPU_PERCENT}
        case "keda":
            target = {"type": "Utilization", "averageUtilization": CPU_PERCENT}
            return {"autoScaling": {"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}}


def _container(subject: Subject) -> Document:
    upstream = f"http://{serve_service(subject)}:{SERVE_PORT}"
    ready = {"httpGet": {"path": f"/v2/models/{subject.flow}/ready", "port": GATEWAY_PORT}, "periodSeconds": 5}
    live = {"httpGet": {"path": "/-/alive", "port": GATEWAY_PORT}, "periodSeconds": 10}
    wanted = {"cpu": "500m", "memory": "512Mi"}
    return {
        "name": "kserve-container",
        "image": image_of(subject),
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "agentflow_serve.gateway"],
        "args": ["--upstream", upstream, "--port", str(GATEWAY_PORT), "--timeout", str(subject.answered_within_s)],
        "ports": [{"name": "http1", "containerPort": GATEWAY_PORT, "protocol": "TCP"}],
        "readinessProbe": ready,
        "livenessProbe": live,
        "resources": {"requests": wanted, "limits": wanted},
        "securityContext": CONTAINER_SECURITY,
    }
