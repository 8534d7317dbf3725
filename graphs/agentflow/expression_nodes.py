"""The grammar of expressions: which syntax nodes are allowed, and the closure that each becomes.

A node that has no method here does not exist in the language.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from agentflow import bounded
from agentflow.bounded import Meter
from agentflow.errors import ExpressionError
from agentflow.expression_source import MAX_DEPTH, error_at
from agentflow.types import is_object, kind_of

CONTEXT = "context"

Run = Callable[[Mapping[str, Any], Meter], Any]
Operation = Callable[[Meter, Any, Any], Any]


def _ordered(apply: Callable[[Any, Any], Any]) -> Operation:
    def compare(meter: Meter, left: Any, right: Any) -> Any:
        bounded.compared(meter, left, right)
        try:
            return apply(left, right)
        except TypeError:
            raise TypeError(f"{kind_of(left)} and {kind_of(right)} have no order") from None

    return compare


def _equality(apply: Callable[[Any, Any], Any]) -> Operation:
    def compare(meter: Meter, left: Any, right: Any) -> Any:
        bounded.compared(meter, left, right)
        return apply(left, right)

    return compare


_COMPARISONS: Mapping[type[ast.cmpop], Operation] = {
    ast.Eq: _equality(operator.eq),
    ast.NotEq: _equality(operator.ne),
    ast.Lt: _ordered(operator.lt),
    ast.LtE: _ordered(operator.le),
    ast.Gt: _ordered(operator.gt),
    ast.GtE: _ordered(operator.ge),
    ast.In: bounded.contains,
    ast.NotIn: lambda meter, left, right: not bounded.contains(meter, left, right),
    ast.Is: lambda meter, left, right: left is right,
    ast.IsNot: lambda meter, left, right: left is not right,
}
_ARITHMETIC: Mapping[type[ast.operator], Operation] = {
    ast.Add: bounded.add,
    ast.Sub: bounded.arithmetic("subtracted", operator.sub),
    ast.Mult: bounded.multiply,
    ast.Div: bounded.arithmetic("divided", lambda left, right: left / right),
    ast.FloorDiv: bounded.arithmetic("divided", lambda left, right: left // right),
    ast.Mod: bounded.arithmetic("divided", operator.mod),
}
_FUNCTIONS: Mapping[str, Callable[[Meter, Any], Any]] = {
    "abs": bounded.absolute,
    "bool": lambda meter, value: bool(value),
    "float": bounded.real,
    "int": bounded.integer,
    "len": bounded.length,
    "max": bounded.largest,
    "min": bounded.smallest,
    "str": bounded.text,
}
_VARIADIC = frozenset({"max", "min"})


class Builder:
    """Turns one checked syntax tree into a closure, noting what it uses on the way."""

    def __init__(self, source: str, names: frozenset[str]) -> None:
        self._source = source
        self._known = names
        self._depth = 0
        self.used: set[str] = set()
        self.context_fields: set[str] = set()
        self.builds = False
        """Whether evaluation makes new arrays, objects or texts."""

    def build(self, node: ast.expr) -> Run:
        """Raises ExpressionError for whatever is outside the language."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(node, f"this is nested deeper than {MAX_DEPTH} levels")
        run = self._node(node)
        self._depth -= 1
        return run

    def _node(self, node: ast.expr) -> Run:
        match node:
            case ast.Constant():
                return self._constant(node)
            case ast.Name():
                return self._name(node)
            case ast.Attribute(value=ast.Name(id="context")):
                return self._context_field(node, node.attr)
            case ast.Subscript(value=ast.Name(id="context"), slice=ast.Constant(value=str() as key)):
                return self._context_field(node, key)
            case ast.Subscript(slice=ast.Slice() as span):
                return self._slice(node, span)
            case ast.Subscript():
                return self._subscript(node)
            case ast.Compare():
                return self._compare(node)
            case ast.BoolOp():
                return self._bool(node)
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.UnaryOp():
                return self._unary(node)
            case ast.IfExp():
                return self._choice(node)
            case ast.Call():
                return self._call(node)
            case ast.List() | ast.Tuple():
                return self._array(node)
            case ast.Dict():
                return self._object(node)
            case ast.Attribute():
                raise self._error(node, f"only `context` has fields; write ['{node.attr}'] for a part of a value")
            case _:
                raise self._error(node, f"{_described(node)} not part of the expression language")

    def _constant(self, node: ast.Constant) -> Run:
        value = node.value
        if not (value is None or isinstance(value, (str, int, float))):
            raise self._error(node, "constants are strings, numbers, True, False and None")
        if isinstance(value, int) and value.bit_length() > bounded.MAX_BITS:
            raise self._error(node, "this number has too many digits")
        return lambda values, meter: value

    def _name(self, node: ast.Name) -> Run:
        name = node.id
        self._use(node, name)

        def run(values: Mapping[str, Any], meter: Meter) -> Any:
            try:
                return values[name]
            except KeyError:
                raise LookupError(f"'{name}' has no value") from None

        return run

    def _use(self, node: ast.expr, name: str) -> None:
        if name not in self._known:
            if name in _FUNCTIONS:
                raise self._error(node, f"'{name}' is a function; write {name}(...)")
            known = ", ".join(sorted(self._known)) or "none"
            raise self._error(node, f"the name '{name}' is not known here; known are: {known}")
        self.used.add(name)

    def _context_field(self, node: ast.expr, key: str) -> Run:
        self._use(node, CONTEXT)
        if isinstance(node, ast.Attribute) and key.startswith("_"):
            raise self._error(node, f"a context field cannot be called '{key}'")
        self.context_fields.add(key)

        def run(values: Mapping[str, Any], meter: Meter) -> Any:
            context = values.get(CONTEXT)
            if not is_object(context) or key not in context:
                raise LookupError(f"the context has no field '{key}'")
            return context[key]

        return run

    def _slice(self, node: ast.Subscript, span: ast.Slice) -> Run:
        value = self.build(node.value)
        lower, upper, step = self._bound(span.lower), self._bound(span.upper), self._bound(span.step)

        def run(values: Mapping[str, Any], meter: Meter) -> Any:
            bounds = slice(lower(values, meter), upper(values, meter), step(values, meter))
            return bounded.part(meter, value(values, meter), bounds)

        return run

    def _bound(self, node: ast.expr | None) -> Run:
        return self.build(node) if node else _nothing

    def _subscript(self, node: ast.Subscript) -> Run:
        value, key = self.build(node.value), self.build(node.slice)
        return lambda values, meter: bounded.item(value(values, meter), key(values, meter))

    def _compare(self, node: ast.Compare) -> Run:
        for operation, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(operation, (ast.Is, ast.IsNot)) and not _is_none(right):
                raise self._error(right, "`is` compares with None only; use == for other values")
        first = self.build(node.left)
        steps = [
            (_COMPARISONS[type(operation)], self.build(right))
            for operation, right in zip(node.ops, node.comparators, strict=True)
        ]
        if len(steps) == 1:
            apply, second = steps[0]
            return lambda values, meter: apply(meter, first(values, meter), second(values, meter))

        def run(values: Mapping[str, Any], meter: Meter) -> Any:
            left = first(values, meter)
            result: Any = True
            for apply, operand in steps:
                right = operand(values, meter)
                result = apply(meter, left, right)
                if not result:
                    return result
                left = right
            return result

        return run

    def _bool(self, node: ast.BoolOp) -> Run:
        operands = [self.build(value) for value in node.values]
        stops_at = isinstance(node.op, ast.Or)

        def run(values: Mapping[str, Any], meter: Meter) -> Any:
            result: Any = None
            for operand in operands:
                result = operand(values, meter)
                if bool(result) is stops_at:
                    return result
            return result

        return run

    def _arithmetic(self, node: ast.BinOp) -> Run:
        apply = _ARITHMETIC.get(type(node.op))
        if apply is None:
            raise self._error(node, "arithmetic is + - * / // %")
        self.builds = self.builds or isinstance(node.op, (ast.Add, ast.Mult))
        left, right = self.build(node.left), self.build(node.right)
        return lambda values, meter: apply(meter, left(values, meter), right(values, meter))

    def _unary(self, node: ast.UnaryOp) -> Run:
        operand = self.build(node.operand)
        match node.op:
            case ast.Not():
                return lambda values, meter: not operand(values, meter)
            case ast.USub():
                return lambda values, meter: bounded.negative(meter, operand(values, meter))
            case ast.UAdd():
                return lambda values, meter: +bounded.number(operand(values, meter))
            case _:
                raise self._error(node, "`~` is not part of the expression language")

    def _choice(self, node: ast.IfExp) -> Run:
        test, then, otherwise = self.build(node.test), self.build(node.body), self.build(node.orelse)

        def run(values: Mapping[str, Any], meter: Meter) -> Any:
            return then(values, meter) if test(values, meter) else otherwise(values, meter)

        return run

    def _call(self, node: ast.Call) -> Run:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name is None or name not in _FUNCTIONS:
            raise self._error(node, f"the only functions are {', '.join(sorted(_FUNCTIONS))}")
        if node.keywords or not node.args or (len(node.args) > 1 and name not in _VARIADIC):
            raise self._error(node, f"{name}() takes one value{' or several' if name in _VARIADIC else ''}")
        apply = _FUNCTIONS[name]
        arguments = [self.build(argument) for argument in node.args]
        if len(arguments) == 1:
            only = arguments[0]
            return lambda values, meter: apply(meter, only(values, meter))
        return lambda values, meter: apply(meter, [argument(values, meter) for argument in arguments])

    def _array(self, node: ast.List | ast.Tuple) -> Run:
        self.builds = self.builds or bool(node.elts)
        elements = [self.build(element) for element in node.elts]
        if isinstance(node, ast.List):
            return lambda values, meter: [element(values, meter) for element in elements]
        return lambda values, meter: tuple(element(values, meter) for element in elements)

    def _object(self, node: ast.Dict) -> Run:
        self.builds = self.builds or bool(node.keys)
        pairs: list[tuple[Run, Run]] = []
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                raise self._error(node, "`**` is not part of the expression language")
            pairs.append((self.build(key), self.build(value)))
        return lambda values, meter: {
            bounded.object_key(key(values, meter)): value(values, meter) for key, value in pairs
        }

    def _error(self, node: ast.expr, reason: str) -> ExpressionError:
        return error_at(self._source, node, reason)


def _nothing(values: Mapping[str, Any], meter: Meter) -> None:
    return None


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _described(node: ast.expr) -> str:
    match node:
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            return "comprehensions are"
        case ast.JoinedStr():
            return "f-strings are"
        case ast.Lambda():
            return "lambda is"
        case ast.NamedExpr():
            return "`:=` is"
        case ast.Starred():
            return "`*` before a value is"
        case ast.Set():
            return "sets are"
        case _:
            return f"{type(node).__name__.lower()} is"
