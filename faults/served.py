"""A flow of one prompt as a served app, keys for its tenants, and clients that ask it over raw HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import psutil

from agentflow_serve.auth.keys import KEY_BYTES, ApiKey, digest_of, key_text
from agentflow_serve.auth.store import ApiKeys
from faults.rig import ROLE
from runtime_core.stores import open_database

HOST = "127.0.0.1"
MAX_TOKENS = 40
RETRIED = frozenset({0, 408, 429, 502, 503, 504})
PAUSE_S = 0.2
PATIENCE_S = 200.0
"""Of everybody: on a slow machine a thousand requests at once take long, and a call that was given up is paid for."""
MOST_ASKED = 200
KINDS = ("node replica", "predictor", "shared actor")


def flow_of(name: str, *, predictors: int, replicas: int = 1) -> dict[str, Any]:
    """One prompt, whose node may run again when its process dies."""
    node = {
        "inputs": [{"name": "x", "type": "string"}],
        "outputs": [{"name": "text", "type": "string"}],
        "prompt": {"template": "{{ x }}", "role": ROLE},
        "runtime": {
            "idempotent": True,
            "retries": 2,
            "retry_backoff_ms": 20,
            "timeout_ms": int(PATIENCE_S * 1000),
            "autoscaling": {"min_replicas": replicas, "max_replicas": replicas},
        },
    }
    return {
        "version": "1.0",
        "metadata": {"name": name},
        "context": {"requires": ["x"]},
        "nodes": {node_of(name): node},
        "edges": [
            {"from": "_input.x", "to": f"{node_of(name)}.x"},
            {"from": f"{node_of(name)}.text", "to": "_output.text"},
        ],
        "deployment": {"kserve": {"min_replicas": predictors, "max_replicas": predictors}},
    }


def hub_document(base: str) -> dict[str, Any]:
    """The llmhub.yaml of these apps."""
    role = {"provider": "sim", "model": "m", "mode": "chat", "params": {"max_tokens": MAX_TOKENS}}
    role["price"] = {"input": "2.5", "output": "10"}
    return {"project": "faults", "env": "test", "providers": {"sim": {"api_base": base}}, "roles": {ROLE: role}}


def new_key(url: str, scope_id: str) -> str:
    """An API key of the scope in the store at `url`."""
    key, now = key_text(os.urandom(KEY_BYTES)), time.time()

    async def work() -> None:
        async with open_database(url) as database:
            keys = ApiKeys(database)
            await keys.prepare()
            known = ApiKey(key_id=f"of-{scope_id}", scope_id=scope_id, principal_id="ann", created_at=now)
            await keys.add(known, digest=digest_of(key))

    asyncio.run(work())
    return key


@dataclass(frozen=True, slots=True)
class Door:
    """Where an app is asked for V1 predictions, and the key that is shown there, if any."""

    port: int
    app: str
    model: str
    key: str | None = None

    async def ask(self, text: str) -> tuple[int, dict[str, Any]]:
        """The status and the document; 0 where the connection broke before the answer was there."""
        body = json.dumps({"instances": [{"x": text}]}).encode()
        head = f"POST {self._path} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        head += f"content-length: {len(body)}\r\n" + (f"x-api-key: {self.key}\r\n" if self.key else "")
        try:
            reader, writer = await asyncio.open_connection(HOST, self.port)
            try:
                writer.write(head.encode() + b"\r\n" + body)
                async with asyncio.timeout(PATIENCE_S):
                    answer = await reader.read()
            finally:
                writer.close()
        except (OSError, TimeoutError):
            return 0, {}
        return _parsed(answer)

    @property
    def _path(self) -> str:
        return f"/{self.app}/v1/models/{self.model}:predict"

    async def ask_until_answered(self, text: str, choose: Random) -> tuple[int, int]:
        """As a client does that tries again; the last status, and how often it asked."""
        asked = 0
        while True:
            asked += 1
            status, _ = await self.ask(text)
            if status not in RETRIED or asked >= MOST_ASKED:
                return status, asked
            await asyncio.sleep(PAUSE_S * (0.5 + choose.random()))


def _parsed(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        return 0, {}
    if b"transfer-encoding: chunked" in head.lower():
        return int(words[1]), {}
    try:
        return int(words[1]), json.loads(body)
    except ValueError:
        return 0, {}


def victims(app: str, model: str) -> Iterator[tuple[str, int]]:
    """The processes of an app by what they are; all are descendants of this process.

    Ray names a process after its deployment, or after the last part of that name and the method it began with.
    """
    node, predictor, actor = KINDS
    replica, asking = f"ray::ServeReplica:{app}:{model}", node_of(model)
    titles = {
        f"{replica}.{asking}": node,
        f"ray::{asking}.": node,
        replica: predictor,
        "ray::SessionLedger": actor,
    }
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        kind = next((kind for begin, kind in titles.items() if title.startswith(begin)), None)
        if kind is not None:
            yield kind, process.pid


def node_of(model: str) -> str:
    """The id of the one node, which is no other app's."""
    return f"ask_{model}"
