"""From the text of an expression to Python's syntax tree, without its parser's surprises.

Size and nesting are limited before parsing; what the parser would only warn about is refused, so that the
answer does not depend on the process's warning filters or Python version.
"""

from __future__ import annotations

import ast
import re

from agentflow.errors import ExpressionError

MAX_SOURCE = 2_000
"""Characters of one expression."""
MAX_DEPTH = 50
"""Levels of nesting in one expression."""

_STRING = re.compile(r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+\"""", re.DOTALL)
_BAD_ESCAPE = re.compile(r"""\\(?!["'\\nrt]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})""")
_LINE_END = re.compile(r"\r\n?|\n")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NUMBER = r"(?:[0-9][0-9_]*+(?:\.[0-9_]*+)?+|\.[0-9][0-9_]*+)(?:[eE][+-]?[0-9][0-9_]*+)?+"
_GLUED_NUMBER = re.compile(rf"(?<!\w){_NUMBER}(?=[^\W\d])")


def parse(source: str) -> ast.expr:
    """Raises ExpressionError."""
    if not source.strip():
        raise ExpressionError("an expression cannot be empty", source=source)
    if len(source) > MAX_SOURCE:
        message = f"an expression may have at most {MAX_SOURCE} characters, and this one has {len(source)}"
        raise ExpressionError(message, source=source)
    _refuse_odd_text(source)
    text = source.lstrip()
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError as exc:
        column = _line_begin(source, exc.lineno or 1) + exc.offset if exc.offset else len(source) + 1
        reason = (exc.msg or "invalid syntax").partition(" (")[0]
        raise error(source, column, f"this is not an expression ({reason})") from exc
    except (ValueError, RecursionError, MemoryError) as exc:
        raise error(source, 1, "this cannot be read as an expression") from exc


def error_at(source: str, node: ast.expr, reason: str) -> ExpressionError:
    """The error that points at a node which `parse` found in `source`."""
    begin = _line_begin(source, node.lineno)
    characters = len(source[begin:].encode()[: node.col_offset].decode(errors="ignore"))
    return error(source, begin + characters + 1, reason)


def error(source: str, column: int, reason: str) -> ExpressionError:
    message = f"the expression `{shortened(source)}` is wrong at column {column}: {reason}"
    return ExpressionError(message, source=source, column=column)


def shortened(text: str) -> str:
    """One line of at most 200 characters, for a message."""
    line = "".join(character if character.isprintable() else " " for character in text[:201])
    return line if len(line) <= 200 else line[:197] + "..."


def _refuse_odd_text(source: str) -> None:
    if control := _CONTROL.search(source):
        raise error(source, control.start() + 1, "there is a control character here")
    if escape := _BAD_ESCAPE.search(source):
        raise error(source, escape.start() + 1, "a backslash is followed by one of \\ ' \" n r t xHH uHHHH")
    code = _STRING.sub(lambda text: "'" + " " * (len(text[0]) - 2) + "'", source)
    if glued := _GLUED_NUMBER.search(code):
        raise error(source, glued.end() + 1, "a number runs into a word; numbers are plain decimals")
    depth = 0
    for position, character in enumerate(code):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        if depth > MAX_DEPTH:
            raise error(source, position + 1, f"this is nested deeper than {MAX_DEPTH} levels")


def _line_begin(source: str, line: int) -> int:
    """Characters before a line of the parsed text, which starts behind the leading space; a lone CR ends one too."""
    leading = len(source) - len(source.lstrip())
    return [leading, *(end.end() for end in _LINE_END.finditer(source, leading))][line - 1]
