"""Processes that make a model call, to be killed: `python -m support.engine_process`.

Importing any-llm takes over a second, so one process imports everything and forks a child for each line on its
stdin: {"base", "file", "key", "failpoints", "stream"}. For each it says the child's pid, and when the child has
ended its exit status (negative for a signal) and the answer that it got, as JSON lines.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_client import CompletionResult, ExecutionEngine, IdempotencyTracker, RequestSpec, StreamEnded
from llm_client.leases import LeaseKeeper
from llm_client.providers.openai import OpenAIProvider
from runtime_core.call_log.log import CallLog
from runtime_core.clock import SystemClock
from runtime_core.stores.failpoints import VARIABLE, arm_from_environment
from runtime_core.stores.sqlite import SqliteDatabase

LEASE_S = 0.25
QUESTION = RequestSpec.of("What would a killed process have said?", max_tokens=64)


@dataclass
class Child:
    pid: int
    process: asyncio.subprocess.Process

    async def ended(self) -> tuple[int, CompletionResult | None]:
        said = await _line(self.process)
        answer = said["answer"]
        return said["status"], None if answer is None else CompletionResult.model_validate(answer)


class Zygote:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def fork(self, *, base: str, file: Path, key: str, failpoints: str = "", stream: bool = False) -> Child:
        order = {"base": base, "file": str(file), "key": key, "failpoints": failpoints, "stream": stream}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return Child((await _line(self._process))["pid"], self._process)


@asynccontextmanager
async def zygote() -> AsyncIterator[Zygote]:
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "support.engine_process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        yield Zygote(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def _line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    return json.loads(await process.stdout.readline())


def main() -> None:
    import any_llm.providers.openai  # noqa: F401 - the children find it there

    asyncio.run(_warm_up())
    for line in sys.stdin:
        order = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            os.write(writing, asyncio.run(_call(order)).encode())
            os._exit(0)
        os.close(writing)
        _say({"pid": pid})
        with os.fdopen(reading) as pipe:
            answer = pipe.read()
        _, status = os.waitpid(pid, 0)
        _say({"status": os.waitstatus_to_exitcode(status), "answer": json.loads(answer) if answer else None})


async def _warm_up() -> None:
    """What the first client of a process costs, paid once."""
    async with OpenAIProvider("m", api_base="http://127.0.0.1:9/v1", env_key=None) as provider:
        await provider.warm_up()


async def _call(order: dict[str, Any]) -> str:
    async with SqliteDatabase(order["file"]) as database:
        log = CallLog(database, clock=SystemClock())
        if order["failpoints"]:
            arm_from_environment({VARIABLE: order["failpoints"]})
            # Renewals are commits too, and would be counted.
            LeaseKeeper.hold = LeaseKeeper.hold_claim = lambda *_: None  # pyright: ignore[reportAttributeAccessIssue]
        tracker = IdempotencyTracker(request_timeout=LEASE_S)
        provider = OpenAIProvider("m", api_base=order["base"], env_key=None)
        async with provider, ExecutionEngine(provider, log=log, idempotency_tracker=tracker, lease_s=LEASE_S) as engine:
            if not order["stream"]:
                return (await engine.complete(QUESTION, idempotency_key=order["key"])).model_dump_json()
            *_, last = [event async for event in engine.stream(QUESTION, idempotency_key=order["key"])]
            assert isinstance(last, StreamEnded)
            return last.result.model_dump_json()


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
