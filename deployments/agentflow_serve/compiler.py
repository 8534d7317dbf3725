"""From a flow to the files of an agent: the compiler as programs call it (spec: ir-compilation.md, Compilation CLI).

    compiler = IRCompiler()
    errors = compiler.validate(ir)
    code = compiler.compile(ir)
    tests = compiler.generate_tests(ir)

`agentflow.compile` writes the text; here is what it must know of the world: which tests the nodes pass now.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agentflow import Finding, FlowInvalid, LoadedFlow, from_mapping, inspect_flow, load
from agentflow.compile import MODULE, TARGETS, Target, compile_plan
from agentflow.compile.findings import forbidden_code
from agentflow.findings import errors
from agentflow.plan import Plan, plan
from agentflow_serve.errors import AppInvalid

__all__ = ["TARGETS", "Compiled", "IRCompiler", "compile_loaded", "package_flow", "generated_tests"]

Ir = Mapping[str, Any] | str | PathLike[str]
"""A flow as data, or the path of its file."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A flow that can be compiled, and what it is compiled for."""

    loaded: LoadedFlow
    plan: Plan
    target: Target

    def module(self) -> str:
        return compile_plan(self.plan, target=self.target, places=self.loaded.source_of)[MODULE]


def compile_loaded(loaded: LoadedFlow, *, target: Target = "kserve", forbid_code: bool = False) -> Compiled:
    """Raises FlowInvalid with a finding, and its place, for everything that may not be compiled."""
    if forbid_code and (found := tuple(forbidden_code(loaded.flow))):
        placed = tuple(replace(each, place=loaded.source_of(each.path)) for each in found)
        named = "; ".join(str(each) for each in placed[:3])
        raise FlowInvalid(f"the flow {loaded.file} cannot be compiled: {named}", findings=placed)
    return Compiled(loaded, plan(loaded.flow), target)


def generated_tests(compiled: Compiled, *, module: str = "agent", feature_store: str | None = None) -> str:
    """The text of the tests.

    Runs the flow and its nodes with scripted models and calls nothing outside, but for `feature_store`, which is read.
    """
    from agentflow.compile.tests import tests_module
    from flow_runtime.compiled.record import record
    from flow_runtime.compiled.testing import test_settings

    with TemporaryDirectory(prefix="af-") as folder:
        settings = test_settings(folder)
        if feature_store is not None:
            settings = replace(settings, feature_store=feature_store)
        examples = asyncio.run(record(compiled.plan, settings, reads_features=feature_store is not None))
    return tests_module(compiled.plan, examples, module=module, places=compiled.loaded.source_of)


def package_flow(flow: Path, output: Path) -> None:
    """`agentflow package FLOW -o OUTPUT`. Raises AppInvalid where that command is not installed."""
    try:
        command = importlib.import_module("agentflow_serve.commands.package").command
    except ModuleNotFoundError as exc:
        raise AppInvalid("this installation has no `agentflow package`: compile without --package") from exc
    command.main([str(flow), "--output", str(output)], standalone_mode=False)


class IRCompiler:
    """Compiles flows for one target."""

    def __init__(self, *, target: Target = "kserve", forbid_code: bool = False) -> None:
        self._target: Target = target
        self._forbid_code = forbid_code

    def validate(self, ir: Ir) -> list[Finding]:
        """What keeps a flow from being compiled; nothing for a good one. Never raises for what is in it."""
        flow, findings = inspect_flow(ir)
        wrong = list(errors(findings))
        if flow is not None and self._forbid_code:
            wrong += forbidden_code(flow)
        return wrong

    def compile(self, ir: Ir) -> str:
        """The module. Raises FlowInvalid with all findings."""
        return self._compiled(ir).module()

    def generate_tests(self, ir: Ir) -> str:
        """The tests of the module, which they import as `agent`. Raises FlowInvalid with all findings."""
        return generated_tests(self._compiled(ir))

    def package(self, ir: Ir, output: str | PathLike[str]) -> None:
        """What `agentflow package` makes of the flow, in the folder `output`.

        Raises what that command raises, and AppInvalid where it is not installed.
        """
        if not isinstance(ir, Mapping):
            package_flow(Path(ir), Path(output))
            return
        with TemporaryDirectory(prefix="af-") as folder:
            path = Path(folder, "flow.json")
            path.write_text(json.dumps(ir), encoding="utf-8")
            package_flow(path, Path(output))

    def _compiled(self, ir: Ir) -> Compiled:
        loaded = from_mapping(ir) if isinstance(ir, Mapping) else load(ir)
        return compile_loaded(loaded, target=self._target, forbid_code=self._forbid_code)
