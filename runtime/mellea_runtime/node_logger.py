"""A logger that says of which run and node a line is."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any


class NodeLogger(logging.LoggerAdapter[logging.Logger]):
    """Puts `[run/node]` before each message, and `run_id` and `node_id` on each record for JSON logs."""

    def __init__(self, run_id: str, node_id: str | None = None, *, name: str = "mellea_runtime.node") -> None:
        super().__init__(logging.getLogger(name), {"run_id": run_id, "node_id": node_id})
        self.run_id = run_id
        self.node_id = node_id

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        own: Mapping[str, Any] = self.extra or {}
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **own}
        place = self.run_id if self.node_id is None else f"{self.run_id}/{self.node_id}"
        return f"[{place}] {msg}", kwargs

    def for_node(self, node_id: str) -> NodeLogger:
        """The same run's logger for a node."""
        return NodeLogger(self.run_id, node_id, name=self.logger.name)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Says at level INFO how long the block took, or at ERROR that it failed, with the error's type alone."""
        began = time.perf_counter()
        try:
            yield
        except Exception as exc:
            self.error("%s failed after %.0f ms: %s", what, _ms_since(began), type(exc).__name__)
            raise
        self.info("%s took %.0f ms", what, _ms_since(began))


def _ms_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
