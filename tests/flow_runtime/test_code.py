"""Code transforms: which server runs what, where it runs, and what it may see and change."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import textwrap
from pathlib import Path
from typing import Any

import pytest

from agentflow.ir import Code
from flow_runtime.code import CodeTransform, bind_code
from flow_runtime.code_mode import CodeMode
from flow_runtime.context import FlowContext
from flow_runtime.errors import CodeFailed, CodeRefused, CodeTimeout

CONTEXT = FlowContext({"user_id": "u-1", "auth": {"token": "t"}}, trace_id="abc", event_time="2026-01-01")


class Turns:
    """A state with one value."""

    def __init__(self) -> None:
        self.value: Any = None

    async def get(self, key: str, default: Any = None) -> Any:
        return default if self.value is None else self.value

    async def set(self, key: str, value: Any) -> None:
        self.value = value


def inline(source: str) -> Code:
    return Code(mode="code", spec=textwrap.dedent(source))


async def run(code: Code, inputs: dict[str, Any] | None = None, *, state: Any = None, timeout_s: float = 20) -> Any:
    async with bind_code(code, "rate") as transform:
        return await call(transform, inputs, state=state, timeout_s=timeout_s)


async def call(
    transform: CodeTransform,
    inputs: dict[str, Any] | None = None,
    *,
    state: Any = None,
    timeout_s: float = 20,
) -> Any:
    return await transform.call(inputs or {}, CONTEXT, state, timeout_s=timeout_s)


SYNC = inline("""
    import os
    def transform(inputs, context, state):
        return {"pid": os.getpid(), "user": context.user_id}
""")
ASYNC = inline("""
    import os
    async def transform(inputs, context, state):
        return {"pid": os.getpid(), "user": context.user_id}
""")


async def test_a_sync_transform_runs_in_another_process_and_an_async_one_in_this():
    sync, own = await run(SYNC), await run(ASYNC)
    assert sync["pid"] != os.getpid() == own["pid"]
    assert sync["user"] == own["user"] == "u-1"


async def test_an_async_transform_uses_the_state():
    code = inline("""
        async def transform(inputs, context, state):
            turns = await state.get("turns", [])
            await state.set("turns", [*turns, inputs["turn"]])
            return {"turns": await state.get("turns")}
    """)
    state = Turns()
    assert await run(code, {"turn": "hello"}, state=state) == {"turns": ["hello"]}
    assert await run(code, {"turn": "again"}, state=state) == {"turns": ["hello", "again"]}


@pytest.mark.parametrize(
    "body",
    [
        "return {'turns': await state.get('turns', 7)}",
        "return {'turns': [x async for x in numbers()][0]}",
        "async for x in numbers():\n        return {'turns': x}",
    ],
)
async def test_a_plain_def_that_awaits_is_taken_as_async(body: str):
    code = inline(f"async def numbers():\n    yield 7\n\ndef transform(inputs, context, state):\n    {body}\n")
    assert await run(code, state=Turns()) == {"turns": 7}


async def test_a_decorator_and_defaults_survive_the_promotion():
    code = inline("""
        def twice(function):
            async def call(*args):
                return {"n": 2 * await function(*args)}
            return call

        async def three():
            return 3

        @twice
        def transform(inputs, context, state=None) -> int:
            return await three()
    """)
    assert await run(code) == {"n": 6}


@pytest.mark.parametrize("prefix", ["", "async "])
async def test_calls_share_no_globals(prefix: str):
    code = inline(f"""
        seen = []
        {prefix}def transform(inputs, context, state):
            seen.append(inputs["n"])
            return {{"seen": seen}}
    """)
    async with bind_code(code, "rate", size=1) as transform:
        await call(transform, {"n": 1})
        assert await call(transform, {"n": 2}) == {"seen": [2]}


@pytest.mark.parametrize("prefix", ["", "async "])
async def test_a_transform_cannot_change_what_others_see(prefix: str):
    code = inline(f"""
        {prefix}def transform(inputs, context, state):
            inputs["rows"][0]["n"] = 99
            inputs["rows"].append(3)
            context.auth["token"] = "stolen"
            return {{}}
    """)
    inputs = {"rows": [{"n": 1}]}
    await run(code, inputs)
    assert inputs == {"rows": [{"n": 1}]}
    assert CONTEXT.auth == {"token": "t"}


async def test_a_value_that_is_no_json_reaches_an_async_transform_as_it_is():
    handle = object()
    code = inline("async def transform(inputs, context, state):\n    return {'same': inputs['model'][0]}")
    assert (await run(code, {"model": [handle]}))["same"] is handle


@pytest.mark.parametrize("prefix", ["", "async "])
async def test_an_error_names_its_type_and_its_line_in_the_code(prefix: str):
    code = inline(f"""
        def lookup(table):
            return table["absent"]

        {prefix}def transform(inputs, context, state):
            return lookup(inputs)
    """)
    with pytest.raises(CodeFailed, match="KeyError: absent at line 3") as caught:
        await run(code)
    assert (caught.value.error, caught.value.line) == ("KeyError", 3)


@pytest.mark.parametrize("prefix", ["", "async "])
async def test_sys_exit_and_an_own_timeout_error_are_failures_and_nothing_more(prefix: str):
    code = inline(f"""
        import sys
        {prefix}def transform(inputs, context, state):
            if inputs["exit"]:
                sys.exit(1)
            raise TimeoutError("upstream")
    """)
    with pytest.raises(CodeFailed, match="SystemExit: 1 at line 5"):
        await run(code, {"exit": True})
    with pytest.raises(CodeFailed, match="TimeoutError: upstream"):
        await run(code, {"exit": False})


async def test_an_async_transform_ends_at_its_timeout():
    code = inline("import asyncio\nasync def transform(i, c, s):\n    await asyncio.sleep(60)")
    with pytest.raises(CodeTimeout, match=r"stopped after 0\.05 s"):
        await run(code, timeout_s=0.05)


async def test_cancelling_a_call_is_no_failure_of_the_code():
    code = inline("import asyncio\nasync def transform(i, c, s):\n    await asyncio.sleep(60)")
    task = asyncio.create_task(run(code))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def other(inputs, context, state): return {}", "defines no transform"),
        ("def transform(inputs): return {}", "must take"),
        ("def transform(inputs, context, state)\n    return {}", "line 1"),
        (
            "async def transform(inputs, context, state):\n    yield 1\n    return {}",
            "does not compile.*line 3",
        ),
    ],
)
def test_code_that_is_no_transform_is_refused_when_it_is_bound(source: str, message: str):
    with pytest.raises(CodeFailed, match=f"(?s)node 'rate'.*{message}"):
        bind_code(inline(source), "rate")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed module with a sync and an async transform."""
    name = f"installed_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        textwrap.dedent("""
            import os
            calls = []

            def sync(inputs, context, state):
                calls.append(1)
                1 / inputs["n"]
                return {"pid": os.getpid(), "calls": len(calls), "user": context.user_id}

            async def own(inputs, context, state):
                return {"pid": os.getpid()}

            class Scorer:
                async def __call__(self, inputs, context, state):
                    return {"pid": os.getpid()}

            scorer = Scorer()
            number = 3
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    return name


