"""`agentflow serve --reload` without Ray: which files count, what an edit deploys, and what it cannot break."""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentflow.errors import FlowInvalid
from agentflow_serve.args import parse_args
from agentflow_serve.errors import AppInvalid
from agentflow_serve.inputs import read_inputs
from agentflow_serve.reload import serve_changes
from agentflow_serve.self_contained import SelfContained, self_contained, self_contained_flow

WAIT_S = 20
SAYS = {
    "inputs": [{"name": "x", "type": "string"}],
    "outputs": [{"name": "out", "type": "string"}],
    "transform": {"mode": "declarative", "spec": {"op": "io.format_response", "args": {"template": "one ${x}"}}},
}


def flow(**nodes: Any) -> dict[str, Any]:
    nodes = nodes or {"a": SAYS}
    return {
        "version": "1.0",
        "metadata": {"name": "desk"},
        "context": {"requires": ["x"]},
        "nodes": nodes,
        "edges": [{"from": "_input.x", "to": "a.x"}, {"from": "a.out", "to": "_output.out"}],
    }


def write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def read(path: Path) -> SelfContained:
    return self_contained_flow(path, None, host="127.0.0.1", port=8000, settings={})


def args_of(made: SelfContained) -> dict[str, Any]:
    return made.document["applications"][0]["args"]


def test_a_flow_is_read_with_every_file_of_it_and_runs_in_one_process(tmp_path: Path):
    write(tmp_path / "inner.yaml", flow())
    outer = write(
        tmp_path / "flow.yaml", flow(a={**SAYS, "type": "subflow", "flow": "inner.yaml"} | {"transform": None})
    )
    made = read(outer)
    assert {file.name for file in made.files} == {"flow.yaml", "inner.yaml"}
    assert made.document["applications"][0]["name"] == "desk"
    inputs = read_inputs(parse_args(args_of(made)))
    assert inputs.plan.name == "desk" and args_of(made)["placement"] == "inline"


def test_a_config_keeps_its_own_placement_and_brings_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "flow.yaml", flow())
    (tmp_path / "llmhub.yaml").write_text(
        yaml.safe_dump({"project": "p", "env": "e", "providers": {"sim": {}}, "roles": {}})
    )
    app = {"name": "n", "import_path": "agentflow_serve:app"}
    args = {"flow": "flow.yaml", "llmhub": "llmhub.yaml", "placement": "per_node"}
    other = {"name": "o", "import_path": "their:app", "args": {"flow": "missing"}}
    made = self_contained({"applications": [{**app, "args": args}, other]}, placement="inline")
    assert {file.name for file in made.files} == {"flow.yaml", "llmhub.yaml"}
    assert args_of(made)["placement"] == "per_node" and args_of(made)["llmhub"]["project"] == "p"
    assert made.document["applications"][1] == other
    with pytest.raises(AppInvalid, match=r"there is no file nowhere\.yaml"):
        self_contained({"applications": [{**app, "args": {"flow": "nowhere.yaml"}}]})


class Session:
    """A serving that only notes what it would deploy; the edits are real files."""

    def __init__(self, path: Path) -> None:
        self.deployed: list[Mapping[str, Any]] = []
        self.errors: list[Exception] = []
        self.said: queue.Queue[str] = queue.Queue()
        self.stop = threading.Event()
        self.fails: Exception | None = None
        first = read(path)
        self._thread = threading.Thread(
            target=serve_changes,
            args=(first,),
            kwargs={
                "read": lambda: read(path),
                "deploy": self._deploy,
                "explain": self.errors.append,
                "say": self.said.put,
                "stop": self.stop,
            },
        )

    def _deploy(self, document: Mapping[str, Any]) -> None:
        if self.fails is not None:
            raise self.fails
        self.deployed.append(document)

    def heard(self, text: str) -> None:
        while text not in (said := self.said.get(timeout=WAIT_S)):
            assert said.startswith(("changed", "the ")), said

    def __enter__(self) -> Session:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()


def edit_until(session: Session, path: Path, text: str, heard: str) -> None:
    """Write the file again and again until it was noticed: a watch takes a moment to begin."""
    give_up = threading.Event()

    def again() -> None:
        while not give_up.wait(0.3):
            beside = path.with_suffix(".new")
            beside.write_text(text)
            beside.rename(path)  # as editors do

    writer = threading.Thread(target=again)
    writer.start()
    try:
        session.heard(heard)
    finally:
        give_up.set()
        writer.join()


def test_a_good_edit_is_deployed_a_bad_one_is_told_and_the_next_good_one_counts_again(tmp_path: Path):
    path = write(tmp_path / "flow.yaml", flow())
    good = path.read_text()
    with Session(path) as session:
        edit_until(session, path, good.replace("one ${x}", "two ${x}"), "the new version is served")
        [deployed] = session.deployed
        assert "two ${x}" in json.dumps(deployed)

        edit_until(session, path, good.replace("template", "tempalte"), "the version before goes on")
        assert isinstance(session.errors[0], FlowInvalid) and "flow.yaml" in str(session.errors[0])
        edit_until(session, path, "{", "the version before goes on")
        assert len(session.deployed) == 1

        session.fails = AppInvalid("Ray said no")
        edit_until(session, path, good.replace("one ${x}", "three ${x}"), "the version before goes on")
        session.fails = None
        edit_until(session, path, good.replace("one ${x}", "four ${x}"), "the new version is served")
        assert "four ${x}" in json.dumps(session.deployed[-1])


def test_a_change_of_the_code_behind_a_flow_is_another_revision_and_broken_code_is_not_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(tmp_path)
    code = tmp_path / "af_reloaded.py"
    code.write_text("def transform(inputs, context, state):\n    return {'out': 'one'}\n")
    node = {**SAYS, "transform": {"mode": "code", "module": "af_reloaded:transform"}}
    path = write(tmp_path / "flow.yaml", flow(a=node))
    before = read(path)
    assert {file.name for file in before.files} == {"flow.yaml", "af_reloaded.py"}
    with Session(path) as session:
        edit_until(session, code, code.read_text().replace("one", "two"), "the new version is served")
        assert session.deployed[0]["applications"][0]["args"]["revision"] != args_of(before)["revision"]
        edit_until(session, code, "def transform(:\n", "the version before goes on")
        assert "the module af_reloaded cannot be imported" in str(session.errors[0])
        assert "SyntaxError" in str(session.errors[0]) and len(session.deployed) == 1
    assert "af_reloaded" not in sys.modules


def test_a_file_that_says_the_same_deploys_nothing(tmp_path: Path):
    path = write(tmp_path / "flow.yaml", flow())
    waits = iter([True, True, False])
    deployed: list[Any] = []
    serve_changes(
        read(path),
        read=lambda: read(path),
        deploy=deployed.append,
        explain=lambda error: pytest.fail(str(error)),
        say=lambda text: pytest.fail(text),
        stop=threading.Event(),
        wait=lambda files, stop: next(waits),
    )
    assert deployed == []
