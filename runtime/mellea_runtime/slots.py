"""Calling slots: functions under `@generative`, whose answers a model makes in their place.

A slot whose answer does not parse is called again: mellea's own sampling does not see that failure.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any

from mellea import MelleaSession
from mellea.core import ComponentParseError
from mellea.stdlib.components.genstub import GenerativeStub, PreconditionException
from mellea.stdlib.context import SimpleContext
from pydantic import ValidationError

from mellea_runtime.backend import RoleBackend
from mellea_runtime.engine import ChatEngine
from mellea_runtime.errors import SlotFailed, SlotNotFound, SlotRefused
from mellea_runtime.internals import CachedFormatter
from mellea_runtime.scope import call_scope
from runtime_core.errors import AgentflowError

DEFAULT_ATTEMPTS = 2

Slot = Callable[..., Any]


def find_slot(module: str, name: str, *, allowed: Collection[str] | None) -> Slot:
    """The function `name` of an installed module. `allowed` are modules and packages, None is any.

    Nothing is imported before it is known to be allowed. Raises SlotRefused, SlotNotFound.
    """
    label = f"{module}:{name}"
    if allowed is not None and not any(module == each or module.startswith(f"{each}.") for each in allowed):
        raise SlotRefused(f"the module {module} is not among those whose slots may be called here", slot=label)
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as exc:
        raise SlotNotFound(f"there is no slot {label}: {exc}", slot=label) from exc
    if not callable(found):
        raise SlotNotFound(f"{label} is no function", slot=label)
    return found


class SlotCaller:
    """Calls one slot, each time in a session of its own; its template is loaded once."""

    def __init__(self, slot: Slot, *, label: str, attempts: int = DEFAULT_ATTEMPTS) -> None:
        self._slot = slot
        self._label = label
        self._attempts = attempts
        self._formatter = CachedFormatter("")

    async def call(self, engine: ChatEngine, arguments: Mapping[str, Any]) -> Any:
        """What the slot gives back. Raises SlotFailed, and what the engine raises."""
        backend = RoleBackend(engine, formatter=self._formatter, home=asyncio.get_running_loop())
        session = MelleaSession(backend, SimpleContext())
        return await call_slot(self._slot, session, arguments, label=self._label, attempts=self._attempts)


async def call_slot(
    slot: Slot, session: MelleaSession[Any], arguments: Mapping[str, Any], *, label: str, attempts: int
) -> Any:
    """A slot in a session; a function that is no slot is called with its arguments alone.

    A sync one runs in a thread, because it waits for the models. Raises SlotFailed, and what the engine raises.
    """
    number = 0
    while True:
        number += 1
        try:
            async with call_scope():
                return await _called(slot, session, dict(arguments))
        except AgentflowError:
            raise
        except (ValidationError, ComponentParseError) as exc:
            if number < attempts:
                continue
            message = f"the answer to the slot {label} did not parse {number} times: {_first_line(exc)}"
            raise SlotFailed(message, slot=label, attempts=number, invalid=True) from exc
        except PreconditionException as exc:
            raise SlotFailed(f"the slot {label} was not called: {exc}", slot=label, invalid=True) from exc
        except Exception as exc:
            message = f"the slot {label} raised {type(exc).__name__}: {_first_line(exc)}"
            raise SlotFailed(message, slot=label, attempts=number) from exc


async def _called(slot: Slot, session: MelleaSession[Any], arguments: dict[str, Any]) -> Any:
    given: tuple[Any, ...] = (session,) if isinstance(slot, GenerativeStub) else ()
    if inspect.iscoroutinefunction(inspect.unwrap(slot)):
        made: Any = slot(*given, **arguments)
        return await made
    made = await asyncio.to_thread(slot, *given, **arguments)
    return await made if inspect.isawaitable(made) else made


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:500]
