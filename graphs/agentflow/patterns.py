"""Regular expressions that come from a flow file: matched in linear time, and priced before they run.

JSON Schema patterns are ECMAScript's; the engine is Rust's `regex`, which never backtracks, through pydantic.
Linear still means text length times pattern size, and `(.{0,200}){0,50}x` is a pattern of 10,000 states, so
the size is computed here. `\\d` and `\\w` mean ASCII, as in ECMAScript. There are no look-around, back
references or inline flags.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from agentflow.bounded import Meter
from agentflow.errors import LimitExceeded, SchemaInvalid
from agentflow.expression_source import shortened

MAX_LENGTH = 500
"""Characters of one pattern."""
MAX_SIZE = 2_000
"""States of one pattern: its parts, counted as often as `{m,n}` repeats them."""
MAX_STEPS = 1_000_000
"""Size times text length of one match: some 50 ms at worst."""

_UNICODE_CLASS = 20
_ASCII = {
    "d": "[0-9]",
    "D": "[^0-9]",
    "w": "[0-9A-Za-z_]",
    "W": "[^0-9A-Za-z_]",
    "s": r"[\t-\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]",
    "S": r"[^\t-\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]",
}
_TOKEN = re.compile(
    r"(?P<escape>\\(?:[pP]\{[^}]*\}|u\{[^}]*\}|.))"
    r"|(?P<class>\[\^?\]?(?:\\.|[^\]\\])*\])"
    r"|(?P<open>\((?:\?:|\?P?<\w+>)?(?!\?))"
    r"|(?P<close>\))"
    r"|(?P<repeat>\{(?P<least>[0-9]+)(?P<to>,(?P<most>[0-9]*))?\})"
    r"|(?P<quantifier>[*+?])"
    r"|(?P<bar>\|)"
    r"|(?P<brace>\{)"
    r"|(?P<plain>[^\\\[({])",
    re.DOTALL,
)
_IN_CLASS = re.compile(r"\\(?:[pP]\{[^}]*\}|.)|[\[&~]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that may match anywhere in a text; `size` is its number of states."""

    source: str
    size: int
    _matches: Callable[[str], bool]

    def found_in(self, text: str, meter: Meter) -> bool:
        """Raises LimitExceeded when the text is too long for this pattern."""
        steps = self.size * (1 + len(text))
        if steps > MAX_STEPS:
            raise LimitExceeded(f"a text of {len(text)} characters is too long for its pattern")
        meter.spend(steps >> 3)
        return self._matches(text)


def compile_pattern(source: str) -> Pattern:
    """Raises SchemaInvalid for what is no pattern, or one that is too large."""
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    if len(source) > MAX_LENGTH:
        raise SchemaInvalid(f"a pattern may have at most {MAX_LENGTH} characters, and this one has {len(source)}")
    translated, size = _Scanner(source).scan()
    try:
        validator = SchemaValidator(core_schema.str_schema(pattern=translated, regex_engine="rust-regex"))
    except SchemaError as exc:
        reason = str(exc).strip().rpartition("error:")[2].strip() or "it cannot be read"
        raise SchemaInvalid(f"the pattern {source!r} is wrong: {shortened(reason)}") from exc
    return Pattern(source, size, validator.isinstance_python)


class _Scanner:
    """Translates to the engine's syntax and adds up the states."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._sizes = [0]
        self._last = 0

    def scan(self) -> tuple[str, int]:
        at, translated = 0, ""
        while at < len(self._source):
            token = _TOKEN.match(self._source, at)
            if token is None:
                self._fail("look-around, inline flags and unclosed brackets are not supported")
            translated += self._take(token)
            at = token.end()
        return translated, max(sum(self._sizes), 1)

    def _take(self, token: re.Match[str]) -> str:
        text = token[0]
        match token.lastgroup:
            case "escape":
                self._atom(_UNICODE_CLASS if text[1] in "pP" else 1)
                return _ASCII.get(text[1:], text)
            case "class":
                self._atom(1 + _UNICODE_CLASS * text.count("\\p") + _UNICODE_CLASS * text.count("\\P"))
                return "[" + _IN_CLASS.sub(_in_class, text[1:-1]) + "]"
            case "open":
                self._sizes.append(1)
            case "close":
                if len(self._sizes) == 1:
                    self._fail("a closing parenthesis has no opening one")
                self._atom(self._sizes.pop())
            case "repeat" | "most" | "to" | "least":
                self._repeat(int(token["most"] or token["least"]))
            case "brace":
                self._atom(1)
                return r"\{"
            case "plain":
                self._atom(1)
            case _:
                pass
        return text

    def _atom(self, size: int) -> None:
        self._last = size
        self._grow(size)

    def _repeat(self, times: int) -> None:
        extra = self._last * (max(times, 1) - 1)
        self._last += extra
        self._grow(extra)

    def _grow(self, size: int) -> None:
        self._sizes[-1] += size
        if self._sizes[-1] > MAX_SIZE:
            self._fail(f"with its repetitions it has more than {MAX_SIZE} parts")

    def _fail(self, reason: str) -> NoReturn:
        raise SchemaInvalid(f"the pattern {shortened(repr(self._source))} is wrong: {reason}")


def _in_class(token: re.Match[str]) -> str:
    """In ECMAScript `[`, `&` and `~` mean themselves inside a class."""
    text = token[0]
    return _ASCII.get(text[1:], text) if text[0] == "\\" else "\\" + text
