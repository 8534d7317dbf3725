"""Code transforms: a node's own Python (IR.md Q43, Q44).

An `async` transform runs on the event loop, with the node's state, and cannot be stopped while it blocks.
A sync one runs in a sandbox process, without state, and is killed at its timeout. Either way each call of
inline code has fresh globals and copies of its inputs, so that nothing passes from one request to the next;
code that wants to keep something, such as a client, belongs in an installed module (`module: pkg.mod:func`).
"""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

from agentflow.code_transform import ENTRY_POINT, CodeError, code_kind
from agentflow.ir import Code
from flow_runtime.code_mode import CodeMode
from flow_runtime.context import FlowContext, copy_json
from flow_runtime.errors import CodeFailed, CodeRefused, CodeTimeout
from flow_runtime.sandbox import Sandbox, code_failed
from flow_runtime.user_code import (
    Transform,
    compile_transform,
    define_transform,
    explain,
    filename_of,
    import_transform,
)


class CodeTransform(Protocol):
    """A node's transform, ready to be called. Use as an async context manager."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def call(self, inputs: Mapping[str, Any], context: FlowContext, state: Any, *, timeout_s: float) -> Any:
        """What `transform(inputs, context, state)` returns.

        Raises CodeFailed, or CodeTimeout after `timeout_s` seconds.
        """
        ...


def bind_code(code: Code, node_id: str, *, mode: CodeMode = "inline", size: int | None = None) -> CodeTransform:
    """A node's code as a transform; `size` is the most calls of a sync one at a time.

    Raises CodeRefused when `mode` does not allow it, CodeFailed when it is no transform.
    """
    admit(code, node_id, mode)
    load = load_transform(code, node_id)
    if load is None:
        return _Sandboxed(Sandbox(code=code, node_id=node_id, size=size))
    return _OnTheLoop(load, filename_of(node_id))


def load_transform(code: Code, node_id: str) -> Callable[[], Transform] | None:
    """What gives the async transform for one call, or None for a sync one. Raises CodeFailed.

    Inline code is compiled here and first run by a call; a module is imported here.
    """
    if code.module is not None:
        transform = _imported(code.module, node_id)
        return (lambda: transform) if _is_async(transform) else None
    source = code.spec or ""
    try:
        if code_kind(source) == "sync":
            return None
        compiled = compile_transform(_promoted(source), filename_of(node_id))
    except CodeError as exc:
        raise CodeFailed(f"the code of node '{node_id}' is no transform: {exc}") from exc
    except SyntaxError as exc:
        message = f"the code of node '{node_id}' does not compile: {exc.msg} at line {exc.lineno}"
        raise CodeFailed(message, error="SyntaxError", line=exc.lineno) from exc
    return lambda: define_transform(compiled)


class _OnTheLoop:
    """An async transform; it runs in the process of its node."""

    def __init__(self, load: Callable[[], Transform], filename: str) -> None:
        self._load = load
        self._filename = filename

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None

    async def call(self, inputs: Mapping[str, Any], context: FlowContext, state: Any, *, timeout_s: float) -> Any:
        bound = asyncio.timeout(timeout_s)
        try:
            async with bound:
                copies = {name: copy_json(value) for name, value in inputs.items()}
                result = self._load()(copies, FlowContext(context.to_dict()), state)
                return await result if inspect.isawaitable(result) else result
        except (Exception, SystemExit) as exc:
            if isinstance(exc, TimeoutError) and bound.expired():
                message = f"the transform was stopped after {timeout_s:g} s"
                raise CodeTimeout(message, timeout_s=timeout_s) from exc
            raise code_failed(*explain(exc, self._filename)) from exc


class _Sandboxed:
    """A sync transform; it runs in a process of its own."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def __aenter__(self) -> Self:
        await self._sandbox.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._sandbox.aclose()

    async def call(self, inputs: Mapping[str, Any], context: FlowContext, state: Any, *, timeout_s: float) -> Any:
        return await self._sandbox.call(inputs, context.to_dict(), timeout_s=timeout_s)


def admit(code: Code, node_id: str, mode: CodeMode) -> None:
    """Raises CodeRefused when a server in this mode does not run that code."""
    if mode == "off":
        message = f"node '{node_id}' has code, and this server runs none; set code: inline or code: modules"
        raise CodeRefused(message, mode=mode)
    if mode == "modules" and code.module is None:
        raise CodeRefused(
            f"node '{node_id}' carries its code in the flow, and this server runs installed modules only; "
            "install it and name it with module: pkg.mod:func, or set code: inline",
            mode=mode,
        )


def _imported(reference: str, node_id: str) -> Transform:
    try:
        return import_transform(reference)
    except Exception as exc:
        kind, message, _ = explain(exc, "")
        text = f"module '{reference}' of node '{node_id}' could not be loaded: {kind}: {message}"
        raise CodeFailed(text, error=kind) from exc


def _is_async(transform: Transform) -> bool:
    return inspect.iscoroutinefunction(transform) or inspect.iscoroutinefunction(type(transform).__call__)


def _promoted(source: str) -> ast.Module:
    """The source with every top-level `def transform` made `async def`: this one awaits (Q44)."""
    tree = ast.parse(source)
    for index, statement in enumerate(tree.body):
        if isinstance(statement, ast.FunctionDef) and statement.name == ENTRY_POINT:
            promoted = ast.AsyncFunctionDef(**dict(ast.iter_fields(statement)))
            tree.body[index] = ast.copy_location(promoted, statement)
    return tree
