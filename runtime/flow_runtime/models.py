"""The door from a prompt node to a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from agentflow.ir import ModelRef

if TYPE_CHECKING:
    from flow_runtime.budgets import RunAccounts
    from llm_client.results import ToolCall


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What a model said. `usage` counts tokens as the provider reported them, empty when it did not.

    `tool_calls` are what it wants called before it goes on; there are none without tools.
    """

    text: str
    finish_reason: str | None = None
    usage: Mapping[str, int] = field(default_factory=dict[str, int])
    tool_calls: tuple[ToolCall, ...] = ()


class Models(Protocol):
    """Calls a model by role, or one that the flow names. Raises ModelFailed, or NodeTimeout when it was too slow."""

    async def chat(
        self,
        model: str | ModelRef,
        messages: Sequence[Mapping[str, Any]],
        params: Mapping[str, Any],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> ModelAnswer:
        """`messages` and `tools` are in OpenAI's form."""
        ...

    async def embed(self, role: str, texts: Sequence[str]) -> list[list[float]]:
        """One vector for each text, by a role for embeddings."""
        ...


@runtime_checkable
class NamesJudge(Protocol):
    """Models that know which role judges answers; None is each prompt's own."""

    @property
    def judge(self) -> str | None: ...


@runtime_checkable
class KeepsAccounts(Protocol):
    """Models whose calls are in a ledger, where runs have budgets."""

    @property
    def runs(self) -> RunAccounts: ...


def accounts_of(models: Models | None) -> RunAccounts | None:
    """Where the calls of these models are counted, if anywhere."""
    return models.runs if isinstance(models, KeepsAccounts) else None


def name_of(model: str | ModelRef) -> str:
    """What a model is called in messages and scripts: its role, or `provider/name`."""
    return model if isinstance(model, str) else f"{model.provider}/{model.name}"
