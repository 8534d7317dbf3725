"""Finding operations: ours, installed ones, and nothing that a flow does not name."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from agentflow.errors import PlaceholderFailed
from agentflow.operations import OPERATIONS
from flow_runtime.errors import OperationFailed, OperationTimeout, OperationUnknown
from support.flows import ScriptedModels
from support.operations import bound, run_operation

SOURCE = """
    from flow_runtime.operations import OperationBinding, OperationCall, with_resolved_args

    async def shout(args, call):
        if args["text"] == "fail":
            raise KeyError("nothing")
        if args["text"] == "late":
            raise TimeoutError
        return {"text": args["text"].upper(), "node": call.node_id, "context": dict(call.context)}

    class Own:
        def __init__(self, binding):
            self.op = binding.op
            self.args = binding.args

        async def run(self, values, call):
            return {"op": self.op, "args": dict(self.args), "names": sorted(values)}

    shout_operation = with_resolved_args(shout)
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that provides operations, as an installer leaves it behind."""
    name = f"operations_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(SOURCE))
    info = tmp_path / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[agentflow.operations]\nacme.shout = {name}:shout_operation\nacme.own = {name}:Own\n"
        f"acme.absent = {name}:absent\nacme.broken = {name}_not_there:x\nhttp.get = {name}:Own\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installed")
async def test_an_installed_operation_gets_its_arguments_filled():
    value = await run_operation("acme.shout", {"text": "${word}"}, word="hi", context={"user_id": "u"})
    assert value == {"text": "HI", "node": "node", "context": {"user_id": "u"}}


@pytest.mark.usefixtures("installed")
async def test_an_installed_operation_may_read_its_arguments_itself():
    value = await run_operation("acme.own", {"text": "${word}"}, word="hi")
    assert value == {"op": "acme.own", "args": {"text": "${word}"}, "names": ["context", "word"]}


@pytest.mark.usefixtures("installed")
async def test_what_an_installed_operation_raises_becomes_an_error_of_ours():
    with pytest.raises(OperationFailed, match=r"acme\.shout raised KeyError"):
        await run_operation("acme.shout", {"text": "fail"})
    with pytest.raises(OperationTimeout):
        await run_operation("acme.shout", {"text": "late"})
    with pytest.raises(PlaceholderFailed):
        await run_operation("acme.shout", {"text": "${context.absent}"})


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("op", ["acme.absent", "acme.broken", "acme.unknown", "nonsense"])
def test_an_operation_that_is_not_there_is_named(op: str):
    with pytest.raises(OperationUnknown, match=f"'{op}'") as caught:
        bound(op, {})
    assert caught.value.op == op


@pytest.mark.usefixtures("installed")
def test_an_installed_operation_cannot_take_the_place_of_one_of_ours():
    ours = bound("http.get", {"url": "https://example.com/"})
    assert type(ours).__module__ == "flow_runtime.operations.http"


def test_every_operation_that_the_language_supports_is_there(tmp_path: Path):
    args = {"input": [], "expression": "1", "initial": 0, "template": {}, "url": "https://example.com/"}
    args |= {"module": "json", "slot": "dumps"}
    more = {"feature_store": f"local:{tmp_path}", "slot_modules": ("json",)}
    for entry in OPERATIONS.values():
        wanted = {name: value for name, value in args.items() if name in entry.args}
        assert hasattr(bound(entry.name, wanted, models=ScriptedModels({}), model="writer", **more), "run")


def test_a_flow_imports_the_libraries_of_its_own_operations_only(tmp_path: Path):
    program = textwrap.dedent(f"""
        import asyncio, sys
        from agentflow.ir import OperationSpec
        from flow_runtime.operations import OperationResources, OperationSettings, bind_operation
        def bind(op, **args):
            settings = OperationSettings(feature_store={f"local:{tmp_path}"!r})
            return bind_operation(OperationSpec(op=op, args=args), names=(), settings=settings,
                                  resources=OperationResources())
        heavy = lambda: {{"httpx", "httpcore", "duckdb", "hopsworks", "hsfs", "pandas"}} & set(sys.modules)
        bind("transform.filter", input=[], expression="item")
        bind("io.format_response", template={{}})
        assert heavy() == set(), "too early"
        bind("http.get", url="https://example.com/")
        assert heavy() == {{"httpx", "httpcore"}}
        asyncio.run(bind("features.read", feature_group="a", key="b", key_column="c").prepare())
        assert heavy() == {{"httpx", "httpcore", "duckdb"}}
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
