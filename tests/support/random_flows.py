"""Random flow files without errors, and requests for them.

Flows are small and mean: edges die, nodes fail on some of the inputs, conditions raise, values do not fit. What must
come of a request is what `interpreter` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]

FIELDS = {"n": "number", "s": "string", "flag": "boolean", "items": "array", "rows": "table"}
"""Every request carries these. `extra` is a number with a default, `maybe` is untyped and may be absent."""
SMALL = st.integers(-2, 4)
ITEMS = st.lists(st.one_of(SMALL, st.sampled_from(["", "a", None])), max_size=3)
VALUES = {
    "n": st.one_of(SMALL, st.sampled_from([0.5, 2.0])),
    "s": st.sampled_from(["", "a", "bb", "${n}", "é 🎉"]),
    "flag": st.booleans(),
    "items": ITEMS,
    "rows": st.lists(st.fixed_dictionaries({"k": SMALL}), max_size=2),
}
MAYBE = st.one_of(SMALL, ITEMS, st.sampled_from([None, "", "x", {}, {"k": 1}, False]))
INTO = {
    "string": {"string", "document", "number", "boolean"},
    "document": {"document", "string"},
    "array": {"array", "table"},
    "object": {"object", "table"},
}
CONDITIONS: dict[str | None, list[str]] = {
    "number": ["value > 1", "value % 2 == 0", "12 // value > 2", "context.n < value"],
    "string": ["len(value) > 1", "value == ''", "'a' in value", "value[0] == 'a'"],
    "boolean": ["value", "not value", "value == context['flag']"],
    "array": ["value", "len(value) < 2", "value[0] == 1"],
    "object": ["value", "'k' in value", "value['k'] == 1"],
    "table": ["len(value) == 1", "value[0]['k'] > 0"],
    None: ["value is None", "value == 0", "context.maybe == 1", "bool(value)"],
    "failure": ["value['type'] == 'error'", "value['attempts'] > 1", "value['node'] == 'a'"],
}
CONDITIONS["document"] = CONDITIONS["string"]
EXPRESSIONS = {
    "transform.filter": ["item", "item != 0", "item > 0", "context.flag"],
    "transform.map": ["item", "item * 2", "[item, context.n]", "str(item)"],
    "transform.reduce": ["acc + item", "item * 2 + acc", "acc + 12 // item", "max(acc, item)", "acc - context.n"],
    "array": ["max(str(acc), str(item))", "item", "acc + item", "acc + 12 // item"],
}
CODE = """\
async def transform(inputs, context, state):
    a = inputs["a"]
    {line}
    return {{"out": a}}
