"""What the operator of a cluster decides, and a flow does not say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from agentflow_serve.auth.exposure import Auth
from agentflow_serve.errors import ManifestsInvalid
from flow_runtime.code_mode import CodeMode
from flow_runtime.operations.settings import HostEntry

Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Quantity = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*(Mi|Gi)$")]
HostPort = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+:[0-9]{1,5}$")]
Image = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][\w.:/-]*(@sha256:[0-9a-f]{64})?$")]
GatewayMode = Literal["standard", "keda", "knative"]


class ManifestSettings(BaseModel):
    """The settings of `agentflow manifests`.

    `name` and `namespace` overrule `deployment.kserve` of the flow. `image` is what `agentflow package` builds; give it
    with its digest for production. `auth` says who may call; pods listen on a network, so it is `keys`, or
    `open_to_network` says that it is not. `redis` is where Ray's own metadata survive the head; without one the
    overlays bring a Redis for development only. `config_map`: the flow and llmhub.yaml stand in a ConfigMap instead of
    the serve config. `inference_service` adds a KServe gateway that scales in this mode. `egress` lists further hosts,
    or `host:port`, that pods may call. What `worker_cpus` and `worker_memory` do not say comes from the flow's
    `deployment.kserve.resources`. The namespaces are those of the operator, of Prometheus, and of the gateway
    behind which clients are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    namespace: str | None = None
    image: Image | None = None
    store: str | None = None
    redis: HostPort | None = None
    placement: Literal["per_node", "inline"] | None = None
    auth: Auth | None = None
    open_to_network: bool = False
    code: CodeMode = "inline"
    allow_hosts: tuple[HostEntry, ...] = ()
    feature_store: str | None = None
    embedder: str | None = None
    budgets: Path | None = None
    policy: Path | None = None
    egress: tuple[HostEntry, ...] = ()
    config_map: bool = False
    inference_service: GatewayMode | None = None
    hostname: str | None = None
    worker_cpus: Annotated[int, Field(ge=1, le=256)] | None = None
    worker_memory: Quantity | None = None
    max_workers: Annotated[int, Field(ge=1)] | None = None
    operator_namespace: Label = "kuberay-operator"
    prometheus_namespace: Label = "monitoring"
    gateway_namespace: Label = "gateway-system"
    ray_version: str = "2.60.0"


def parse_settings(given: Mapping[str, Any]) -> ManifestSettings:
    """The settings that are given; those that are None count as left out. Raises ManifestsInvalid, which names each."""
    try:
        return ManifestSettings.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as exc:
        problems = "; ".join(
            f"--{'.'.join(map(str, each['loc'])).replace('_', '-')}: {each['msg']}" for each in exc.errors()
        )
        raise ManifestsInvalid(f"the settings do not fit: {problems}") from exc
