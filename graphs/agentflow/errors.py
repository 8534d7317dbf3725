"""What can go wrong with a flow file, its small languages and the values that pass through them.

    FlowError
    ├── FlowInvalid            the flow was read but has findings                  (findings)
    ├── RequestInvalid         a request lacks fields or has values that do not fit (missing)
    ├── ExpressionError        an expression is not in the language                (source, column)
    ├── ExpressionFailed       an expression met values it cannot work on          (source, cause)
    ├── TemplateError          a template is not in the language                   (line)
    ├── TemplateFailed         a template met values it cannot render              (line, cause)
    ├── PlaceholderError       a `${...}` or a state key can never be filled       (placeholder, where)
    ├── PlaceholderFailed      a `${...}` or a state key has no value now          (placeholder, where)
    ├── CastError              a value cannot become the type of the port          (source, target)
    ├── SchemaInvalid          a JSON Schema is not one that we can check safely   (path)
    ├── SchemaMismatch         a value does not fit its JSON Schema                (problem)
    └── LimitExceeded          a bounded operation would do too much work; callers see it as the cause of
                               an ExpressionFailed, TemplateFailed or PlaceholderFailed

`...Error` and `...Invalid` are the author's to repair and appear before anything runs; `...Failed` and
`...Mismatch` belong to one run. Every class takes its message first and its facts as keywords with
defaults, so that all of them survive a pickle round trip.
"""

from __future__ import annotations

from typing import Any


class FlowError(Exception):
    """Base of everything this package raises. `message` is one sentence for a person."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message


class FlowInvalid(FlowError):
    """`findings` holds everything that validation found; the message is a summary."""

    def __init__(self, message: str = "", *, findings: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.findings = findings


class RequestInvalid(FlowError):
    """`missing` names every required field that the request lacks; it may be empty."""

    def __init__(self, message: str = "", *, missing: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.missing = missing


class ExpressionError(FlowError):
    """`column` is the position in `source`, counted in characters from 1."""

    def __init__(self, message: str = "", *, source: str = "", column: int = 1) -> None:
        super().__init__(message)
        self.source = source
        self.column = column


class ExpressionFailed(FlowError):
    """`cause` is the reason alone, without the source."""

    def __init__(self, message: str = "", *, source: str = "", cause: str = "") -> None:
        super().__init__(message)
        self.source = source
        self.cause = cause


class TemplateError(FlowError):
    """`line` counts from 1 inside the template."""

    def __init__(self, message: str = "", *, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


class TemplateFailed(FlowError):
    """`line` counts from 1 inside the template; 0 means unknown."""

    def __init__(self, message: str = "", *, line: int = 0, cause: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.cause = cause


class PlaceholderError(FlowError):
    """`placeholder` is the text as written, `where` the path inside the arguments."""

    def __init__(self, message: str = "", *, placeholder: str = "", where: str = "") -> None:
        super().__init__(message)
        self.placeholder = placeholder
        self.where = where


class PlaceholderFailed(FlowError):
    """`placeholder` is the text as written, `where` the path inside the arguments."""

    def __init__(self, message: str = "", *, placeholder: str = "", where: str = "") -> None:
        super().__init__(message)
        self.placeholder = placeholder
        self.where = where


class CastError(FlowError):
    """`source` and `target` are port types, "" where a side is untyped."""

    def __init__(self, message: str = "", *, source: str = "", target: str = "") -> None:
        super().__init__(message)
        self.source = source
        self.target = target


class SchemaInvalid(FlowError):
    """`path` is the place inside the schema, such as `properties.name.pattern`."""

    def __init__(self, message: str = "", *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class SchemaMismatch(FlowError):
    """`problem` is the first problem, with its JSON path."""

    def __init__(self, message: str = "", *, problem: str = "") -> None:
        super().__init__(message)
        self.problem = problem


class LimitExceeded(FlowError):
    """A bounded operation refused to go on."""
