"""Where an app answers about what its flow asks people. The edge knows the place, and not the endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PATH = "/v1/actions"


def is_about_actions(scope: Mapping[str, Any]) -> bool:
    """Whether an ASGI request is: it must not wait behind the runs that wait for an answer."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path == PATH or path.startswith(PATH + "/")
