"""What the nodes of the benchmarks do, as modules that a flow's `module:` names and that baselines call too."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

WAIT_S = 0.001


async def wait(inputs: Mapping[str, Any], context: Any, state: Any) -> dict[str, Any]:
    """A node that waits for one fast answer."""
    await asyncio.sleep(WAIT_S)
    return {"out": inputs["x"]}


async def wait_as_told(inputs: Mapping[str, Any], context: Any, state: Any) -> dict[str, Any]:
    """A node that waits for the number of seconds behind its name in the request."""
    await asyncio.sleep(inputs["seconds"])
    return {"out": {}}
