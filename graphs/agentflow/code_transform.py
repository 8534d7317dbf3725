"""What can be said about a code transform by parsing it; nothing is ever run (IR.md rule 7, Q43, Q44)."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from typing import Literal

MAX_SOURCE_CHARS = 64 * 1024
ENTRY_POINT = "transform"
FILENAME = "<flow code>"
PARAMETERS = ("inputs", "context", "state")

CodeKind = Literal["sync", "async"]
Definition = ast.FunctionDef | ast.AsyncFunctionDef


class CodeError(ValueError):
    """The source is no transform; the message is a sentence for its author."""


def find_transform(source: str) -> Definition:
    """The top-level `transform` of a source. Raises CodeError when there is none that can be called."""
    found: Definition | None = None
    for statement in _parse(source).body:
        if isinstance(statement, Definition) and statement.name == ENTRY_POINT:
            found = statement
    if found is None:
        raise CodeError(f"the code defines no {ENTRY_POINT}({', '.join(PARAMETERS)}) at its top level")
    if not _takes_three(found.args):
        message = f"line {found.lineno} of the code: {ENTRY_POINT} must take ({', '.join(PARAMETERS)})"
        raise CodeError(message)
    return found


def code_kind(source: str) -> CodeKind:
    """How a transform runs: on the event loop (`async`), or in a sandbox process (`sync`).

    A plain `def` whose body awaits is meant to be async and counts as such. Raises CodeError.
    """
    found = find_transform(source)
    if isinstance(found, ast.AsyncFunctionDef) or any(map(_awaits, _own_nodes(found))):
        return "async"
    return "sync"


def _parse(source: str) -> ast.Module:
    if len(source) > MAX_SOURCE_CHARS:
        raise CodeError(f"the code has {len(source):,} characters; {MAX_SOURCE_CHARS:,} are allowed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source, FILENAME)
    except SyntaxError as exc:
        raise CodeError(f"line {exc.lineno or 1} of the code: {exc.msg}") from exc
    except (ValueError, RecursionError, MemoryError) as exc:
        raise CodeError("the code cannot be parsed: it is nested too deeply or holds null bytes") from exc


def _takes_three(args: ast.arguments) -> bool:
    """Whether a call with three positional arguments fits."""
    positional = len(args.posonlyargs) + len(args.args)
    required = positional - len(args.defaults)
    enough = positional >= len(PARAMETERS) or args.vararg is not None
    return enough and required <= len(PARAMETERS) and all(args.kw_defaults)


def _awaits(node: ast.AST) -> bool:
    match node:
        case ast.Await() | ast.AsyncFor() | ast.AsyncWith():
            return True
        case ast.comprehension():
            return bool(node.is_async)
        case _:
            return False


def _own_nodes(function: Definition) -> Iterator[ast.AST]:
    """The nodes of a function's body, without those of functions and classes defined in it."""
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        yield node
        pending.extend(ast.iter_child_nodes(node))
