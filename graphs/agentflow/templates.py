"""Prompt templates: Jinja over a node's inputs, reduced to a language that is safe to take from a flow file.

Allowed are names, attributes, subscripts, slices, constants, comparisons, `and or not`, `if`, one level of
`for` with `loop.*`, and the listed filters and tests; `template_grammar` enforces it. Behind that wall stands
a second one: a sandbox in which every attribute is a key of a JSON object. Values are data: what they contain
is never read as template text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any

import jinja2
from jinja2 import nodes, pass_context
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from agentflow.bounded import MAX_DIGITS, Meter
from agentflow.errors import LimitExceeded, TemplateError, TemplateFailed
from agentflow.expression_source import shortened
from agentflow.template_filters import ACCEPTS_MISSING, FILTERS, TESTS, Missing, lookup
from agentflow.template_grammar import COUNTING_FILTERS, Grammar

MAX_SOURCE = 65_536
"""Characters of one template."""
MAX_TOKENS = 3_000
"""Tokens of one template, as Jinja's lexer counts them: some 400 tags."""
MAX_OUTPUT = 1_048_576
"""Characters of one rendered text."""
MAX_WORK = 300_000
"""Units of work of one rendering (see `bounded`): at most some 40 ms."""

_ALL_FILTERS = {**FILTERS, **COUNTING_FILTERS}
_ODD_ESCAPE = re.compile(r"""\\(?![\\'"abfnrtv0-3\n]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})""")

_DIGITS = re.compile(r"[0-9][0-9_]*+")
_NEWLINE = re.compile(r"\r\n|\r|\n")

_FAULTS = (
    ArithmeticError,
    AttributeError,
    LimitExceeded,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    jinja2.TemplateError,
)


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template; it pickles as its source. `names` are the values that it uses."""

    source: str
    names: frozenset[str]
    known_names: tuple[str, ...] = field(repr=False)
    _program: _Program = field(repr=False, compare=False)

    def render(self, values: Mapping[str, Any]) -> str:
        """The text over `values`. Raises TemplateFailed, which names the line and what is missing there."""
        body = self._program.body()
        context = _RenderContext(body.environment, dict(values), None, {})
        pieces: list[str] = []
        size = 0
        try:
            for piece in body.root_render_func(context):
                size += len(piece)
                if size > MAX_OUTPUT:
                    raise LimitExceeded(f"a rendered text may have at most {MAX_OUTPUT} characters")
                pieces.append(piece)
        except _FAULTS as exc:
            raise _failed(self.source, _line(body, exc.__traceback__), exc) from exc
        return "".join(pieces)

    def __reduce__(self) -> tuple[Any, ...]:
        return compile_template, (self.source, self.known_names)


def compile_template(source: str, names: Collection[str]) -> Template:
    """Check `source`, which may use the values in `names`. Raises TemplateError."""
    tree = _parse(source)
    grammar = Grammar(frozenset(names))
    grammar.check(tree)
    return Template(
        source=source,
        names=frozenset(grammar.used),
        known_names=tuple(sorted(names)),
        _program=_Program(tree),
    )


class _Program:
    """The code that Jinja writes for a checked tree: made at the first rendering, so validation runs none."""

    __slots__ = ("_body", "_tree")

    def __init__(self, tree: nodes.Template) -> None:
        self._tree = tree
        self._body: jinja2.Template | None = None

    def body(self) -> jinja2.Template:
        if self._body is None:
            self._body = _environment().from_string(self._tree)
        return self._body


class _RenderContext(Context):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.meter = Meter(MAX_WORK)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, where attributes and subscripts are lookups in JSON data and nothing can be called."""

    context_class = _RenderContext

    def __init__(self) -> None:
        super().__init__(undefined=Missing, finalize=_finalize, optimized=False, cache_size=0)
        self.globals = {}
        self.filters = {name: _filter(name, apply) for name, apply in _ALL_FILTERS.items()}
        self.tests = dict(TESTS)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, LoopContext):
            return super().getattr(obj, attribute)
        return lookup(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return lookup(obj, argument)

    def is_safe_callable(self, obj: Any) -> bool:
        return False


@cache
def _environment() -> _Sandbox:
    return _Sandbox()


def _filter(name: str, apply: Callable[..., Any]) -> Callable[..., Any]:
    accepts_missing = name in ACCEPTS_MISSING

    @pass_context
    def call(context: _RenderContext, *arguments: Any, **keywords: Any) -> Any:
        if not accepts_missing:
            for argument in arguments:
                if isinstance(argument, Missing):
                    str(argument)
        return apply(context.meter, *arguments, **keywords)

    return call


@pass_context
def _finalize(context: _RenderContext, value: Any) -> Any:
    if not isinstance(value, (str, int, float, Missing)):
        context.meter.weigh(value)
    return value


def _parse(source: str) -> nodes.Template:
    if len(source) > MAX_SOURCE:
        raise TemplateError(f"a template may have at most {MAX_SOURCE} characters, and this one has {len(source)}")
    if any(len(digits[0]) > MAX_DIGITS for digits in _DIGITS.finditer(source)):
        raise TemplateError(f"a template cannot hold a number of more than {MAX_DIGITS} digits")
    environment = _environment()
    try:
        _check_tokens(environment, source)
        return Parser(environment, source).parse()
    except jinja2.TemplateSyntaxError as exc:
        line = exc.lineno
        message = f"the template is wrong at line {line}: {shortened(exc.message or 'invalid syntax')}"
        raise TemplateError(message, line=line) from exc
    except (ValueError, RecursionError, MemoryError) as exc:
        raise TemplateError("the template cannot be read: a part is nested too deeply or too long") from exc


def _check_tokens(environment: _Sandbox, source: str) -> None:
    """Before parsing: it takes a hundred times longer than this, and warns of odd escapes only sometimes."""
    for count, (line, kind, text) in enumerate(environment.lexer.tokeniter(source, None)):
        if count >= MAX_TOKENS:
            raise TemplateError(f"a template may have at most {MAX_TOKENS} tokens", line=line)
        if kind == "string" and _ODD_ESCAPE.search(text):
            reason = "a backslash in a string is written twice"
            raise TemplateError(f"the template is wrong at line {line}: {reason}", line=line)


def _failed(source: str, line: int, exc: BaseException) -> TemplateFailed:
    match exc:
        case RecursionError():
            cause = "a value is nested too deeply"
        case OverflowError():
            cause = "a number is too large"
        case ZeroDivisionError():
            cause = "it divides by zero"
        case _:
            cause = shortened(str(exc)) or type(exc).__name__
    where = f" at line {line} (`{shortened(_NEWLINE.split(source)[line - 1].strip())}`)" if line else ""
    return TemplateFailed(f"the template failed{where}: {cause}", line=line, cause=cause)


def _line(body: jinja2.Template, trace: TracebackType | None) -> int:
    line = 0
    while trace is not None:
        if trace.tb_frame.f_globals.get("__jinja_template__") is body:
            line = body.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return line
