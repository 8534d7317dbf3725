"""The simulated model as a child process: it starts, it stops, and it never outlives its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from llmhub_runtime.sim import (
    SimControl,
    SimControlError,
    SimProcess,
    SimScriptError,
    SimServer,
    SimStartError,
    parse_script,
    read_log_file,
)
from support.processes import child_processes, is_running

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
HANG = parse_script({"rules": [{"reply": {"fault": {"kind": "hang"}}}]})
COMMAND = [sys.executable, "-m", "llmhub_runtime.sim", "--port", "0"]


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    before = child_processes()
    yield
    assert child_processes() <= before


def _wait(condition: Callable[[], object], *, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def _hanging_call(url: str) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/chat/completions", json=BODY, timeout=0.3, trust_env=False)


def test_the_child_answers_and_is_controlled(tmp_path: Path) -> None:
    script = parse_script({"rules": [{"match": {"times": 1}, "reply": {"answer": "scripted"}}]})
    with SimProcess(script=script, log_path=tmp_path / "log") as sim, sim.control() as control:
        assert control.health()["status"] == "ok"
        answer = httpx.post(f"{sim.openai_base}/chat/completions", json=BODY, trust_env=False).json()
        assert answer["choices"][0]["message"]["content"] == "scripted"
        assert control.applied() == (1,)
        [entry] = control.log()
        assert (entry.path, entry.outcome, entry.rule) == ("/v1/chat/completions", "finished", 0)
        assert control.log(since=entry.seq) == []
        control.reset()
        assert (control.applied(), control.log()) == ((), [])
        with pytest.raises(SimScriptError, match="rulez"):
            control.set_script({"rulez": []})
        with pytest.raises(SimControlError, match="since") as refused:
            control.log(since=-1)
        assert refused.value.status == 400
        url = sim.base_url
    with pytest.raises(SimControlError, match="Cannot reach"), SimControl(url) as control:
        control.health()
    assert read_log_file(tmp_path / "log") == [entry]


def test_start_and_stop_may_be_repeated() -> None:
    sim = SimProcess()
    sim.stop()
    sim.start()
    pid = sim.pid
    assert sim.start().pid == pid
    sim.stop()
    sim.stop()
    assert sim.pid is None
    with pytest.raises(SimStartError, match="not running"):
        _ = sim.base_url


async def test_the_async_form_does_not_block_the_loop() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    async with SimProcess() as sim, httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"{sim.base_url}/sim/health")).status_code == 200
    ticking.cancel()
    assert ticks > 3


async def test_a_cancelled_start_leaves_no_child() -> None:
    sim = SimProcess()
    starting = asyncio.create_task(sim.astart())
    while sim.pid is None:
        await asyncio.sleep(0.001)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert sim.pid is None


def test_stopping_takes_seconds_even_with_a_hanging_answer() -> None:
    sim = SimProcess(script=HANG).start()
    _hanging_call(sim.base_url)
    started = time.monotonic()
    sim.stop()
    assert time.monotonic() - started < 10


def test_a_killed_server_leaves_the_request_in_its_file(tmp_path: Path) -> None:
    with SimProcess(script=HANG, log_path=tmp_path / "log") as sim:
        _hanging_call(sim.base_url)
        assert sim.pid is not None
        os.kill(sim.pid, signal.SIGKILL)
    [entry] = read_log_file(tmp_path / "log")
    assert entry.request == BODY
    assert entry.status is None


PARENT = """
import os, sys, time
from llmhub_runtime.sim import SimProcess
sim = SimProcess().start()
print(sim.pid, sim.base_url, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_child_ends_when_its_parent_is_killed(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid, url = parent.stdout.readline().decode().split()
        assert httpx.get(f"{url}/sim/health", trust_env=False).status_code == 200
        parent.send_signal(number)
    _wait(lambda: not is_running(int(pid)))
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/sim/health", trust_env=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_without_a_traceback(number: signal.Signals) -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        line = child.stdout.readline().decode()
        assert line.startswith("agentflow-sim listening on http://127.0.0.1:")
        _hanging_call_is_possible(line.split()[-1])
        child.send_signal(number)
        out, err = child.communicate(timeout=30)
    assert (child.returncode, out, err) == (0, b"", b"")


def _hanging_call_is_possible(url: str) -> None:
    httpx.put(f"{url}/sim/script", content=HANG.model_dump_json(), trust_env=False).raise_for_status()
    _hanging_call(url)


async def test_a_port_in_use_is_an_error_in_a_sentence() -> None:
    async with SimServer() as taken:
        with pytest.raises(SimStartError, match=r"Cannot listen on 127\.0\.0\.1:\d+: .*Choose another") as failed:
            await SimProcess(port=taken.port).astart()
        assert failed.value.returncode == 1
        with pytest.raises(SimStartError, match="Cannot listen"):
            await SimServer(port=taken.port).start()


def test_a_bad_script_file_is_an_error_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SimStartError, match="Cannot read the script"):
        SimProcess(script=tmp_path / "none.yaml").start()


def test_a_child_that_says_nothing_is_given_up() -> None:
    with pytest.raises(SimStartError, match=r"did not listen within 0\.01 s"):
        SimProcess(start_timeout_s=0.01).start()


def test_importing_the_package_loads_no_server() -> None:
    code = "import sys, llmhub_runtime.sim; print({'uvicorn', 'httpx', 'jsonschema', 'ray'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code]).strip() == b"set()"
