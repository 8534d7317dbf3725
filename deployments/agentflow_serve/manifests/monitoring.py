"""What Prometheus reads from the pods, and when it calls somebody."""

from __future__ import annotations

from agentflow_serve.manifests.common import METRICS_PORTS, Document, document, labels, selector
from agentflow_serve.manifests.subject import Subject
from agentflow_serve.metrics import EXPORTED, REFUSALS, UNKNOWN, Metric


def pod_monitor(subject: Subject) -> Document:
    """Ray's metrics, Serve's and ours come from one port of every pod; autoscaler and dashboard have their own."""
    spec = {
        "selector": {"matchLabels": selector(subject)},
        "jobLabel": "app.kubernetes.io/instance",
        "podTargetLabels": ["app.kubernetes.io/instance", "ray.io/node-type"],
        "podMetricsEndpoints": [{"port": port, "interval": "15s"} for port in METRICS_PORTS],
    }
    return document(subject, "monitoring.coreos.com/v1", "PodMonitor", subject.name, spec=spec)


def prometheus_rule(subject: Subject) -> Document:
    """A worker without a replica is unready by design, so readiness of pods is no alert."""
    app = f'application="{subject.flow}"'
    predictor = f'{app}, deployment="{subject.flow}"'
    slow_ms = int(subject.deadline_s * 1000 * 0.8)
    rules = [
        _rule(
            "NoPredictor",
            f"(sum(ray_serve_deployment_replica_healthy{{{predictor}}}) or vector(0)) < 1",
            "2m",
            "critical",
            "No predictor replica is healthy: nobody is answered.",
        ),
        _rule(
            "RequestsFail",
            f'sum(rate(ray_serve_num_http_error_requests_total{{{app}, error_code=~"5.."}}[5m]))'
            f" / sum(rate(ray_serve_num_http_requests_total{{{app}}}[5m])) > 0.05",
            "5m",
            "critical",
            "More than one request in twenty fails.",
        ),
        _rule(
            "RequestsSlow",
            "histogram_quantile(0.95, sum by (le) "
            f"(rate(ray_serve_http_request_latency_ms_bucket{{{app}}}[5m]))) > {slow_ms}",
            "10m",
            "warning",
            "One request in twenty takes more than 80 % of its deadline.",
        ),
        _rule(
            "RequestsQueue",
            f"max by (deployment) (ray_serve_deployment_queued_queries{{{app}}}) > 100",
            "5m",
            "warning",
            "Calls wait in front of {{ $labels.deployment }}: its max_replicas or the cluster is too small.",
        ),
        _rule(
            "NodeDown",
            f"min by (deployment) (ray_serve_deployment_replica_healthy{{{app}}}) < 1",
            "5m",
            "warning",
            "A replica of {{ $labels.deployment }} stays unhealthy.",
        ),
        _rule(
            "BudgetRefuses",
            f"sum by (limit, window) (rate({_name(REFUSALS)}{{{app}}}[5m])) > 0",
            "10m",
            "warning",
            "{{ $labels.limit }} keeps refusing model calls: it is spent, or too small.",
        ),
        _rule(
            "CallsUnknown",
            f"max({_name(UNKNOWN)}{{{app}}}) > 10",
            "10m",
            "warning",
            "Nobody can tell how model calls ended: replicas die, or a provider breaks off; agentflow ledger attempts "
            "--status unknown lists them.",
        ),
    ]
    groups = [{"name": subject.name, "rules": [_named(subject, rule) for rule in rules]}]
    return document(subject, "monitoring.coreos.com/v1", "PrometheusRule", subject.name, spec={"groups": groups})


def _name(metric: Metric) -> str:
    return EXPORTED + metric.name


def _rule(name: str, expression: str, lasts: str, severity: str, summary: str) -> Document:
    return {
        "alert": f"Agentflow{name}",
        "expr": expression,
        "for": lasts,
        "labels": {"severity": severity},
        "annotations": {"summary": summary},
    }


def _named(subject: Subject, rule: Document) -> Document:
    return {**rule, "labels": {**rule["labels"], "instance": labels(subject)["app.kubernetes.io/instance"]}}
