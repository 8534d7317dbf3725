"""The calls of older generated code, on the session of the run that is going on (adapter document, shims)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pydantic import BaseModel

from mellea_runtime.errors import RuntimeSettingsInvalid
from mellea_runtime.runtime import MelleaRuntime
from mellea_runtime.settings import OWN_BACKENDS, ROLE_BACKEND

_current: ContextVar[MelleaRuntime | None] = ContextVar("mellea_runtime_current", default=None)


@contextmanager
def active(runtime: MelleaRuntime) -> Iterator[MelleaRuntime]:
    """Within the block `run_program` and `invoke_model` use this runtime."""
    token = _current.set(runtime)
    try:
        yield runtime
    finally:
        _current.reset(token)


def run_program(program_id: str, **kwargs: Any) -> dict[str, Any]:
    """Calls a program's main slot; what is no object comes as `{"result": value}`.

    `program_id` is a name among the runtime's `programs`, or `module:slot`. Deprecated: use
    `MelleaRuntime.execute_slot`. Raises RuntimeSettingsInvalid, and what that raises.
    """
    _deprecated("run_program", "MelleaRuntime.execute_slot")
    with _runtime() as runtime:
        module, _, slot = runtime.programs.get(program_id, program_id).partition(":")
        if not slot:
            message = f"there is no program '{program_id}'; name it under programs, or write module:slot"
            raise RuntimeSettingsInvalid(message, setting="program_id")
        result = runtime.execute_slot(module, slot, **kwargs)
    if isinstance(result, BaseModel):
        return result.model_dump(mode="json")
    return result if isinstance(result, dict) else {"result": result}


def invoke_model(model_id: str, prompt: str, **kwargs: Any) -> str:
    """One message to a model, as a turn of the run's conversation.

    `model_id` is a name among the runtime's `models`, a role where the runtime has an engine, or `backend/model`.
    Deprecated: use `MelleaRuntime.chat`. Raises what that raises.
    """
    _deprecated("invoke_model", "MelleaRuntime.chat")
    with _runtime() as runtime:
        wanted = runtime.models.get(model_id, model_id)
        backend, _, model = wanted.partition("/")
        before = runtime.settings
        if model and backend in OWN_BACKENDS:
            runtime.switch_model(model, backend=backend)
        elif before.backend == ROLE_BACKEND:
            return runtime.chat(prompt, role=wanted, **kwargs)
        else:
            runtime.switch_model(wanted)
        try:
            return runtime.chat(prompt, **kwargs)
        finally:
            runtime.switch_model(before.model_id, backend=before.backend)


@contextmanager
def _runtime() -> Iterator[MelleaRuntime]:
    """The run's own, or one of the environment's for this call alone."""
    if (runtime := _current.get()) is not None:
        yield runtime
    else:
        with MelleaRuntime() as own:
            yield own


def _deprecated(name: str, instead: str) -> None:
    warnings.warn(f"{name} is deprecated; use {instead}", DeprecationWarning, stacklevel=3)
