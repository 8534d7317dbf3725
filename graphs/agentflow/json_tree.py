"""A JSON document as plain data with places. (libyaml reads most JSON, but not `\\ud83d\\ude00` or tabs.)"""

from __future__ import annotations

import re
from json import JSONDecodeError, JSONDecoder
from typing import Any, NoReturn

from agentflow.scalars import NumberError, finite, integer
from agentflow.tree import Tree, TreeBuilder, TreeRejectedError

_SPACE = re.compile(r"[ \t\r\n]+")
_SPACES = frozenset(" \t\r\n")


def read_json(text: str, *, file: str) -> Tree | None:
    """Read one JSON document; None when the text is not JSON. The tree's findings say what is wrong."""
    reader = _Reader(text, TreeBuilder(file))
    try:
        reader.read()
    except TreeRejectedError:
        pass
    except _NotJsonError:
        return None
    return reader.builder.tree()


class _NotJsonError(Exception):
    pass


def _no_constant(name: str) -> NoReturn:
    raise _NotJsonError(name)


_SCALARS = JSONDecoder(parse_int=integer, parse_float=finite, parse_constant=_no_constant)


class _Reader:
    """Recursive descent; the builder's limit on nesting bounds the recursion."""

    def __init__(self, text: str, builder: TreeBuilder) -> None:
        self.text = text
        self.builder = builder
        self.at = 0
        self.line = 0
        self.line_start = 0

    def read(self) -> None:
        self._value()
        if self._next():
            raise _NotJsonError

    def _value(self) -> None:
        match self._next():
            case "{":
                self._members({}, "}")
            case "[":
                self._members([], "]")
            case _:
                self._scalar()

    def _members(self, data: dict[str, Any] | list[Any], closer: str) -> None:
        self.builder.open(data, self.line, self.at - self.line_start)
        self.at += 1
        more = self._next() != closer
        while more:
            if closer == "}":
                self._key()
            self._value()
            separator = self._next()
            more = separator == ","
            if more:
                self.at += 1
            elif separator != closer:
                raise _NotJsonError
        self.at += 1
        self.builder.close()

    def _key(self) -> None:
        if self._next() != '"':
            raise _NotJsonError
        self._scalar()
        if self._next() != ":":
            raise _NotJsonError
        self.at += 1

    def _scalar(self) -> None:
        column = self.at - self.line_start
        try:
            value, self.at = _SCALARS.raw_decode(self.text, self.at)
        except JSONDecodeError as exc:
            raise _NotJsonError from exc
        except NumberError as exc:
            self.builder.reject("bad-number", str(exc), "quote it if it is meant as text", self.line, column)
        self.builder.scalar(value, self.line, column)

    def _next(self) -> str:
        """The next character that is not white space, or nothing at the end."""
        character = self.text[self.at : self.at + 1]
        if character not in _SPACES:
            return character
        match = _SPACE.match(self.text, self.at)
        end = match.end() if match else self.at
        newlines = self.text.count("\n", self.at, end)
        if newlines:
            self.line += newlines
            self.line_start = self.text.rfind("\n", self.at, end) + 1
        self.at = end
        return self.text[end : end + 1]
