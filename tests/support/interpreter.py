"""A naive interpreter of flow files: what IR.md says, by recursion over the file as data.

It shares nothing with the product, and has no scheduler: a node is asked for what it made, and asks what feeds it.
It knows the part of the language that `random_flows` writes. Expressions and code are Python, so Python runs them.

Where something ends a run, everything that depends on it has no meaning; what does not is worked out all the same,
because a live run may come to it first. So `aborts` are the ways in which the run may end.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

Doc = Mapping[str, Any]
FUNCTIONS = {each.__name__: each for each in (abs, bool, float, int, len, max, min, str)}
PLACEHOLDER = re.compile(r"\$\$\{|\$\{([^}]*)\}")
PAYLOAD = {"reason", "node", "type", "attempts"}
CASTS = {("number", "string"), ("boolean", "string")}


@dataclass(frozen=True)
class Failed:
    """`attempts` as the error port tells them."""

    kind: str
    attempts: int


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


class _Broke(Exception):
    """One attempt at a node failed."""

    def __init__(self, kind: str = "error") -> None:
        self.kind = kind


class _Context(dict[str, Any]):
    __getattr__ = dict.__getitem__


def _fields(flow: Doc, request: Doc) -> _Context | None:
    declared = flow.get("inputs", {})
    fields = _Context(request)
    for name, spec in declared.items():
        if name in request:
            if not _fits(request[name], spec.get("type")):
                return None
        elif "default" in spec:
            fields[name] = spec["default"]
    needed = {*flow["context"].get("requires", ()), *declared} - {*flow["context"].get("optional", ())}
    return fields if needed <= fields.keys() else None


class _Run:
    def __init__(self, flow: Doc, fields: _Context) -> None:
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
                output.setdefault(name, _cast(value, self._type(edge["from"]), wanted))
            except _Broke:
                self.expected.code = "bad_output"
                return
        fits = (value is None or _fits(value, declared.get(name, {}).get("type")) for name, value in output.items())
        if all(fits):
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
            holds = _evaluate(edge["condition"], {port or "value": found[0], "value": found[0], "context": self.fields})
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
                    raise _Broke
                inputs[port["name"]] = _cast(*values[0], port["type"]) if values else None
        except _Broke as exc:
            return Failed(exc.kind, 0)
        self.expected.given[name] = inputs
        outputs, failed, _ = each_element(name, self.nodes[name], inputs, self.fields)
        return failed or outputs or {}


Outcome = tuple[dict[str, Any] | None, Failed | None, int]
"""Outputs or a failure, and the attempts in all."""


def each_element(name: str, node: Doc, inputs: dict[str, Any], context: _Context) -> Outcome:
    spec = node.get("for_each")
    if spec is None:
        return rounds(node, inputs, context)
    elements = inputs[spec["input"]] if inputs[spec["input"]] is not None else []
    if not isinstance(elements, list):
        return None, Failed("error", 0), 0
    outputs: dict[str, list[Any]] = {port["name"]: [] for port in node["outputs"]}
    attempts = 0
    for element in elements:
        made, failed, tried = rounds(node, {**inputs, spec["input"]: element}, context)
        attempts += tried
        if failed and spec["on_item_error"] == "fail":
            return None, failed, attempts
        if failed and spec["on_item_error"] == "skip":
            continue
        for port, values in outputs.items():
            payload = failed and {"reason": "", "node": name, "type": failed.kind, "attempts": failed.attempts}
            values.append(payload or (made or {})[port])
    try:
        return _checked(node["outputs"], outputs), None, attempts
    except _Broke as exc:
        return None, Failed(exc.kind, attempts), attempts


def rounds(node: Doc, inputs: dict[str, Any], context: _Context) -> Outcome:
    spec = node.get("loop")
    if spec is None:
        return attempts_at(node, inputs, context)
    attempts = 0
    for _ in range(spec["max_rounds"]):
        made, failed, tried = attempts_at(node, inputs, context)
        attempts += tried
        if made is None or failed:
            return None, Failed(failed.kind if failed else "error", attempts), attempts
        try:
            if _evaluate(spec["until"], {**made, "context": context}):
                return made, None, attempts
        except Exception:
            break
        inputs = inputs | {port["name"]: made[port["name"]] for port in node["inputs"] if port["name"] in made}
    return None, Failed("error", attempts), attempts


def attempts_at(node: Doc, inputs: dict[str, Any], context: _Context) -> Outcome:
    runtime = node.get("runtime", {})
    most, attempt, kind = runtime.get("retries", 1), 0, "error"
    while attempt < most:
        attempt += 1
        try:
            return _work(node, inputs, context), None, attempt
        except _Broke as exc:
            kind = exc.kind
        if kind not in runtime.get("retry_on", ("error", "validation_fail", "timeout")):
            break
    return None, Failed(kind, attempt), attempt


def _work(node: Doc, inputs: dict[str, Any], context: _Context) -> dict[str, Any]:
    transform, ports = node["transform"], node["outputs"]
    checks = "for_each" not in node
    if transform["mode"] == "code":
        return _bound(ports, _coded(transform["spec"], inputs, context), checks=checks)
    try:
        value = _operation(transform["spec"], {**inputs, "context": context}, context)
    except _Broke:
        raise
    except Exception as exc:
        raise _Broke from exc
    if len(ports) == 1:
        [port] = ports
        alone = isinstance(value, dict) and value.keys() == {port["name"]}
        outputs = dict(value) if alone else {port["name"]: value}
        return _checked(ports, outputs) if checks else outputs
    return _bound(ports, value, checks=checks)


def _operation(spec: Doc, values: dict[str, Any], context: _Context) -> Any:
    args: Any = {name: value for name, value in spec["args"].items() if name != "expression"}
    args, expression = _filled(args, values), spec["args"].get("expression")
    if spec["op"] == "io.format_response":
        return args["template"]
    if not isinstance(args["input"], list):
        raise _Broke
    if spec["op"] == "transform.filter":
        return [item for item in args["input"] if _evaluate(expression, {"item": item, "context": context})]
    if spec["op"] == "transform.map":
        return [_evaluate(expression, {"item": item, "context": context}) for item in args["input"]]
    acc = args["initial"]
    for item in args["input"]:
        acc = _evaluate(expression, {"item": item, "acc": acc, "context": context})
    return acc


def _coded(source: str, inputs: dict[str, Any], context: _Context) -> Any:
    space: dict[str, Any] = {}
    exec(source, space)
    try:
        space["transform"](copy.deepcopy(inputs), context, None).send(None)
    except StopIteration as done:
        return done.value
    except Exception as exc:
        raise _Broke from exc
    raise AssertionError("the code of random flows awaits nothing")


def _bound(ports: Any, value: Any, *, checks: bool) -> dict[str, Any]:
    if not ports:
        return {}
    if not isinstance(value, dict) or any(port["name"] not in value and not port.get("optional") for port in ports):
        raise _Broke("validation_fail")
    outputs = {port["name"]: value.get(port["name"]) for port in ports}
    return _checked(ports, outputs) if checks else outputs


def _checked(ports: Any, outputs: dict[str, Any]) -> dict[str, Any]:
    for port in ports:
        value = outputs[port["name"]]
        if value is None and port.get("optional"):
            continue
        schema = port.get("schema", {})
        small = value is None or "maximum" not in schema or not _fits(value, "number") or value <= schema["maximum"]
        short = "maxItems" not in schema or not isinstance(value, list) or len(value) <= schema["maxItems"]
        if not _fits(value, port["type"]) or not small or not short:
            raise _Broke("validation_fail")
    return outputs


# -- values -----------------------------------------------------------------------------------------------------------


def _fits(value: Any, wanted: str | None) -> bool:
    match wanted:
        case None:
            return True
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "table":
            return isinstance(value, list) and all(isinstance(row, dict) for row in value)
        case _:
            kinds = {"string": str, "document": str, "boolean": bool, "object": dict, "array": list}
            return isinstance(value, kinds[wanted])


def _cast(value: Any, source: str | None, target: str | None) -> Any:
    if value is None or None in (source, target) or source == target:
        return value
    if (source, target) in CASTS:
        return str(value)
    if (source, target) == ("table", "object"):
        if len(value) != 1:
            raise _Broke
        return value[0]
    return value


def _evaluate(expression: str, names: dict[str, Any]) -> Any:
    return eval(expression, {"__builtins__": {}, **FUNCTIONS}, names)


def _filled(template: Any, values: dict[str, Any]) -> Any:
    match template:
        case dict():
            return {key: _filled(value, values) for key, value in template.items()}
        case list():
            return [_filled(value, values) for value in template]
        case str():
            whole = PLACEHOLDER.fullmatch(template)
            if whole and whole[1] is not None:
                return _found(whole[1], values)
            return PLACEHOLDER.sub(lambda each: "${" if each[1] is None else str(_found(each[1], values)), template)
        case _:
            return template


def _found(path: str, value: Any) -> Any:
    for step in path.split("."):
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value
