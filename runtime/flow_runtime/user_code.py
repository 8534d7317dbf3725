"""Where a flow's text becomes running Python: the one file that calls `exec`.

A sandbox process uses it for sync transforms, the node's own process for async ones. It imports next to
nothing, because a sandbox has to start in milliseconds.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ast

LONGEST_MESSAGE = 2_000

Transform = Callable[[Any, Any, Any], Any]


def filename_of(node_id: str) -> str:
    """The file name under which a node's code appears in tracebacks."""
    return f"<flow:{node_id}>"


def compile_transform(source: str | ast.Module, filename: str) -> CodeType:
    """Raises SyntaxError or ValueError for text that is not Python."""
    return compile(source, filename, "exec", dont_inherit=True)


def define_transform(code: CodeType) -> Transform:
    """Run compiled code in a namespace of its own and take its `transform`.

    Done for every call, so no call finds what another one left in a global. Raises whatever the code raises.
    """
    # the name of a module that exists: dataclasses and typing look theirs up in sys.modules
    namespace: dict[str, Any] = {"__name__": __name__, "__builtins__": builtins}
    exec(code, namespace)
    return _callable(namespace.get("transform"), "the code defines no function transform(inputs, context, state)")


def import_transform(reference: str) -> Transform:
    """The installed function that `pkg.mod:name` stands for. Its module keeps its globals between calls."""
    from importlib import import_module

    module, _, name = reference.partition(":")
    return _callable(getattr(import_module(module), name), f"{reference} is not a function")


def explain(error: BaseException, filename: str) -> tuple[str, str, int | None]:
    """An error's type name, its message, and the last line of the transform's file that it passed through."""
    kind = type(error).__name__
    try:
        message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    except Exception:  # noqa: BLE001 - the message is made by foreign code
        message = "(its message cannot be shown)"
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == filename else None
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == filename:
            line = frame.tb_lineno
        frame = frame.tb_next
    if isinstance(error, SyntaxError):
        message = str(error.msg)
    return kind, message[:LONGEST_MESSAGE], line


def _callable(found: Any, otherwise: str) -> Transform:
    if not callable(found):
        raise TypeError(otherwise)
    return found
