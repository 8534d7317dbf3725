"""From mellea's model options to the parameters of a request.

Options keep mellea's names or the portable ones of every chat API; a value of None is no option.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mellea.backends import ModelOption

ROLE = "@@@role@@@"
"""Which llmhub role answers this one call."""

_PORTABLE = {
    "max_tokens": ModelOption.MAX_NEW_TOKENS,
    "max_completion_tokens": ModelOption.MAX_NEW_TOKENS,
    "stop": ModelOption.STOP_SEQUENCES,
    "seed": ModelOption.SEED,
    "system": ModelOption.SYSTEM_PROMPT,
    "stream": ModelOption.STREAM,
    "stream_timeout": ModelOption.STREAM_TIMEOUT,
    "tools": ModelOption.TOOLS,
    "reasoning_effort": ModelOption.THINKING,
    "role": ROLE,
}
_SENT_AS = {
    ModelOption.MAX_NEW_TOKENS: "max_tokens",
    ModelOption.STOP_SEQUENCES: "stop",
    ModelOption.SEED: "seed",
}
_WRITERS_ONLY = (
    ModelOption.SYSTEM_PROMPT,
    ModelOption.STOP_SEQUENCES,
    ModelOption.STREAM,
    ModelOption.TOOLS,
    ModelOption.TOOL_CHOICE,
    "response_format",
)
"""What shapes an answer, and would spoil the yes or no of a judge who is handed the same options."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """One call's options. `params` go on the wire; `mellea` is all of them under mellea's names."""

    params: dict[str, Any]
    role: str | None = None
    system: str | None = None
    streams: bool = False
    chunk_timeout_s: float | None = None
    tool_choice: Any = None
    mellea: dict[str, Any] = field(default_factory=dict[str, Any])


def call_options(defaults: Mapping[str, Any], given: Mapping[str, Any] | None, *, judges: bool = False) -> CallOptions:
    """`given` over `defaults`. `judges`: the call asks for a verdict on another answer."""
    options = {**named_options(defaults), **named_options(given or {})}
    if judges:
        options = {name: value for name, value in options.items() if name not in _WRITERS_ONLY}
    params = {_SENT_AS.get(name, name): value for name, value in options.items()}
    thinking = options.get(ModelOption.THINKING)
    if thinking is not None:
        params["reasoning_effort"] = {True: "medium", False: "none"}.get(thinking, thinking)
    tool_choice = params.pop(ModelOption.TOOL_CHOICE, None)
    return CallOptions(
        params={name: value for name, value in params.items() if not name.startswith("@@@")},
        role=options.get(ROLE),
        system=options.get(ModelOption.SYSTEM_PROMPT),
        streams=bool(options.get(ModelOption.STREAM)),
        chunk_timeout_s=options.get(ModelOption.STREAM_TIMEOUT),
        tool_choice=tool_choice,
        mellea=options,
    )


def named_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Under mellea's names; where an option has both, mellea's own counts."""
    named = {_PORTABLE[name]: value for name, value in options.items() if name in _PORTABLE and value is not None}
    return {**named, **{name: value for name, value in options.items() if name not in _PORTABLE and value is not None}}
