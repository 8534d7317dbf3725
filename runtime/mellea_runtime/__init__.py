"""Mellea sessions over the one engine that every model call passes.

    runtime = MelleaRuntime(engine=engine, role="llm.writer")
    summary = runtime.instruct("Summarise the report.", requirements=["one sentence"], context={"report": report})

Importing this package imports none of its modules, and not mellea; a name loads the module that it comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentflow.lazy import lazy_exports

if TYPE_CHECKING:
    from mellea_runtime.backend import RoleBackend
    from mellea_runtime.conversation import Checkpoint
    from mellea_runtime.errors import (
        AnswerInvalid,
        ContextNotPortable,
        MelleaIncompatible,
        MelleaRuntimeError,
        RequirementsUnmet,
        RuntimeSettingsInvalid,
        SlotFailed,
        SlotNotFound,
        SlotRefused,
        WouldBlockLoop,
    )
    from mellea_runtime.internals import CachedFormatter, SharedThunk
    from mellea_runtime.node_logger import NodeLogger
    from mellea_runtime.options import ROLE
    from mellea_runtime.records import delta, freeze, merge, thaw
    from mellea_runtime.requirements import Check
    from mellea_runtime.runtime import MelleaRuntime
    from mellea_runtime.shims import active, invoke_model, run_program

_HOMES = {
    "backend": ("RoleBackend",),
    "conversation": ("Checkpoint",),
    "errors": (
        "AnswerInvalid",
        "ContextNotPortable",
        "MelleaIncompatible",
        "MelleaRuntimeError",
        "RequirementsUnmet",
        "RuntimeSettingsInvalid",
        "SlotFailed",
        "SlotNotFound",
        "SlotRefused",
        "WouldBlockLoop",
    ),
    "internals": ("CachedFormatter", "SharedThunk"),
    "node_logger": ("NodeLogger",),
    "options": ("ROLE",),
    "records": ("delta", "freeze", "merge", "thaw"),
    "requirements": ("Check",),
    "runtime": ("MelleaRuntime",),
    "shims": ("active", "invoke_model", "run_program"),
}

__all__ = [
    "ROLE",
    "AnswerInvalid",
    "CachedFormatter",
    "Check",
    "Checkpoint",
    "ContextNotPortable",
    "MelleaIncompatible",
    "MelleaRuntime",
    "MelleaRuntimeError",
    "NodeLogger",
    "RequirementsUnmet",
    "RoleBackend",
    "RuntimeSettingsInvalid",
    "SharedThunk",
    "SlotFailed",
    "SlotNotFound",
    "SlotRefused",
    "WouldBlockLoop",
    "active",
    "delta",
    "freeze",
    "invoke_model",
    "merge",
    "run_program",
    "thaw",
]

__getattr__ = lazy_exports(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
