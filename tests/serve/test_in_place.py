"""A flow that is deployed again while a request is in flight: that request is answered by the version that took it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .conftest import Deploy

pytestmark = pytest.mark.serve


def flow(version: str, folder: Path) -> dict[str, Any]:
    """Answers with its version; a request that says so waits until the file `go` is there."""
    code = (
        "import asyncio, pathlib\n"
        f"FOLDER = pathlib.Path({str(folder)!r})\n"
        "async def transform(inputs, context, state):\n"
        "    if inputs['x'] == 'wait':\n"
        "        (FOLDER / 'started').touch()\n"
        "        while not (FOLDER / 'go').exists():\n"
        "            await asyncio.sleep(0.05)\n"
        f"    return {{'out': {version!r}}}\n"
    )
    node = {
        "inputs": [{"name": "x", "type": "string"}],
        "outputs": [{"name": "out", "type": "string"}],
        "transform": {"mode": "code", "spec": code},
        "runtime": {"timeout_ms": 50_000},
    }
    return {
        "version": "1.0",
        "metadata": {"name": "in-place"},
        "context": {"requires": ["x"]},
        "nodes": {"a": node},
        "edges": [{"from": "_input.x", "to": "a.x"}, {"from": "a.out", "to": "_output"}],
    }


def test_a_request_in_flight_is_finished_by_the_version_that_took_it(deploy: Deploy, tmp_path: Path):
    served = deploy("in-place", flow=flow("one", tmp_path), placement="inline")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(served.predict, {"x": "wait"})
        until(lambda: (tmp_path / "started").exists())
        again = threading.Thread(
            target=deploy, args=("in-place",), kwargs={"flow": flow("two", tmp_path), "placement": "inline"}
        )
        again.start()
        try:
            until(lambda: served.predict({"x": "now"}).json() == {"predictions": ["two"]})
            assert not waiting.done()
        finally:
            (tmp_path / "go").touch()
            again.join()
        assert waiting.result().json() == {"predictions": ["one"]}


def until(condition: Any, within_s: float = 60) -> None:
    give_up = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.1)