"""
LINES = ["a = inputs.get('b', a)"] * 3 + ["assert a", "a = a * 2", "return {'other': a}", "return a"]


@dataclass
class _Sources:
    """What an edge may begin with, by the type that it carries; `failure` is what an error port carries."""

    by_type: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, end: str, kind: str) -> None:
        self.by_type.setdefault(kind, []).append(end)

    def fitting(self, target: str) -> list[tuple[str, str]]:
        """Ends and their types. Failures go to ports for failures only: their texts are not for comparing."""
        kinds = sorted(INTO.get(target, {target}))
        return [(end, kind) for kind in kinds for end in self.by_type.get(kind, [])]


class _Writer:
    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.nodes: dict[str, Any] = {}
        self.edges: list[dict[str, str]] = []
        self.sources = _Sources()
        for name, kind in FIELDS.items():
            self.sources.add(f"_input.{name}", kind)
        self.sources.add("_input.extra", "number")
        self.sources.add("_input", "object")

    def one(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def rarely(self) -> bool:
        return self.draw(st.integers(0, 3)) == 3

    def document(self) -> dict[str, Any]:
        for name in "abcdef"[: self.draw(st.integers(1, 6))]:
            self._node(name)
        outputs = self._outputs()
        order = self.draw(st.permutations(list(self.nodes)))
        return {
            "version": "1.0",
            "metadata": {"name": "random"},
            "context": {"requires": list(FIELDS), "optional": ["maybe"]},
            "inputs": {name: {"type": kind} for name, kind in FIELDS.items()}
            | {"extra": {"type": "number", "default": self.draw(SMALL)}},
            **({"outputs": outputs} if outputs else {}),
            "nodes": {name: self.nodes[name] for name in order},
            "edges": self.draw(st.permutations(self.edges)),
        }

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _node(self, name: str) -> None:
        write = self.one(self._number, self._text, self._parts, self._array, self._code, self._each, self._loop)
        if self.sources.by_type.get("failure") and self.rarely():
            write = self._handler
        node = write()
        for port in node["inputs"]:
            if self.rarely() and "for_each" not in node and "loop" not in node:
                port["optional"] = True
        if self.rarely():
            node["runtime"] = {"retries": 2, "retry_backoff_ms": 0, "retry_on": [self.one("error", "validation_fail")]}
        if not self.rarely():
            node["error"] = {"name": "broke"}
        self.nodes[name] = node
        for port in node["inputs"]:
            self._feed(name, port)
        for port in node["outputs"]:
            self.sources.add(f"{name}.{port['name']}", port["type"])
        if "error" in node:
            self.sources.add(f"{name}.broke", "failure")
        for port in node["inputs"]:
            port["type"] = "object" if port["type"] == "failure" else port["type"]

    def _feed(self, name: str, port: dict[str, Any]) -> None:
        """Edges into a port: at most one of them is live whenever its source is."""
        count = self.one(1, 1, 1, 2) - (1 if port.get("optional") and self.rarely() else 0)
        is_certain = False
        for _ in range(count):
            ends = self.sources.fitting(port["type"])
            made = [each for each in ends if not each[0].startswith("_input")]
            end, kind = self.one(*ends, *made, *made)
            if port["type"] != "failure" and self.rarely() and self.rarely():
                end, kind = "_input.maybe", None
            edge = {"from": end, "to": f"{name}.{port['name']}"}
            is_fork = end == "_input.maybe" or kind == "failure"
            if self.rarely() or (is_certain and not is_fork):
                edge["condition"] = self.one(*CONDITIONS[kind])
            elif not is_fork:
                is_certain = True
            self.edges.append(edge)

    def _number(self) -> dict[str, Any]:
        args = {"input": ["${a}", "${b}"], "expression": self.one(*EXPRESSIONS["transform.reduce"]), "initial": 1}
        out = {"name": "out", "type": "number"}
        if self.rarely():
            out["schema"] = {"type": "number", "maximum": self.draw(SMALL)}
        return _operation("transform.reduce", args, inputs={"a": "number", "b": "number"}, outputs=[out])

    def _text(self) -> dict[str, Any]:
        inputs = {"a": self.one("string", "document", "object", "boolean"), "b": self.one("string", "number", "array")}
        template = self.one("<${a}|${b}>", "$${a} ${context.n}", "${a.k}", "${b.0} of ${b}", "${a}")
        out = {"name": "out", "type": self.one("string", "string", "document")}
        return _operation("io.format_response", {"template": template}, inputs=inputs, outputs=[out])

    def _parts(self) -> dict[str, Any]:
        template = self.one({"out": "${a}"}, {"k": "${a}", "l": [{"deep": "${b}"}]}, {"k": "${b}"}, "${a}")
        outputs: list[dict[str, Any]] = [{"name": "out", "type": "object"}]
        if self.rarely():
            outputs = [{"name": "k", "type": "number"}, {"name": "l", "type": "array", "optional": True}]
        inputs = {"a": self.one("object", "number"), "b": "number"}
        return _operation("io.format_response", {"template": template}, inputs=inputs, outputs=outputs)

    def _array(self) -> dict[str, Any]:
        op = self.one("transform.filter", "transform.map")
        args = {"input": "${a}", "expression": self.one(*EXPRESSIONS[op])}
        return _operation(op, args, inputs={"a": "array"}, outputs=[{"name": "out", "type": "array"}])

    def _code(self) -> dict[str, Any]:
        kind = self.one(*FIELDS)
        inputs = {"a": FIELDS[kind], **({"b": FIELDS[kind]} if self.rarely() else {})}
        return {
            "inputs": _ports(inputs),
            "outputs": [{"name": "out", "type": FIELDS[kind]}],
            "transform": {"mode": "code", "spec": CODE.format(line=self.one(*LINES))},
        }

    def _each(self) -> dict[str, Any]:
        args = {"input": ["${a}"], "expression": self.one(*EXPRESSIONS["array"]), "initial": 1}
        out: dict[str, Any] = {"name": "out", "type": "array"}
        if self.rarely():
            out["schema"] = {"type": "array", "maxItems": 1}
        node = _operation("transform.reduce", args, inputs={"a": "array"}, outputs=[out])
        on_item_error = self.one("fail", "skip", "collect")
        return {**node, "for_each": {"input": "a", "on_item_error": on_item_error, "max_parallel": 1}}

    def _loop(self) -> dict[str, Any]:
        args = {"input": ["${a}"], "expression": self.one("item * 2", "item - 1", "12 // item"), "initial": 0}
        out = {"name": "a", "type": "number"}
        node = _operation("transform.reduce", args, inputs={"a": "number"}, outputs=[out])
        until = self.one("a > 3", "a < 0", "12 // a > context.n")
        return {**node, "loop": {"until": until, "max_rounds": self.draw(st.integers(1, 4))}}

    def _handler(self) -> dict[str, Any]:
        template = {"k": "${problem.attempts}", "from": "${problem.node} ${problem.type}"}
        out = {"name": "out", "type": "object"}
        return _operation("io.format_response", {"template": template}, inputs={"problem": "failure"}, outputs=[out])

    # -- the answer ---------------------------------------------------------------------------------------------------

    def _outputs(self) -> dict[str, Any]:
        """Edges into the answer, and the outputs that the flow declares."""
        declared: dict[str, Any] = {}
        is_named, declares = self.draw(st.booleans()), self.rarely()
        ends: list[tuple[str, str | None]] = [
            (end, kind) for kind, all_of in self.sources.by_type.items() for end in all_of
        ]
        made = [each for each in ends if not each[0].startswith("_input")]
        ends.append(("_input.maybe", None))
        for _ in range(self.draw(st.integers(1, 4))):
            end, of = self.one(*(ends if self.rarely() else made))
            edge = {"from": end, "to": "_output"}
            if is_named and declares:
                if self.rarely():
                    edge["from"], of = "_input.maybe", None
                edge["to"], takes = f"_output.o{len(declared)}", {*INTO, *FIELDS.values()}
                wanted = sorted(kind for kind in takes if of is None or of in INTO.get(kind, {kind}))
                declared[f"o{len(declared)}"] = {"type": self.one(*(wanted or ["object"]))}
            elif is_named:
                edge["to"] = self.one("_output.p", "_output.q", "_output.r")
            if self.rarely():
                edge["condition"] = self.one(*CONDITIONS[of])
            self.edges.append(edge)
        return declared


def _ports(types: dict[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "type": kind} for name, kind in types.items()]


def _operation(
    op: str, args: dict[str, Any], *, inputs: dict[str, str], outputs: list[dict[str, Any]]
) -> dict[str, Any]:
    transform = {"mode": "declarative", "spec": {"op": op, "args": args}}
    return {"inputs": _ports(inputs), "outputs": outputs, "transform": transform}


@st.composite
def flow_files(draw: Draw) -> dict[str, Any]:
    """A flow file as data, without errors."""
    return _Writer(draw).document()


@st.composite
def requests(draw: Draw) -> dict[str, Any]:
    """A request for such a flow; one in twenty does not fit it."""
    request = {name: draw(values) for name, values in VALUES.items()}
    if draw(st.booleans()):
        request["maybe"] = draw(MAYBE)
    if draw(st.booleans()):
        request["extra"] = draw(SMALL)
    if draw(st.integers(0, 19)) == 7:
        name = draw(st.sampled_from([*FIELDS, "extra"]))
        if name in FIELDS and draw(st.booleans()):
            del request[name]
        else:
            request[name] = draw(st.sampled_from([None, {}]))
    return request
