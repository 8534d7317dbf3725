"""Serve applications taken apart."""

from __future__ import annotations

from typing import Any

from ray.serve import Application


def bound(target: Application) -> tuple[Any, tuple[Any, ...]]:
    """A deployment as it is bound, and what its constructor gets."""
    deployment: Any = target._bound_deployment
    return deployment, deployment.init_args
