"""What KServe refuses, or silently takes for something else, although the CRD of an InferenceService allows it."""

from __future__ import annotations

from typing import Any

from agentflow_serve.manifest_check.report import Found, Manifest, items, mapping
from agentflow_serve.manifests.names import DNS_LABEL

MODES = ("Standard", "Knative", "RawDeployment", "Serverless")
AUTOSCALERS = ("hpa", "keda", "external", "none")
CONTAINER = "kserve-container"
_MODE, _SCALER = "serving.kserve.io/deploymentMode", "serving.kserve.io/autoscalerClass"


def check_inference_service(manifest: Manifest) -> Found:
    annotations = mapping(manifest.metadata.get("annotations"))
    predictor = mapping(manifest.spec.get("predictor"))
    mode, scaler = annotations.get(_MODE, "Standard"), annotations.get(_SCALER)
    if not DNS_LABEL.fullmatch(manifest.name):
        yield "metadata.name", "the name must be lower-case letters, digits and hyphens, beginning with a letter"
    if mode not in MODES:
        yield f"metadata.annotations.{_MODE}", f"'{mode}' is no deployment mode; KServe knows Standard and Knative"
    if scaler is not None and scaler not in AUTOSCALERS:
        yield f"metadata.annotations.{_SCALER}", f"'{scaler}' is no autoscaler; KServe knows {', '.join(AUTOSCALERS)}"
    if predictor.get("containers") and CONTAINER not in [each.get("name") for each in items(predictor["containers"])]:
        yield "spec.predictor.containers", f"KServe looks for a container called {CONTAINER}"
    yield from _scale(predictor, knative=mode in ("Knative", "Serverless"), keda=scaler == "keda")


def _scale(predictor: dict[str, Any], *, knative: bool, keda: bool) -> Found:
    metric, target = predictor.get("scaleMetric"), predictor.get("scaleTarget")
    low, high = predictor.get("minReplicas"), predictor.get("maxReplicas")
    if isinstance(low, int) and isinstance(high, int) and high and low > high:
        yield "spec.predictor.minReplicas", f"minReplicas {low} is above maxReplicas {high}"
    if keda and metric is not None:
        yield "spec.predictor.scaleMetric", "KEDA takes autoScaling.metrics: take scaleMetric out"
    elif not knative and metric in ("rps", "concurrency"):
        yield (
            "spec.predictor.scaleMetric",
            f"only Knative counts {metric}: use cpu or memory, or deploymentMode Knative",
        )
    elif not knative and metric is None and target is not None:
        yield (
            "spec.predictor.scaleTarget",
            f"without scaleMetric, {target} means percent of the CPU: say which is meant",
        )
    elif metric == "cpu" and isinstance(target, int) and not 1 <= target <= 100:
        yield "spec.predictor.scaleTarget", f"{target} is no percentage of the CPU: it must be 1 to 100"
