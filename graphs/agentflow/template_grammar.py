"""The grammar of templates: which Jinja nodes are allowed, and where the tree is told to count its work.

Checked on the parsed tree, before Jinja folds constants or writes any code: `{{ 10**(10**8) }}` ends here.
Loops, comparisons and slices, which Jinja runs without asking anyone, are routed through counting filters
whose names no template can write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import isinf
from typing import Any, cast

from jinja2 import nodes

from agentflow import bounded
from agentflow.bounded import Meter
from agentflow.errors import LimitExceeded, TemplateError
from agentflow.template_filters import FILTERS, TESTS, elements

MAX_DEPTH = 50
"""Levels of nesting in one expression."""
MAX_BLOCKS = 20
"""Levels of nested `if` and `for`."""
MAX_LOOP = 10_000
"""Elements that one loop may visit."""

LOOP_FIELDS = frozenset({"first", "index", "index0", "last", "length", "nextitem", "previtem", "revindex", "revindex0"})
_RESERVED = frozenset({"caller", "kwargs", "self", "super", "varargs"})

_LOOPED = "each of"
_WEIGHED = "weight of"
_SLICED = "slice of"
_MEMBER = "member of"


def _looped(meter: Meter, value: Any, cost: int) -> list[Any]:
    items = elements(meter, value)
    if len(items) > MAX_LOOP:
        raise LimitExceeded(f"a loop may visit at most {MAX_LOOP} elements, and this one has {len(items)}")
    meter.spend(len(items) * cost)
    return items


def _weighed(meter: Meter, value: Any) -> Any:
    meter.weigh(value)
    return value


def _sliced(meter: Meter, value: Any) -> Any:
    meter.spend(bounded.length(meter, value) >> 3)
    return value


COUNTING_FILTERS: Mapping[str, Callable[..., Any]] = {
    _LOOPED: _looped,
    _WEIGHED: _weighed,
    _SLICED: _sliced,
    _MEMBER: bounded.contains,
}


class Grammar:
    """Checks one tree and rewrites it in place; `used` are the names that it reads."""

    def __init__(self, names: frozenset[str]) -> None:
        self._known = names
        self._scope: frozenset[str] = frozenset()
        self._in_loop = False
        self._blocks = 0
        self._depth = 0
        self._count = 0
        self.used: set[str] = set()

    def check(self, tree: nodes.Template) -> None:
        """Raises TemplateError for whatever is outside the language."""
        self._statements(tree.body)

    def _statements(self, body: Iterable[nodes.Node]) -> None:
        for node in body:
            self._count += 1
            match node:
                case nodes.Output():
                    node.nodes = [
                        child if isinstance(child, nodes.TemplateData) else self._expression(child)
                        for child in node.nodes
                    ]
                case nodes.If():
                    self._block(node, lambda node=node: self._if(node))
                case nodes.For():
                    self._block(node, lambda node=node: self._for(node))
                case _:
                    raise _refused(node)

    def _block(self, node: nodes.Node, check: Callable[[], None]) -> None:
        self._blocks += 1
        if self._blocks > MAX_BLOCKS:
            raise _error(node, f"blocks are nested deeper than {MAX_BLOCKS} levels")
        check()
        self._blocks -= 1

    def _if(self, node: nodes.If) -> None:
        for branch in (node, *node.elif_):
            branch.test = self._expression(branch.test)
            self._statements(branch.body)
        self._statements(node.else_)

    def _for(self, node: nodes.For) -> None:
        if self._in_loop:
            raise _error(node, "a loop cannot stand inside a loop")
        if node.recursive:
            raise _error(node, "a loop cannot be recursive")
        node.iter = self._expression(node.iter)
        outer, self._scope = self._scope, self._scope | self._targets(node.target)
        before = self._count
        if node.test is not None:
            node.test = self._expression(node.test)
        self._in_loop = True
        self._statements(node.body)
        self._in_loop = False
        self._scope = outer
        node.iter = _counted(_LOOPED, node.iter, nodes.Const(1 + (self._count - before) // 4))
        self._statements(node.else_)

    def _targets(self, target: nodes.Node) -> frozenset[str]:
        names = target.items if isinstance(target, nodes.Tuple) else [target]
        found: set[str] = set()
        for name in names:
            if not isinstance(name, nodes.Name) or name.name == "loop" or name.name in _RESERVED:
                raise _error(target, "a loop variable is a plain name, and not 'loop'")
            found.add(name.name)
        return frozenset(found)

    def _expression(self, node: nodes.Node) -> nodes.Expr:
        """The node, or what takes its place."""
        self._count += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _error(node, f"an expression is nested deeper than {MAX_DEPTH} levels")
        checked = self._checked(node)
        self._depth -= 1
        return checked

    def _checked(self, node: nodes.Node) -> nodes.Expr:
        match node:
            case nodes.Const():
                _check_constant(node)
            case nodes.List() | nodes.Tuple() | nodes.Dict() | nodes.Neg() | nodes.Pos():
                self._literal(node)
            case nodes.Name():
                self._name(node)
            case nodes.Getattr():
                self._attribute(node)
            case nodes.Getitem():
                self._subscript(node)
            case nodes.Filter() | nodes.Test():
                self._call(node)
            case nodes.Compare():
                return self._compare(node)
            case nodes.And() | nodes.Or():
                node.left, node.right = self._expression(node.left), self._expression(node.right)
            case nodes.Not():
                node.node = self._expression(node.node)
            case nodes.CondExpr():
                node.test, node.expr1 = self._expression(node.test), self._expression(node.expr1)
                node.expr2 = self._expression(node.expr2) if node.expr2 is not None else None
            case _:
                raise _refused(node)
        return cast(nodes.Expr, node)

    def _literal(self, node: nodes.Expr) -> None:
        match node:
            case nodes.Const():
                _check_constant(node)
            case nodes.Neg() | nodes.Pos():
                _check_signed(node)
            case nodes.List() | nodes.Tuple():
                for item in node.items:
                    self._nested_literal(item)
            case nodes.Dict():
                for pair in node.items:
                    self._nested_literal(pair.key)
                    self._nested_literal(pair.value)
            case _:
                raise _error(node, "an array or object written in a template holds constants only")

    def _nested_literal(self, node: nodes.Expr) -> None:
        self._count += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _error(node, f"an expression is nested deeper than {MAX_DEPTH} levels")
        self._literal(node)
        self._depth -= 1

    def _name(self, node: nodes.Name) -> None:
        name = node.name
        if name in self._scope:
            return
        if name == "loop" and self._in_loop:
            raise _error(node, "write what you need of the loop: " + ", ".join(sorted(LOOP_FIELDS)))
        if name in _RESERVED:
            raise _error(node, f"the name '{name}' means something else in a template; rename the input")
        if name not in self._known:
            known = ", ".join(sorted(self._known)) or "none"
            raise _error(node, f"the name '{name}' is not known here; known are: {known}")
        self.used.add(name)

    def _attribute(self, node: nodes.Getattr) -> None:
        if node.attr.startswith("_"):
            raise _error(node, f"'.{node.attr}' starts with an underscore; write ['{node.attr}'] for a key")
        if self._in_loop and isinstance(node.node, nodes.Name) and node.node.name == "loop":
            if node.attr not in LOOP_FIELDS:
                raise _error(node, f"loop has no '{node.attr}'; it has: " + ", ".join(sorted(LOOP_FIELDS)))
            return
        node.node = self._expression(node.node)

    def _subscript(self, node: nodes.Getitem) -> None:
        node.node = self._expression(node.node)
        if not isinstance(node.arg, nodes.Slice):
            node.arg = self._expression(node.arg)
            return
        node.node = _counted(_SLICED, node.node)
        span = node.arg
        span.start = self._expression(span.start) if span.start is not None else None
        span.stop = self._expression(span.stop) if span.stop is not None else None
        span.step = self._expression(span.step) if span.step is not None else None

    def _call(self, node: nodes.Filter | nodes.Test) -> None:
        kind, known = ("filter", FILTERS) if isinstance(node, nodes.Filter) else ("test", TESTS)
        if node.name not in known:
            raise _error(node, f"there is no {kind} '{node.name}'; there are: " + ", ".join(known))
        if node.node is None or node.dyn_args is not None or node.dyn_kwargs is not None:
            raise _error(node, f"the {kind} '{node.name}' takes plain arguments only")
        node.node = self._expression(node.node)
        node.args = [self._expression(argument) for argument in node.args]
        for keyword in node.kwargs:
            if not isinstance(keyword, nodes.Keyword):
                raise _refused(keyword)
            keyword.value = self._expression(keyword.value)

    def _compare(self, node: nodes.Compare) -> nodes.Expr:
        node.expr = self._expression(node.expr)
        for operand in node.ops:
            operand.expr = self._expression(operand.expr)
        if any(operand.op in ("in", "notin") for operand in node.ops):
            return self._membership(node)
        if not any(isinstance(operand.expr, nodes.Const) for operand in (node, *node.ops)):
            node.expr = _counted(_WEIGHED, node.expr)
            for operand in node.ops:
                operand.expr = _counted(_WEIGHED, operand.expr)
        return node

    def _membership(self, node: nodes.Compare) -> nodes.Expr:
        if len(node.ops) > 1:
            raise _error(node, "`in` cannot be part of a chain of comparisons")
        member = _counted(_MEMBER, node.expr, node.ops[0].expr)
        return member if node.ops[0].op == "in" else nodes.Not(member, lineno=node.lineno)


def _counted(name: str, node: nodes.Node, *arguments: nodes.Expr) -> nodes.Filter:
    counted = nodes.Filter(node, name, list(arguments), [], None, None)
    counted.set_lineno(node.lineno)
    return counted


def _check_signed(node: nodes.Neg | nodes.Pos) -> None:
    number = node.node
    if not isinstance(number, nodes.Const) or not isinstance(number.value, (int, float)):
        raise _error(node, "a sign can only stand before a number; templates do no arithmetic")
    _check_constant(number)


def _check_constant(node: nodes.Const) -> None:
    if isinstance(node.value, int) and node.value.bit_length() > bounded.MAX_BITS:
        raise _error(node, "a number has too many digits")
    if isinstance(node.value, float) and isinf(node.value):
        raise _error(node, "a number is too large")


_NAMES: Mapping[type[nodes.Node], str] = {
    nodes.Assign: "`set`",
    nodes.AssignBlock: "`set`",
    nodes.Block: "`block`",
    nodes.Call: "calling something",
    nodes.CallBlock: "`call`",
    nodes.Concat: "`~`",
    nodes.Extends: "`extends`",
    nodes.FilterBlock: "a `filter` block",
    nodes.FromImport: "`from`",
    nodes.Import: "`import`",
    nodes.Include: "`include`",
    nodes.Macro: "`macro`",
    nodes.Scope: "`autoescape`",
    nodes.With: "`with`",
}


def _refused(node: nodes.Node) -> TemplateError:
    if isinstance(node, nodes.BinExpr) and not isinstance(node, (nodes.And, nodes.Or)):
        return _error(node, "templates do no arithmetic; compute the value in a node before this one")
    name = _NAMES.get(type(node), f"`{type(node).__name__.lower()}`")
    return _error(node, f"{name} is not part of the template language")


def _error(node: nodes.Node, reason: str) -> TemplateError:
    line = next((found.lineno for found in (node, *node.iter_child_nodes()) if found.lineno), 1)
    return TemplateError(f"the template is wrong at line {line}: {reason}", line=line)
