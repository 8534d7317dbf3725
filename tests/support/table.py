"""The table of small flows in tests/table/cases: what an entry is, and how a run is held against it.

An entry is one idea: a flow, its runs, and what must come of each run wherever its nodes are. Everything that is
not said about a node must be the plain thing: it succeeded, or it was cancelled by a failure that ended the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, JsonValue, model_validator

from agentflow.differences import differences
from runtime_core.report import RunReport

CASES = Path(__file__).parents[1] / "table" / "cases"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExpectedError(_Frozen):
    """`says` is a part of the sentence; `status` is HTTP's."""

    code: str
    status: int
    node: str | None = None
    says: str = ""
    retry_after: float | None = None


class Run(_Frozen):
    """One request, and its output or its error."""

    request: dict[str, JsonValue]
    output: JsonValue = None
    error: ExpectedError | None = None
    skipped: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()

    @model_validator(mode="after")
    def _one_end(self) -> Run:
        assert (self.error is None) == ("output" in self.model_fields_set), "say the output or the error"
        return self


class Case(_Frozen):
    """`id` is the flow's name, too. `wire`: values cross between processes here in a way of their own.

    `unneeded` nodes are never planned. `models` are the answers of each role in turn, the last one for ever.
    """

    id: str
    name: str
    flow: dict[str, Any]
    runs: tuple[Run, ...]
    wire: bool = False
    unneeded: frozenset[str] = frozenset()
    models: dict[str, list[JsonValue]] = {}
    script: list[dict[str, Any]] = []

    @property
    def document(self) -> dict[str, Any]:
        """The whole flow file."""
        return {"version": "1.0", "metadata": {"name": self.id}, **self.flow}

    @property
    def asks(self) -> bool:
        return bool(self.models or self.script)

    @property
    def rules(self) -> list[dict[str, Any]]:
        """The script of the simulated model."""
        return [*self.script, *(rule for role, answers in self.models.items() for rule in _in_turn(role, answers))]


def _in_turn(role: str, answers: list[JsonValue]) -> Iterator[dict[str, Any]]:
    for left, answer in zip(reversed(range(len(answers))), answers, strict=True):
        is_fault = isinstance(answer, dict) and answer.keys() == {"fault"}
        match = {"role": role} | ({"times": 1} if left else {})
        yield {"match": match, "reply": answer if is_fault else {"answer": answer}}


@cache
def table() -> tuple[Case, ...]:
    """Every entry, by file and in the order of the file."""
    return tuple(
        Case(id=f"{path.stem}-{number}", **entry)
        for path in sorted(CASES.glob("*.yaml"))
        for number, entry in enumerate(yaml.load(path.read_text(), Loader=yaml.CSafeLoader), start=1)
    )


def shown(case: Case) -> str:
    """The name of an entry in test reports."""
    return f"{case.id}: {case.name}"


def problems(run: Run, report: RunReport) -> list[str]:
    """How a run differs from what the table says, in lines; nothing when it does not."""
    found = _end_problems(run, report)
    actual = {name: node.status for name, node in report.nodes.items()}
    for status, expected in (("failed", run.failed), ("skipped", run.skipped)):
        found += differences(sorted(expected), sorted(n for n, s in actual.items() if s == status), status)
    if run.error is None and "cancelled" in actual.values():
        found.append(f"nodes were cancelled: {actual}")
    return found


def _end_problems(run: Run, report: RunReport) -> list[str]:
    if run.error is None:
        if report.error is not None:
            return [f"expected an output, got {report.error}"]
        return differences(run.output, report.output, "output")
    if report.error is None:
        return [f"expected {run.error.code}, got the output {report.output!r}"]
    found = differences(
        [run.error.code, run.error.node, run.error.retry_after],
        [report.error.code, report.error.node, report.error.retry_after],
        "error",
    )
    if run.error.says not in report.error.message:
        found.append(f"error: {run.error.says!r} is not in {report.error.message!r}")
    if run.error.code == "bad_input" and report.nodes:
        found.append("nodes ran although the request was refused")
    return found
