"""Sync transforms in sandbox processes: stopped at their time, with all that they started."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from agentflow.ir import Code
from flow_runtime import sandbox as sandbox_module
from flow_runtime.errors import CodeFailed, CodeTimeout
from flow_runtime.sandbox import Sandbox
from support.processes import child_processes, is_running
from support.waiting import until


@pytest.fixture(autouse=True)
def nothing_left_over() -> Iterator[None]:
    before = child_processes()
    sockets = open_sockets()
    yield
    assert child_processes() == before, "processes are left over, or zombies"
    assert open_sockets() == sockets, "sockets are left over"


def open_sockets() -> set[str]:
    links = set[str]()
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            links.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    return {link for link in links if link.startswith("socket:")}


def sandbox(body: str, *, before: str = "", size: int | None = None) -> Sandbox:
    """A sandbox whose transform has this body."""
    source = f"{before}\ndef transform(inputs, context, state):\n{textwrap.indent(textwrap.dedent(body), '    ')}"
    return Sandbox(code=Code(mode="code", spec=source), node_id="rate", size=size)


async def call(box: Sandbox, inputs: dict[str, Any] | None = None, *, timeout_s: float = 20) -> Any:
    return await box.call(inputs or {}, {"user_id": "u-1"}, timeout_s=timeout_s)


async def test_a_transform_gets_its_inputs_and_the_context_and_returns_json():
    async with sandbox("return {'sum': inputs['a'] + inputs['b'], 'who': context.user_id, 'no': None}") as box:
        assert await call(box, {"a": 1, "b": 2.5}) == {"sum": 3.5, "who": "u-1", "no": None}


async def test_a_call_finds_no_global_of_the_call_before_but_the_same_process():
    body = """
        seen.append(inputs["n"])
        return {"seen": seen, "pid": os.getpid()}
    """
    async with sandbox(body, before="import os\nseen = []", size=1) as box:
        first, second = await call(box, {"n": 1}), await call(box, {"n": 2})
    assert (first["seen"], second["seen"]) == ([1], [2])
    assert first["pid"] == second["pid"] != os.getpid()


async def test_calls_run_in_parallel_up_to_the_size(tmp_path: Path):
    body = """
        open(inputs["mine"], "w").close()
        while not os.path.exists(inputs["other"]):
            time.sleep(0.001)
        return {"pid": os.getpid()}
    """
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    async with sandbox(body, before="import os, time", size=2) as box:
        async with asyncio.TaskGroup() as group:
            left = group.create_task(call(box, {"mine": one, "other": two}))
            right = group.create_task(call(box, {"mine": two, "other": one}))
        assert left.result()["pid"] != right.result()["pid"]


async def test_more_calls_than_the_size_wait_for_a_worker():
    async with sandbox("return os.getpid()", before="import os", size=2) as box:
        pids = await asyncio.gather(*(call(box) for _ in range(12)))
    assert len(set(pids)) <= 2


async def test_a_transform_that_awaits_nothing_itself_may_return_an_awaitable():
    before = "import asyncio\nasync def later(x):\n    await asyncio.sleep(0)\n    return {'x': x}"
    async with sandbox("return later(inputs['x'])", before=before) as box:
        assert await call(box, {"x": 4}) == {"x": 4}


async def test_an_error_names_its_type_and_the_line_within_the_transform():
    async with sandbox("total = 1\nreturn inputs['absent']") as box:
        with pytest.raises(CodeFailed, match="KeyError: absent at line 4") as caught:
            await call(box)
        assert (caught.value.error, caught.value.line) == ("KeyError", 4)
        with pytest.raises(CodeFailed):
            await call(box)


async def test_code_that_does_not_load_fails_at_the_start():
    with pytest.raises(CodeFailed, match=r"ModuleNotFoundError.*at line 1") as caught:
        async with sandbox("return {}", before="import not_installed_anywhere"):
            pass
    assert caught.value.line == 1


async def test_sys_exit_is_a_failure_of_the_transform_and_not_of_its_worker():
    body = "return {'pid': os.getpid()} if inputs['ok'] else sys.exit(3)"
    async with sandbox(body, before="import os, sys", size=1) as box:
        before = await call(box, {"ok": True})
        with pytest.raises(CodeFailed, match="SystemExit: 3"):
            await call(box, {"ok": False})
        assert await call(box, {"ok": True}) == before


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("{1, 2}", "type set"),
        ("{'at': datetime.datetime.now()}", "type datetime.datetime"),
        ("b'raw'", "type bytes"),
        ("float('nan')", "infinite or NaN"),
        ("[-float('inf')]", "infinite or NaN"),
        ("{(1, 2): 3}", "keys must be"),
        ("ring()", "holds itself"),
        ("deep()", "nested too deeply"),
        ("'x' * (17 * 1024 * 1024)", "at most 16777216"),
    ],
)
async def test_a_result_that_is_not_json_is_a_failure_that_names_what_it_holds(expression: str, message: str):
    before = textwrap.dedent("""
        import datetime
        def ring():
            value = []
            value.append(value)
            return value
        def deep():
            value = []
            for _ in range(100_000):
                value = [value]
            return value
    """)
    async with sandbox(f"return {expression}", before=before) as box:
        with pytest.raises(CodeFailed, match=f"the result .*{message}"):
            await call(box)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, "x" * (17 * 1024 * 1024)])
async def test_inputs_that_are_not_json_never_reach_the_sandbox(value: Any):
    async with sandbox("return {}") as box:
        with pytest.raises(CodeFailed, match="the inputs cannot go to the sandbox"):
            await call(box, {"value": value})
        assert await call(box) == {}


async def test_a_message_of_megabytes_crosses_both_ways():
    async with sandbox("return inputs") as box:
        inputs = {"text": "ü" * 1_000_000}
        assert await call(box, inputs) == inputs


async def test_printing_and_reading_stdin_do_not_disturb_the_answer(capfd: pytest.CaptureFixture[str]):
    body = """
        print("printed")
        os.write(1, b"written\\n")
        sys.stderr.write("complained\\n")
        return {"stdin": sys.stdin.read()}
    """
    async with sandbox(body, before="import os, sys") as box:
        assert await call(box) == {"stdin": ""}
    out, err = capfd.readouterr()
    assert out == ""
    assert all(word in err for word in ("printed", "written", "complained"))


async def test_a_sync_transform_is_told_why_it_has_no_state():
    async with sandbox("return state.get('turns')") as box:
        with pytest.raises(CodeFailed, match="async def transform"):
            await call(box)


LATER = """
import os, subprocess, sys, threading, time
def later(go, late):
    while not os.path.exists(go):
        time.sleep(0.005)
    open(late, "w").close()
