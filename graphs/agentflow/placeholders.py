"""`${...}` in the arguments of an operation (IR.md Q24, Q26), and the names of state buckets (`state_keys`).

A string that is one placeholder takes the value with its type; a placeholder among other text becomes
Python's `str()` of it; `$${` stands for `${`. A path goes down by key, then by position. Keys of objects
are never touched, and what a value contains is never read again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from agentflow import bounded
from agentflow.bounded import Meter
from agentflow.errors import LimitExceeded, PlaceholderError, PlaceholderFailed
from agentflow.expression_source import shortened
from agentflow.state_keys import StateKey, compile_state_key
from agentflow.types import is_array, is_object, kind_of

__all__ = ["Args", "Placeholder", "StateKey", "compile_args", "compile_state_key"]

MAX_DEPTH = 64
"""Levels of nesting in the arguments of one operation."""
MAX_WORK = 200_000
"""Units of work of one resolution (see `bounded`)."""
CONTEXT = "context"

_TOKEN = re.compile(r"\$\$\{|\$\{([^{}]*)(\}?)")
_PATH = re.compile(r"[A-Za-z_][\w-]*(?:\.[\w-]+)*")
_POSITION = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One `${...}`: the steps of its path, the argument where it stands, and whether it is all of it."""

    path: tuple[str, ...]
    where: str
    whole: bool

    @property
    def text(self) -> str:
        return "${" + ".".join(self.path) + "}"

    def resolve(self, values: Mapping[str, Any], meter: Meter) -> Any:
        value: Any = values
        for index, step in enumerate(self.path):
            if is_object(value) and step in value:
                value = value[step]
            elif is_array(value) and _POSITION.fullmatch(step) and int(step) < len(value):
                value = value[int(step)]
            else:
                self._fail(index, value)
        return value

    def _fail(self, index: int, value: Any) -> NoReturn:
        if index == 0:
            reason = f"'{self.path[0]}' has no value"
        else:
            parent = ".".join(self.path[:index])
            reason = f"'{parent}' is {kind_of(value)} without '{self.path[index]}'"
        raise PlaceholderFailed(
            f"{self.text} in {self.where} cannot be filled: {reason}", placeholder=self.text, where=self.where
        )


class _Part(Protocol):
    def resolve(self, values: Mapping[str, Any], meter: Meter) -> Any: ...


@dataclass(frozen=True, slots=True)
class _Constant:
    value: str | int | float | bool | None

    def resolve(self, values: Mapping[str, Any], meter: Meter) -> Any:
        return self.value


@dataclass(frozen=True, slots=True)
class _Text:
    pieces: tuple[str | Placeholder, ...]
    where: str

    def resolve(self, values: Mapping[str, Any], meter: Meter) -> str:
        texts = [piece if isinstance(piece, str) else self._text(piece, values, meter) for piece in self.pieces]
        size = sum(map(len, texts))
        if size > bounded.MAX_TEXT:
            message = f"the text in {self.where} is longer than {bounded.MAX_TEXT} characters when it is filled"
            raise PlaceholderFailed(message, where=self.where)
        return "".join(texts)

    def _text(self, piece: Placeholder, values: Mapping[str, Any], meter: Meter) -> str:
        value = piece.resolve(values, meter)
        try:
            return bounded.text(meter, value)
        except (LimitExceeded, ValueError, RecursionError) as exc:
            message = f"{piece.text} in {self.where} cannot become text: {shortened(str(exc))}"
            raise PlaceholderFailed(message, placeholder=piece.text, where=self.where) from exc


@dataclass(frozen=True, slots=True)
class _Array:
    items: tuple[_Part, ...]

    def resolve(self, values: Mapping[str, Any], meter: Meter) -> list[Any]:
        return [item.resolve(values, meter) for item in self.items]


@dataclass(frozen=True, slots=True)
class _Object:
    fields: tuple[tuple[Any, _Part], ...]

    def resolve(self, values: Mapping[str, Any], meter: Meter) -> dict[Any, Any]:
        return {key: part.resolve(values, meter) for key, part in self.fields}


