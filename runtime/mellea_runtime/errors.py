"""What can go wrong between a program and its mellea session.

MelleaRuntimeError (an AgentflowError)
|- MelleaIncompatible             another mellea is installed than the one this code was written for
|- RuntimeSettingsInvalid         a backend, a model id or an environment variable that makes no sense
|- WouldBlockLoop                 a call would wait for an event loop that cannot do its work meanwhile
|- SlotRefused                    the module of a slot is not among those that this server allows
|- SlotNotFound                   no such module, or no such function in it
|- SlotFailed                     a slot raised, or its answer did not parse, `attempts` times
|- AnswerInvalid                  an answer does not fit the `format` that was asked for
|- RequirementsUnmet              an answer still fails its requirements after the last repair
`- ContextNotPortable             a context cannot be written as records, or is no continuation of the other

What the provider does stays llm_client's CallFailed. Every class takes its message first and its facts as optional
keywords, and survives pickling with them.
"""

from __future__ import annotations

from runtime_core.errors import AgentflowError


class MelleaRuntimeError(AgentflowError):
    """Root of the package."""


class MelleaIncompatible(MelleaRuntimeError):
    """`installed` is the version that is there."""

    def __init__(self, message: str, *, installed: str | None = None) -> None:
        super().__init__(message)
        self.installed = installed


class RuntimeSettingsInvalid(MelleaRuntimeError):
    """`setting` names the argument or the environment variable."""

    def __init__(self, message: str, *, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting


class WouldBlockLoop(MelleaRuntimeError):
    """A sync method on the engine's own loop, where its async twin is to be awaited; or that loop does not run."""


class _AboutSlot(MelleaRuntimeError):
    def __init__(self, message: str, *, slot: str | None = None) -> None:
        super().__init__(message)
        self.slot = slot


class SlotRefused(_AboutSlot):
    """`slot` is `module:name`."""


class SlotNotFound(_AboutSlot):
    """`slot` is `module:name`."""


class SlotFailed(MelleaRuntimeError):
    """`attempts` counts the calls that were made of the slot; `invalid` when its arguments or its answer do not fit."""

    def __init__(self, message: str, *, slot: str | None = None, attempts: int = 1, invalid: bool = False) -> None:
        super().__init__(message)
        self.slot = slot
        self.attempts = attempts
        self.invalid = invalid


class AnswerInvalid(MelleaRuntimeError):
    """`answer` is the model's text."""

    def __init__(self, message: str, *, answer: str | None = None) -> None:
        super().__init__(message)
        self.answer = answer


class RequirementsUnmet(MelleaRuntimeError):
    """`failed` are the requirements that the last answer does not fulfil, `attempts` the answers that were made."""

    def __init__(
        self, message: str, *, failed: tuple[str, ...] = (), answer: str | None = None, attempts: int = 1
    ) -> None:
        super().__init__(message)
        self.failed = failed
        self.answer = answer
        self.attempts = attempts


class ContextNotPortable(MelleaRuntimeError):
    """Only computed, linear contexts can be written down."""