"""


async def test_a_transform_is_killed_at_its_timeout_and_does_nothing_later(tmp_path: Path):
    go, late = tmp_path / "go", tmp_path / "late"
    async with sandbox("later(inputs['go'], inputs['late'])", before=LATER) as box:
        with pytest.raises(CodeTimeout, match=r"stopped after 0\.1 s") as caught:
            await call(box, {"go": str(go), "late": str(late)}, timeout_s=0.1)
        assert caught.value.timeout_s == 0.1
        await assert_nobody_answers(go, late)


async def assert_nobody_answers(go: Path, late: Path) -> None:
    go.touch()
    await asyncio.sleep(0.3)  # the file must not appear: there is no condition to wait for
    assert not late.exists()


OFFSPRING = {
    "a thread": "threading.Thread(target=later, args=(go, late)).start()",
    "a fork": "os.fork() or (later(go, late), os._exit(0))",
    "a child process": "subprocess.Popen([sys.executable, '-c', program, go, late])",
    "a child in its own session": (
        "subprocess.Popen([sys.executable, '-c', program, go, late], start_new_session=True)"
    ),
    "an orphan in its own session": textwrap.dedent("""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                later(go, late)
            os._exit(0)
        os.wait()
    """),
}


@pytest.mark.parametrize("kind", OFFSPRING)
async def test_nothing_that_a_transform_starts_outlives_its_call(kind: str, tmp_path: Path):
    endings = ["it times out", "it is cancelled", "it returns", "it crashes"]
    if "own session" in kind:
        endings.remove("it crashes")  # nobody can tell any more whose offspring it was
    async with asyncio.TaskGroup() as group:
        for ending in endings:
            group.create_task(let_it_end(kind, ending, tmp_path))


async def let_it_end(kind: str, ending: str, folder: Path) -> None:
    go, late, started = (folder / f"{ending} {what}" for what in ("go", "late", "started"))
    last = {"it returns": "return {}", "it crashes": "os._exit(7)"}.get(ending, "time.sleep(60)")
    program = f"{LATER}\nlater(*sys.argv[1:])"
    begin = f"go, late, program = inputs['go'], inputs['late'], {program!r}\n{OFFSPRING[kind]}\n"
    body = f"{begin}open(inputs['started'], 'w').close()\n{last}"
    async with sandbox(body, before=LATER) as box:
        inputs = {"go": str(go), "late": str(late), "started": str(started)}
        working = asyncio.create_task(call(box, inputs, timeout_s=1.0 if ending == "it times out" else 20))
        await until(lambda: started.exists() or working.done(), what="the transform's start")
        if ending == "it is cancelled":
            working.cancel()
        await asyncio.wait({working})
        assert started.exists(), working.exception()
        await assert_nobody_answers(go, late)


async def test_what_a_transform_starts_does_run_while_it_runs(tmp_path: Path):
    """Without this, the test above would pass if nothing were ever started."""
    for kind, statement in OFFSPRING.items():
        go, late = tmp_path / f"{kind} go", tmp_path / f"{kind} late"
        program = f"{LATER}\nlater(*sys.argv[1:])"
        begin = f"go, late, program = inputs['go'], inputs['late'], {program!r}\n{statement}\n"
        async with sandbox(f"{begin}later(late, late + ' seen')", before=LATER) as box:
            working = asyncio.create_task(call(box, {"go": str(go), "late": str(late)}))
            go.touch()
            await asyncio.wait_for(working, 20)
            assert late.exists()


@pytest.mark.parametrize(
    ("crash", "message"),
    [
        ("os._exit(3)", "exited with status 3"),
        ("os._exit(0)", "exited with status 0"),
        ("os.kill(os.getpid(), signal.SIGTERM)", r"died with signal 15 \(SIGTERM\)"),
        ("ctypes.string_at(0)", r"died with signal 11 \(SIGSEGV\)"),
    ],
)
async def test_a_crash_is_a_failure_of_its_call_and_the_next_call_has_a_new_worker(crash: str, message: str):
    body = f"return {{'pid': os.getpid()}} if inputs['ok'] else {crash}"
    async with sandbox(body, before="import ctypes, os, signal", size=1) as box:
        first = await call(box, {"ok": True})
        with pytest.raises(CodeFailed, match=f"the sandbox process {message}"):
            await call(box, {"ok": False})
        assert await call(box, {"ok": True}) != first


async def test_a_worker_that_died_while_idle_is_replaced_unseen():
    async with sandbox("return os.getpid()", before="import os", size=1) as box:
        pid = await call(box)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not is_running(pid))
        assert await call(box) != pid


async def test_writing_into_the_channel_costs_the_call_and_no_other():
    body = """
        if inputs["ok"]:
            return {}
        for fd in range(3, 1024):
            try:
                os.write(fd, (5).to_bytes(4, "big") + b"[1,2]")
            except OSError:
                pass
    """
    async with sandbox(body, before="import os", size=1) as box:
        with pytest.raises(CodeFailed, match="own channel"):
            await call(box, {"ok": False})
        assert await call(box, {"ok": True}) == {}


async def test_code_that_loads_longer_than_the_timeout_is_loaded_for_a_later_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.5)\n")
    monkeypatch.syspath_prepend(tmp_path)
    code = Code(mode="code", spec="import slow_to_import\ndef transform(i, c, s): return {'n': i['n']}")
    box = Sandbox(code=code, node_id="slow")
    timeouts = 0
    try:
        while True:
            try:
                answer = await call(box, {"n": timeouts}, timeout_s=0.2)
                break
            except CodeTimeout:
                timeouts += 1
                assert len(child_processes()) == 1, "every timeout started another worker"
        assert 0 < timeouts < 20
        assert answer == {"n": timeouts}
    finally:
        await box.aclose()


async def test_a_call_that_never_got_a_worker_says_so(tmp_path: Path):
    started = tmp_path / "started"
    body = "open(inputs['started'], 'w').close()\ntime.sleep(60)"
    async with sandbox(body, before="import time", size=1) as box:
        working = asyncio.create_task(call(box, {"started": str(started)}))
        await until(started.exists)
        with pytest.raises(CodeTimeout, match="no sandbox process was free and ready"):
            await call(box, timeout_s=0.05)
        working.cancel()
        await asyncio.wait({working})


async def test_loading_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sandbox_module, "LOAD_TIMEOUT_S", 0.2)
    with pytest.raises(CodeFailed, match=r"longer than 0.2 s to load"):
        async with sandbox("return {}", before="import time\ntime.sleep(60)"):
            pass


async def test_closing_ends_calls_at_work_and_refuses_new_ones(tmp_path: Path):
    started = tmp_path / "started"
    body = "open(inputs['started'], 'w').close()\ntime.sleep(60)"
    box = sandbox(body, before="import time", size=1)
    working = asyncio.create_task(call(box, {"started": str(started)}))
    waiting = asyncio.create_task(call(box, {"started": str(started)}))
    await until(started.exists)
    await box.aclose()
    for task in (working, waiting):
        with pytest.raises(CodeFailed):
            await task
    with pytest.raises(CodeFailed, match="closed"):
        await call(box)


async def test_a_worker_imports_nothing_heavy():
    async with sandbox("return sorted(sys.modules)", before="import sys") as box:
        loaded = set(await call(box))
    assert not loaded & {
        "pydantic",
        "ray",
        "asyncio",
        "yaml",
        "agentflow.ir",
        "socket",
        "inspect",
    }


async def test_a_worker_is_ready_within_milliseconds():
    times: list[float] = []
    for _ in range(5):
        started = time.perf_counter()
        async with sandbox("return {}"):
            times.append(time.perf_counter() - started)
    assert min(times) < 0.25, "a start takes about 40 ms where the machine is idle"


async def test_a_worker_has_plain_signals_and_no_descriptors_of_the_server():
    body = """
        return {
            "fds": [int(fd) for fd in os.listdir("/proc/self/fd")],
            "handlers": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
            "blocked": [int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
            "path": sys.path,
            "leader": os.getsid(0) == os.getpid(),
        }
    """
    read, write = os.pipe()
    os.set_inheritable(write, True)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        async with sandbox(body, before="import os, signal, sys") as box:
            seen = await call(box)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        signal.signal(signal.SIGINT, handler)
        os.close(read)
        os.close(write)
    assert len(seen["fds"]) == 5, "stdin, stdout, stderr, the channel, and the listing itself"
    assert (seen["handlers"], seen["blocked"], seen["leader"]) == ([signal.SIG_DFL] * 3, [], True)
    assert seen["path"] == sys.path


ORPHANING = """
import asyncio, sys
from agentflow.ir import Code
from flow_runtime.sandbox import Sandbox
source = '''
import os, time
def transform(inputs, context, state):
    with open(inputs["file"], "w") as file:
        file.write(str(os.getpid()))
    os.rename(inputs["file"], inputs["file"] + ".done")
    time.sleep(60 if inputs["busy"] else 0)
    return {}
'''
async def main():
    box = Sandbox(code=Code(mode="code", spec=source), node_id="orphan")
    await box.call({"file": sys.argv[1], "busy": sys.argv[2] == "busy"}, {}, timeout_s=50)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.parametrize("state", ["busy", "idle"])
async def test_a_worker_dies_with_its_server(state: str, tmp_path: Path):
    file = tmp_path / "pid"
    done = Path(f"{file}.done")
    server = subprocess.Popen([sys.executable, "-c", ORPHANING, str(file), state])
    try:
        await until(done.exists, within_s=30, what="the call")
        pid = int(done.read_text())
        assert is_running(pid)
    finally:
        server.kill()
        server.wait()
    await until(lambda: not is_running(pid), what="the end of the orphaned worker")


def in_a_thread(run: Callable[[Awaitable[None]], None], work: Callable[[], Awaitable[None]]) -> None:
    failures: list[BaseException] = []

    def body() -> None:
        try:
            run(work())
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_sandbox_works_on_the_loop_of_any_thread(run: Callable[[Awaitable[None]], None], tmp_path: Path):
    body = """
        if inputs["how"] == "sleep":
            open(inputs["started"], "w").close()
            time.sleep(60)
        if inputs["how"] == "crash":
            os._exit(9)
        return {"text": inputs["text"]}
    """
    started = tmp_path / "started"

    async def work() -> None:
        inputs = {"text": "x" * 500_000, "started": str(started), "how": "return"}
        async with sandbox(body, before="import os, time", size=2) as box:
            answers = await asyncio.gather(*(call(box, inputs) for _ in range(6)))
            assert all(answer == {"text": inputs["text"]} for answer in answers)
            with pytest.raises(CodeFailed, match="status 9"):
                await call(box, {**inputs, "how": "crash"})
            with pytest.raises(CodeTimeout):
                await call(box, {**inputs, "how": "sleep"}, timeout_s=0.2)
            started.unlink(missing_ok=True)
            cancelled = asyncio.create_task(call(box, {**inputs, "how": "sleep"}))
            await until(started.exists)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            assert await call(box, inputs) == {"text": inputs["text"]}

    in_a_thread(run, work)