@dataclass(frozen=True, slots=True)
class Args:
    """Compiled arguments. `names` are the values that they use, `placeholders` every `${...}` in order."""

    placeholders: tuple[Placeholder, ...]
    _root: _Part = field(repr=False)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(placeholder.path[0] for placeholder in self.placeholders)

    @property
    def context_fields(self) -> frozenset[str]:
        return frozenset(entry.path[1] for entry in self.placeholders if entry.path[0] == CONTEXT)

    def resolve(self, values: Mapping[str, Any]) -> Any:
        """The arguments with every placeholder filled from `values`; `values["context"]` is a mapping.

        Arrays and objects of the arguments themselves are new in every call; values are passed as they are.
        Raises PlaceholderFailed.
        """
        return self._root.resolve(values, Meter(MAX_WORK))

    def last_name(self, where: str) -> str | None:
        """The last name of the placeholder that is the whole argument at `where`: `id` for `${shopper.id}`.

        None when that argument is anything else.
        """
        whole = (entry.path[-1] for entry in self.placeholders if entry.whole and entry.where == where)
        return next(whole, None)


def compile_args(value: Any, names: Collection[str]) -> Args:
    """Compile the arguments of an operation, which may use the values in `names` (`context` among them).

    Raises PlaceholderError for a placeholder that can never be filled.
    """
    compiler = _Compiler(frozenset(names))
    root = compiler.compile(value, ())
    return Args(placeholders=tuple(compiler.found), _root=root)


Where = tuple[str | int, ...]


class _Compiler:
    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self.found: list[Placeholder] = []

    def compile(self, value: Any, steps: Where) -> _Part:
        where = _shown(steps)
        if len(steps) > MAX_DEPTH:
            raise PlaceholderError(f"the arguments are nested deeper than {MAX_DEPTH} levels", where=where)
        if isinstance(value, str):
            return self._string(value, where)
        if is_object(value):
            return _Object(tuple((key, self.compile(item, (*steps, str(key)))) for key, item in value.items()))
        if is_array(value):
            return _Array(tuple(self.compile(item, (*steps, index)) for index, item in enumerate(value)))
        if value is None or isinstance(value, (int, float)):
            return _Constant(value)
        raise PlaceholderError(f"{where} is {kind_of(value)}, which is not JSON", where=where)

    def _string(self, text: str, where: str) -> _Part:
        token = _TOKEN.fullmatch(text)
        if token and token[0] != "$${":
            return self._placeholder(token, where, whole=True)
        pieces = [piece for piece in self._pieces(text, where) if piece != ""]
        if all(isinstance(piece, str) for piece in pieces):
            return _Constant("".join(str(piece) for piece in pieces))
        return _Text(tuple(pieces), where)

    def _pieces(self, text: str, where: str) -> Iterable[str | Placeholder]:
        end = 0
        for token in _TOKEN.finditer(text):
            yield text[end : token.start()]
            yield "${" if token[0] == "$${" else self._placeholder(token, where, whole=False)
            end = token.end()
        yield text[end:]

    def _placeholder(self, token: re.Match[str], where: str, *, whole: bool) -> Placeholder:
        path = token[1].strip()
        steps = tuple(path.split("."))
        if not token[2]:
            reason = "it is not closed; write $${ for a plain ${"
        elif not _PATH.fullmatch(path):
            reason = "a placeholder is a name, or names joined by dots"
        elif steps[0] not in self._names:
            reason = f"'{steps[0]}' is not known here; known are: {', '.join(sorted(self._names)) or 'none'}"
        elif steps == (CONTEXT,):
            reason = "write ${context.field} for a field of the request"
        else:
            placeholder = Placeholder(steps, where, whole)
            self.found.append(placeholder)
            return placeholder
        written = shortened(token[0])
        raise PlaceholderError(f"{written} in {where} is wrong: {reason}", placeholder=written, where=where)


def _shown(where: Where) -> str:
    text = ""
    for step in where:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text or "args"
