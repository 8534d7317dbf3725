"""What pods read: settings of Ray as variables, the flow as a ConfigMap, and templates of the Secrets."""

from __future__ import annotations

import hashlib

from agentflow_serve.key_files import KEYS_DIR
from agentflow_serve.manifests.common import Document, document
from agentflow_serve.manifests.subject import Subject
from agentflow_serve.manifests.yaml_text import yaml_of

FLOW_FOLDER = "/etc/agentflow/flow"
FLOW_PATH = f"{FLOW_FOLDER}/flow.yaml"
LLMHUB_PATH = f"{FLOW_FOLDER}/llmhub.yaml"
KEYS_FOLDER = "/etc/agentflow/keys"
REPLACE = "REPLACE-ME"


def environment_name(subject: Subject) -> str:
    return f"{subject.name}-env"


def keys_name(subject: Subject) -> str:
    return f"{subject.name}-keys"


def auth_name(subject: Subject) -> str:
    return f"{subject.name}-ray-auth"


def redis_secret_name(subject: Subject) -> str:
    return f"{subject.name}-redis"


def environment(subject: Subject) -> Document:
    """Variables of every Ray process: a proxy that died is noticed in seconds, and nothing is reported home."""
    data = {
        "HOME": "/tmp",
        KEYS_DIR: KEYS_FOLDER,
        "PYTHONDONTWRITEBYTECODE": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "2",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    return document(subject, "v1", "ConfigMap", environment_name(subject), data=data)


def flow_files(subject: Subject) -> dict[str, str]:
    files = {"flow.yaml": yaml_of(subject.args["flow"])}
    if "llmhub" in subject.args:
        files["llmhub.yaml"] = yaml_of(subject.args["llmhub"])
    return files


def flow_name(subject: Subject) -> str:
    """A changed flow is another ConfigMap: pods that run keep theirs, and the RayService rolls over to the new one."""
    text = "\0".join(f"{name}\0{text}" for name, text in sorted(flow_files(subject).items()))
    return f"{subject.name}-flow-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def flow_config(subject: Subject) -> Document:
    return document(subject, "v1", "ConfigMap", flow_name(subject), immutable=True, data=flow_files(subject))


def secrets(subject: Subject) -> list[Document]:
    """Templates: whoever applies them fills them first, or has a secret operator make the same names."""
    made = [
        _secret(subject, auth_name(subject), ["auth_token"]),
        _secret(subject, redis_secret_name(subject), ["password"]),
    ]
    return [*made, _secret(subject, keys_name(subject), list(subject.keys))] if subject.keys else made


def _secret(subject: Subject, name: str, keys: list[str]) -> Document:
    data = dict.fromkeys(keys, REPLACE)
    return document(subject, "v1", "Secret", name, type="Opaque", stringData=data)
