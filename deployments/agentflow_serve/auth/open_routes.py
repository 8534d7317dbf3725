"""What everybody may ask: whether the server lives, and whether it is ready.

Probes and load balancers have no key. What a flow takes and gives (metadata) is for those who may call it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_OPEN = re.compile(r"/|/v1/models/[^/:]+|/v2/health/(?:live|ready)|/v2/models/[^/]+(?:/versions/[^/]+)?/ready")


def open_to_all(scope: Mapping[str, Any]) -> bool:
    """Whether an ASGI request is for liveness or readiness. In V1 a model's own path is its readiness."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return scope["method"] == "GET" and _OPEN.fullmatch(path) is not None
