"""The names of what is deployed: Kubernetes is stricter than a flow file, and KubeRay than Kubernetes."""

from __future__ import annotations

import re

from agentflow_serve.errors import ManifestsInvalid

MAX_NAME = 47
"""KubeRay refuses a longer RayService: it appends to the name, and the results must be labels."""
NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def service_name(flow: str, *, wanted: str | None) -> str:
    """The name of the RayService: the one that is wanted as it is, or a slug of the flow's. Raises ManifestsInvalid."""
    name = wanted if wanted is not None else re.sub(r"[^a-z0-9]+", "-", flow.lower()).strip("-")
    where = "the service name" if wanted is not None else f"the flow's name '{flow}'"
    if not DNS_LABEL.fullmatch(name):
        raise ManifestsInvalid(
            f"{where} gives '{name}', which is no name for Kubernetes: lower-case letters, digits and hyphens, "
            "beginning with a letter; set deployment.kserve.service_name, or --name"
        )
    if len(name) > MAX_NAME:
        raise ManifestsInvalid(
            f"{where} gives '{name}' with {len(name)} characters, and KubeRay allows {MAX_NAME}; "
            "set a shorter deployment.kserve.service_name, or --name"
        )
    return name


def namespace_name(wanted: str | None) -> str:
    """The namespace. Raises ManifestsInvalid."""
    name = "default" if wanted is None else wanted
    if not NAMESPACE.fullmatch(name):
        raise ManifestsInvalid(
            f"'{name}' is no namespace: lower-case letters, digits and hyphens, at most 63; "
            "set deployment.kserve.namespace, or --namespace"
        )
    return name
