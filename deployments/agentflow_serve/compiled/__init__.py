"""Where compiled flows run: under kserve's ModelServer, and on Ray Serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentflow.lazy import lazy_exports

if TYPE_CHECKING:
    from agentflow_serve.compiled.args import AgentArgs
    from agentflow_serve.compiled.kserve_agent import KServeAgent, serve_model
    from agentflow_serve.compiled.ray_agent import application

__all__ = ["AgentArgs", "KServeAgent", "application", "serve_model"]

__getattr__ = lazy_exports(
    __name__,
    {"args": ("AgentArgs",), "kserve_agent": ("KServeAgent", "serve_model"), "ray_agent": ("application",)},
)