async def test_a_module_transform_keeps_its_globals_and_its_kind(installed: str):
    async with bind_code(Code(mode="code", module=f"{installed}:sync"), "rate", size=1) as transform:
        first, second = await call(transform, {"n": 1}), await call(transform, {"n": 1})
        assert (first["calls"], second["calls"], first["user"]) == (1, 2, "u-1")
        assert first["pid"] != os.getpid()
        with pytest.raises(CodeFailed, match=r"ZeroDivisionError.*at line 7"):
            await call(transform, {"n": 0})
    for name in ("own", "scorer"):
        assert await run(Code(mode="code", module=f"{installed}:{name}")) == {"pid": os.getpid()}


@pytest.mark.parametrize("reference", ["no_such_module:f", "{installed}:absent", "{installed}:number"])
def test_a_module_that_does_not_load_is_refused_when_it_is_bound(reference: str, installed: str):
    code = Code(mode="code", module=reference.format(installed=installed))
    with pytest.raises(CodeFailed, match="could not be loaded"):
        bind_code(code, "rate")


@pytest.mark.parametrize(
    ("mode", "code", "allowed"),
    [
        ("inline", SYNC, True),
        ("inline", Code(mode="code", module="os:getpid"), True),
        ("modules", SYNC, False),
        ("modules", Code(mode="code", module="os:getpid"), True),
        ("off", SYNC, False),
        ("off", Code(mode="code", module="os:getpid"), False),
    ],
)
def test_the_server_decides_which_code_runs(mode: CodeMode, code: Code, allowed: bool):
    if allowed:
        bind_code(code, "rate", mode=mode)
    else:
        with pytest.raises(CodeRefused, match="code: inline") as caught:
            bind_code(code, "rate", mode=mode)
        assert caught.value.mode == mode


async def test_refused_code_is_not_even_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "writes_at_import.py").write_text(f"open({str(tmp_path / 'written')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CodeRefused):
        bind_code(Code(mode="code", module="writes_at_import:f"), "rate", mode="off")
    assert not (tmp_path / "written").exists()


async def test_binding_inline_code_does_not_run_it(tmp_path: Path):
    written = tmp_path / "written"
    for prefix in ("", "async "):
        bind_code(inline(f"open({str(written)!r}, 'w')\n{prefix}def transform(i, c, s): return {{}}"), "rate")
    assert not written.exists()


def test_the_context_is_read_by_attribute_subscript_and_get():
    assert CONTEXT.user_id == CONTEXT["user_id"] == CONTEXT.get("user_id") == "u-1"
    assert (CONTEXT.trace_id, CONTEXT.event_time) == ("abc", "2026-01-01")
    assert CONTEXT.get("absent") is None
    assert CONTEXT.get("absent", 3) == 3
    assert "user_id" in CONTEXT
    assert "absent" not in CONTEXT
    assert set(CONTEXT) == {"user_id", "auth", "trace_id", "event_time"} == set(CONTEXT.to_dict())


def test_a_missing_context_field_is_named():
    with pytest.raises(AttributeError, match=r"no field 'locale'; use context\.get"):
        _ = CONTEXT.locale
    with pytest.raises(KeyError, match="no field 'locale'"):
        _ = CONTEXT["locale"]


def test_the_context_is_read_only_and_hides_its_values():
    with pytest.raises(AttributeError, match="read-only"):
        CONTEXT.user_id = "other"
    with pytest.raises(AttributeError, match="read-only"):
        del CONTEXT.user_id
    assert "u-1" not in repr(CONTEXT)


def test_a_field_may_have_the_name_of_a_dict_method():
    context = FlowContext({"items": [1], "keys": "k"})
    assert (context.items, context.keys) == ([1], "k")


def test_a_request_field_comes_before_the_generated_one():
    assert FlowContext({"event_time": "then"}, event_time="now").event_time == "then"


def test_the_context_survives_pickle_and_copy():
    assert pickle.loads(pickle.dumps(CONTEXT)) == copy.deepcopy(CONTEXT) == CONTEXT
