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

from agentflow import Finding, FlowInvalid, LoadedFlow, from_mapping, inspect_flow, load, loads
from agentflow.compile import MODULE, TARGETS, Target, compile_plan
from agentflow.compile.findings import forbidden_code
from agentflow.findings import errors
from agentflow.planning import Plan, plan
from agentflow_serve.errors import AppInvalid

__all__ = ["TARGETS", "Compiled", "IRCompiler", "compile_loaded", "package_flow", "generated_tests"]

Ir = Mapping[str, Any] | str | PathLike[str]
"""A flow as data, as text, or the path of its file."""


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


def package_flow(flow: Path, output: Path, *, llmhub: Path | None = None, feature_store: str | None = None) -> None:
    """`agentflow package FLOW --output OUTPUT`. Raises AppInvalid where that command is not installed."""
    try:
        command = importlib.import_module("agentflow_serve.commands.package").command
    except ModuleNotFoundError as exc:
        raise AppInvalid("this installation has no `agentflow package`: compile without --package") from exc
    options = {"--llmhub": llmhub, "--feature-store": feature_store}
    given = [part for name, value in options.items() if value is not None for part in (name, str(value))]
    command.main([str(flow), "--output", str(output), *given], standalone_mode=False)


class IRCompiler:
    """Compiles flows for one target."""

    def __init__(self, *, target: Target = "kserve", forbid_code: bool = False) -> None:
        self._target: Target = target
        self._forbid_code = forbid_code

    def validate(self, ir: Ir) -> list[Finding]:
        """What keeps a flow from being compiled; nothing for a good one. Never raises for what is in it."""
        if wrong := errors(inspect_flow(ir)[1]):
            return list(wrong)
        try:
            self._compiled(ir)
        except FlowInvalid as exc:
            return list(errors(exc.findings))
        return []

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
        if not isinstance(ir, Mapping) and not (isinstance(ir, str) and _is_text(ir)):
            package_flow(Path(ir), Path(output))
            return
        with TemporaryDirectory(prefix="af-") as folder:
            path = Path(folder, "flow.yaml")
            path.write_text(ir if isinstance(ir, str) else json.dumps(ir), encoding="utf-8")
            package_flow(path, Path(output))

    def _compiled(self, ir: Ir) -> Compiled:
        return compile_loaded(_loaded(ir), target=self._target, forbid_code=self._forbid_code)


def _loaded(ir: Ir) -> LoadedFlow:
    match ir:
        case Mapping():
            return from_mapping(ir)
        case str() if _is_text(ir):
            return loads(ir)
        case _:
            return load(ir)


def _is_text(ir: str) -> bool:
    """As `inspect_flow` tells a flow from the path of one."""
    return "\n" in ir or ir.lstrip().startswith("{")
