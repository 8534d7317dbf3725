"""The door from a prompt node to a model: a role, or a model that the flow names itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from agentflow.ir import ModelRef
from flow_runtime.errors import ModelFailed, NodeTimeout
from llmhub_runtime.errors import LLMHubRuntimeError, ProviderTimeoutError, ProviderUnavailableError

if TYPE_CHECKING:
    from llmhub_runtime.hub import LLMHub
    from llmhub_runtime.models import ResolvedCall

SIM = "sim"
Locate = Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What a model said. `usage` counts tokens as the provider reported them, empty when it did not."""

    text: str
    finish_reason: str | None = None
    usage: Mapping[str, int] = field(default_factory=dict[str, int])


class Models(Protocol):
    """Calls a model by role, or one that the flow names. Raises ModelFailed, or NodeTimeout when it was too slow."""

    async def chat(
        self,
        model: str | ModelRef,
        messages: Sequence[Mapping[str, Any]],
        params: Mapping[str, Any],
    ) -> ModelAnswer: ...

    async def aclose(self) -> None: ...


class HubModels:
    """Models behind an LLMHub, which stays its caller's to close.

    `allow_hosts` are the hosts that a flow's own `endpoint` may name. `locate_sim` tells the base URL of the
    simulated model where the configuration gives none; it is asked again when the model stops answering,
    because a restarted one listens elsewhere.
    """

    def __init__(self, hub: LLMHub, *, allow_hosts: Collection[str] = (), locate_sim: Locate | None = None) -> None:
        self._hub = hub
        self._allow_hosts = frozenset(allow_hosts)
        self._locate_sim = locate_sim
        self._sim_base: str | None = None

    async def chat(
        self,
        model: str | ModelRef,
        messages: Sequence[Mapping[str, Any]],
        params: Mapping[str, Any],
    ) -> ModelAnswer:
        try:
            call = self._resolve(model, params)
            if call.provider == SIM and self._locate_sim is not None and self._sim_base is None:
                await self._find_sim()
            try:
                return await self._ask(call, messages)
            except ProviderUnavailableError:
                if call.provider != SIM or not await self._find_sim():
                    raise
            return await self._ask(call, messages)
        except ProviderTimeoutError as exc:
            raise NodeTimeout(str(exc)) from exc
        except LLMHubRuntimeError as exc:
            raise ModelFailed(str(exc), model=_name(model)) from exc

    async def aclose(self) -> None:
        await self._hub.aclose()

    async def _ask(self, call: ResolvedCall, messages: Sequence[Mapping[str, Any]]) -> ModelAnswer:
        response = await self._hub.acompletion(call, [dict(message) for message in messages])
        choice = response.choices[0]
        usage = response.usage
        return ModelAnswer(
            text=choice.message.content or "",
            finish_reason=choice.finish_reason,
            usage={} if usage is None else {"input": usage.prompt_tokens, "output": usage.completion_tokens},
        )

    async def _find_sim(self) -> bool:
        """Ask where the simulated model is; True when it is somewhere new."""
        if self._locate_sim is None:
            return False
        base = await self._locate_sim()
        if base == self._sim_base:
            return False
        self._sim_base = base
        self._hub.set_api_base(SIM, base)
        return True

    def _resolve(self, model: str | ModelRef, params: Mapping[str, Any]) -> ResolvedCall:
        if isinstance(model, str):
            call = self._hub.resolve(model, dict(params))
        else:
            self._admit(model)
            call = self._hub.ad_hoc(model.provider, model.name, dict(params), api_base=model.endpoint)
        if call.provider == SIM:
            headers = {"x-agentflow-role": call.role}
            call = call.model_copy(update={"params": {**call.params, "extra_headers": headers}})
        return call

    def _admit(self, model: ModelRef) -> None:
        if model.endpoint is None:
            return
        parts = urlsplit(model.endpoint)
        if parts.netloc not in self._allow_hosts and parts.hostname not in self._allow_hosts:
            raise ModelFailed(
                f"the flow's endpoint {parts.netloc or model.endpoint} is not allowed here; "
                "list its host under allow_hosts in the serve config",
                model=model.name,
            )


def _name(model: str | ModelRef) -> str:
    return model if isinstance(model, str) else f"{model.provider}/{model.name}"
