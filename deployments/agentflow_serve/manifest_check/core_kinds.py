"""Kubernetes' own kinds against its published schemas, with the package kubernetes-validate."""

from __future__ import annotations

from importlib.util import find_spec

from agentflow_serve.manifest_check.report import Found, Manifest

KUBERNETES = "1.32"
GROUPS = frozenset({"v1", "apps/v1", "policy/v1", "networking.k8s.io/v1", "rbac.authorization.k8s.io/v1", "batch/v1"})


def is_core(manifest: Manifest) -> bool:
    return manifest.api in GROUPS


def can_check() -> bool:
    return find_spec("kubernetes_validate") is not None


def check_core(manifest: Manifest) -> Found:
    import kubernetes_validate

    try:
        kubernetes_validate.validate(manifest.data, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as exc:
        path = ".".join(map(str, exc.path))
        shown = manifest.kind != "Secret"
        yield path, str(exc.message)[:300] if shown else "this does not fit a Secret (what it holds is not shown)"
    except kubernetes_validate.SchemaNotFoundError:
        yield "kind", f"Kubernetes {KUBERNETES} knows no {manifest.kind} in {manifest.api}"
