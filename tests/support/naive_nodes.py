"""What one node of a flow makes of its inputs, for `interpreter`: the node as data, and Python for what is Python."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Doc = Mapping[str, Any]
FUNCTIONS = {each.__name__: each for each in (abs, bool, float, int, len, max, min, str)}
PLACEHOLDER = re.compile(r"\$\$\{|\$\{([^}]*)\}")
CASTS = {("number", "string"), ("boolean", "string")}


@dataclass(frozen=True)
class Failed:
    """`attempts` as the error port tells them."""

    kind: str
    attempts: int


class Broke(Exception):
    """One attempt at a node failed."""

    def __init__(self, kind: str = "error") -> None:
        self.kind = kind


class Context(dict[str, Any]):
    __getattr__ = dict.__getitem__


Outcome = tuple[dict[str, Any] | None, Failed | None, int]
"""Outputs or a failure, and the attempts in all."""


def each_element(name: str, node: Doc, inputs: dict[str, Any], context: Context) -> Outcome:
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
    except Broke as exc:
        return None, Failed(exc.kind, attempts), attempts


def rounds(node: Doc, inputs: dict[str, Any], context: Context) -> Outcome:
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
            if evaluate(spec["until"], {**made, "context": context}):
                return made, None, attempts
        except Exception:
            break
        inputs = inputs | {port["name"]: made[port["name"]] for port in node["inputs"] if port["name"] in made}
    return None, Failed("error", attempts), attempts


def attempts_at(node: Doc, inputs: dict[str, Any], context: Context) -> Outcome:
    runtime = node.get("runtime", {})
    most, attempt, kind = runtime.get("retries", 1), 0, "error"
    while attempt < most:
        attempt += 1
        try:
            return _work(node, inputs, context), None, attempt
        except Broke as exc:
            kind = exc.kind
        if kind not in runtime.get("retry_on", ("error", "validation_fail", "timeout")):
            break
    return None, Failed(kind, attempt), attempt


def _work(node: Doc, inputs: dict[str, Any], context: Context) -> dict[str, Any]:
    transform, ports = node["transform"], node["outputs"]
    checks = "for_each" not in node
    if transform["mode"] == "code":
        return _bound(ports, _coded(transform["spec"], inputs, context), checks=checks)
    try:
        value = _operation(transform["spec"], {**inputs, "context": context}, context)
    except Broke:
        raise
    except Exception as exc:
        raise Broke from exc
    if len(ports) == 1:
        [port] = ports
        alone = isinstance(value, dict) and value.keys() == {port["name"]}
        outputs = dict(value) if alone else {port["name"]: value}
        return _checked(ports, outputs) if checks else outputs
    return _bound(ports, value, checks=checks)


def _operation(spec: Doc, values: dict[str, Any], context: Context) -> Any:
    args: Any = {name: value for name, value in spec["args"].items() if name != "expression"}
    args, expression = _filled(args, values), spec["args"].get("expression")
    if spec["op"] == "io.format_response":
        return args["template"]
    if not isinstance(args["input"], list):
        raise Broke
    if spec["op"] == "transform.filter":
        return [item for item in args["input"] if evaluate(expression, {"item": item, "context": context})]
    if spec["op"] == "transform.map":
        return [evaluate(expression, {"item": item, "context": context}) for item in args["input"]]
    acc = args["initial"]
    for item in args["input"]:
        acc = evaluate(expression, {"item": item, "acc": acc, "context": context})
    return acc


def _coded(source: str, inputs: dict[str, Any], context: Context) -> Any:
    space: dict[str, Any] = {}
    exec(source, space)
    try:
        space["transform"](copy.deepcopy(inputs), context, None).send(None)
    except StopIteration as done:
        return done.value
    except Exception as exc:
        raise Broke from exc
    raise AssertionError("the code of random flows awaits nothing")


def _bound(ports: Any, value: Any, *, checks: bool) -> dict[str, Any]:
    if not ports:
        return {}
    if not isinstance(value, dict) or any(port["name"] not in value and not port.get("optional") for port in ports):
        raise Broke("validation_fail")
    outputs = {port["name"]: value.get(port["name"]) for port in ports}
    return _checked(ports, outputs) if checks else outputs


def _checked(ports: Any, outputs: dict[str, Any]) -> dict[str, Any]:
    for port in ports:
        value = outputs[port["name"]]
        if value is None and port.get("optional"):
            continue
        schema = port.get("schema", {})
        small = value is None or "maximum" not in schema or not fits(value, "number") or value <= schema["maximum"]
        short = "maxItems" not in schema or not isinstance(value, list) or len(value) <= schema["maxItems"]
        if not fits(value, port["type"]) or not small or not short:
            raise Broke("validation_fail")
    return outputs


# -- values -----------------------------------------------------------------------------------------------------------


def fits(value: Any, wanted: str | None) -> bool:
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


def cast(value: Any, source: str | None, target: str | None) -> Any:
    if value is None or None in (source, target) or source == target:
        return value
    if (source, target) in CASTS:
        return str(value)
    if (source, target) == ("table", "object"):
        if len(value) != 1:
            raise Broke
        return value[0]
    return value


def evaluate(expression: str, names: dict[str, Any]) -> Any:
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
