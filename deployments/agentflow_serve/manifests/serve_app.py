"""The serve config inside a RayService: where Serve listens, the app, and the options of every deployment."""

from __future__ import annotations

from typing import Any

from agentflow_serve.manifests.common import SERVE_PORT
from agentflow_serve.manifests.config import FLOW_PATH, LLMHUB_PATH
from agentflow_serve.manifests.settings import ManifestSettings
from agentflow_serve.manifests.subject import Subject
from agentflow_serve.serve_config import IMPORT_PATH


def serve_document(subject: Subject, settings: ManifestSettings) -> dict[str, Any]:
    """What KubeRay sends to the cluster, as `serveConfigV2`."""
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": SERVE_PORT, "keep_alive_timeout_s": 90},
        "logging_config": {"encoding": "JSON", "log_level": "INFO"},
        "applications": [
            {
                "name": subject.flow,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": _args(subject, settings),
                "deployments": [{"name": name, **options} for name, options in subject.deployments.items()],
            }
        ],
    }


def _args(subject: Subject, settings: ManifestSettings) -> dict[str, Any]:
    args = dict(subject.args)
    if settings.config_map:
        args["flow"] = FLOW_PATH
        if "llmhub" in args:
            args["llmhub"] = LLMHUB_PATH
    return args
