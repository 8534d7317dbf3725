"""A naive interpreter of flow files: what IR.md says, by recursion over the file as data.

It shares nothing with the product, and has no scheduler: a node is asked for what it made, and asks what feeds it.
It knows the part of the language that `random_flows` writes. Expressions and code are Python, so Python runs them.

Where something ends a run, everything that depends on it has no meaning; what does not is worked out all the same,
because a live run may come to it first. So `aborts` are the ways in which the run may end.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from support.naive_nodes import Broke, Context, Doc, Failed, cast, each_element, evaluate, fits

PAYLOAD = {"reason", "node", "type", "attempts"}


@dataclass
class Expected:
    """What must come of a run. `made` are the outputs or the failure of every node that ran, `given` its inputs.

    `code` says why there is no output although nothing ended the run.
    """

    output: Any = None
    code: str | None = None
    aborts: set[tuple[str, str | None]] = field(default_factory=set[tuple[str, str | None]])
    skipped: set[str] = field(default_factory=set[str])
    made: dict[str, Any] = field(default_factory=dict[str, Any])
    given: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    @property
    def statuses(self) -> dict[str, str]:
        ran = {node: "failed" if isinstance(made, Failed) else "succeeded" for node, made in self.made.items()}
        return ran | dict.fromkeys(self.skipped, "skipped")


def interpret(flow: Doc, request: Doc) -> Expected:
    """What must come of a request."""
    fields = _fields(flow, request)
    if fields is None:
        return Expected(code="bad_input")
    return _Run(flow, fields).result()


def without_reasons(value: Any) -> Any:
    """A value as the interpreter knows it: without the sentences of failures."""
    if isinstance(value, dict):
        cleaned = {key: without_reasons(each) for key, each in value.items()}
        return cleaned | {"reason": ""} if value.keys() == PAYLOAD else cleaned
    return [without_reasons(each) for each in value] if isinstance(value, list) else value


class _Ended(Exception):
    """The run may have ended before this."""


def _fields(flow: Doc, request: Doc) -> Context | None:
    declared = flow.get("inputs", {})
    fields = Context(request)
    for name, spec in declared.items():
        if name in request:
            if not fits(request[name], spec.get("type")):
                return None
        elif "default" in spec:
            fields[name] = spec["default"]
    needed = {*flow["context"].get("requires", ()), *declared} - {*flow["context"].get("optional", ())}
    return fields if needed <= fields.keys() else None


class _Run:
    def __init__(self, flow: Doc, fields: Context) -> None:
        self.flow = flow
        self.nodes: dict[str, Any] = flow["nodes"]
        self.fields = fields
        self.expected = Expected()
        self.ended: set[str] = set()
        self.needed: set[str] = set()
        for edge in flow["edges"]:
            if edge["to"].partition(".")[0] == "_output":
                self._need(edge["from"])
        for name, node in self.nodes.items():
            if node["transform"]["mode"] == "code":
                self._need(name)

    def _need(self, end: str) -> None:
        name = end.partition(".")[0]
        if name == "_input" or name in self.needed:
            return
        self.needed.add(name)
        for edge in self.flow["edges"]:
            if edge["to"].partition(".")[0] == name:
                self._need(edge["from"])
            if edge["from"] == self._error_end(name) and not edge["to"].startswith("_output"):
                self._need(edge["to"])

    def _error_end(self, name: str) -> str | None:
        port = self.nodes[name].get("error")
        return f"{name}.{port['name']}" if port else None

    def result(self) -> Expected:
        for name in self.needed:
            with suppress(_Ended):
                self.settle(name)
        answers = [(edge["to"], found[0], edge) for edge in self._into("_output") if (found := self._try(edge))]
        if not self.expected.aborts:
            self._answer(answers)
        return self.expected

    def _try(self, edge: Doc) -> list[Any]:
        try:
            return self.carried(edge)
        except _Ended:
            return []

    def _answer(self, answers: list[tuple[str, Any, Doc]]) -> None:
        if not answers:
            self.expected.code = "no_output"
            return
        if answers[0][0] == "_output":
            self.expected.output = answers[0][1]
            return
        output: dict[str, Any] = {}
        declared = self.flow.get("outputs", {})
        for target, value, edge in answers:
            name = target.partition(".")[2]
            wanted = declared.get(name, {}).get("type")
            try:
                output.setdefault(name, cast(value, self._type(edge["from"]), wanted))
            except Broke:
                self.expected.code = "bad_output"
                return
        fitting = (value is None or fits(value, declared.get(name, {}).get("type")) for name, value in output.items())
        if all(fitting):
            self.expected.output = output
        else:
            self.expected.code = "bad_output"

    # -- edges --------------------------------------------------------------------------------------------------------

    def _into(self, name: str) -> list[Doc]:
        return [edge for edge in self.flow["edges"] if edge["to"].partition(".")[0] == name]

    def carried(self, edge: Doc) -> list[Any]:
        """What an edge carries: one value, or none."""
        found = self._leaving(edge["from"])
        if not found or "condition" not in edge:
            return found
        port = edge["from"].partition(".")[2]
        try:
            holds = evaluate(edge["condition"], {port or "value": found[0], "value": found[0], "context": self.fields})
        except Exception as exc:
            self.expected.aborts.add(("condition_failed", None))
            raise _Ended from exc
        return found if holds else []

    def _leaving(self, end: str) -> list[Any]:
        name, _, port = end.partition(".")
        if name == "_input":
            if not port:
                return [dict(self.fields)]
            return [self.fields[port]] if port in self.fields else []
        made = self.settle(name)
        if end == self._error_end(name):
            failure = {"reason": "", "node": name}
            return [failure | {"type": made.kind, "attempts": made.attempts}] if isinstance(made, Failed) else []
        return [made[port]] if isinstance(made, dict) else []

    def _type(self, end: str) -> str | None:
        name, _, port = end.partition(".")
        if name == "_input":
            return self.flow.get("inputs", {}).get(port, {}).get("type") if port else "object"
        if end == self._error_end(name):
            return "object"
        return next(each["type"] for each in self.nodes[name]["outputs"] if each["name"] == port)

    # -- nodes --------------------------------------------------------------------------------------------------------

    def settle(self, name: str) -> dict[str, Any] | Failed | None:
        """What a node made: its outputs, its failure, or None when it is skipped."""
        if name in self.ended:
            raise _Ended
        if name in self.expected.skipped:
            return None
        if name not in self.expected.made:
            try:
                self._run(name)
            except _Ended:
                self.ended.add(name)
                raise
        return self.expected.made.get(name)

    def _run(self, name: str) -> None:
        arriving: dict[str, list[Any]] = {port["name"]: [] for port in self.nodes[name]["inputs"]}
        ended = False
        for edge in self._into(name):
            try:
                found = self.carried(edge)
            except _Ended:
                ended = True
                continue
            arriving[edge["to"].partition(".")[2]] += [(value, self._type(edge["from"])) for value in found]
        if ended:
            raise _Ended
        if any(not arriving[port["name"]] and not port.get("optional") for port in self.nodes[name]["inputs"]):
            self.expected.skipped.add(name)
            return
        self.expected.made[name] = self._outcome(name, arriving)
        handled = any(edge["from"] == self._error_end(name) for edge in self.flow["edges"])
        if isinstance(self.expected.made[name], Failed) and not handled:
            self.expected.aborts.add(("node_failed", name))
            raise _Ended

    def _outcome(self, name: str, arriving: dict[str, list[Any]]) -> dict[str, Any] | Failed:
        inputs: dict[str, Any] = {}
        try:
            for port in self.nodes[name]["inputs"]:
                values = arriving[port["name"]]
                if len(values) > 1:
                    raise Broke
                inputs[port["name"]] = cast(*values[0], port["type"]) if values else None
        except Broke as exc:
            return Failed(exc.kind, 0)
        self.expected.given[name] = inputs
        outputs, failed, _ = each_element(name, self.nodes[name], inputs, self.fields)
        return failed or outputs or {}
