"""Flows on Ray Serve. `agentflow_serve:app` is the import path for serve configs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentflow_serve.args import AppArgs as AppArgs
    from agentflow_serve.builder import app as app

__all__ = ["AppArgs", "app"]


def __getattr__(name: str) -> Any:
    # Ray takes two seconds to import: the commands that do without it must not pay for it.
    if name == "app":
        from agentflow_serve.builder import app

        return app
    if name == "AppArgs":
        from agentflow_serve.args import AppArgs

        return AppArgs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
