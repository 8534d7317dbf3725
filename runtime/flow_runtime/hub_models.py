"""Models by role, through an LLMHub."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agentflow.ir import Flow, ModelRef
from agentflow.settings import node_settings, roles_of
from flow_runtime.errors import ModelFailed, NodeTimeout
from flow_runtime.models import ModelAnswer
from llmhub_runtime.errors import (
    LLMHubRuntimeError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnknownRoleError,
)

if TYPE_CHECKING:
    from llmhub_runtime.hub import LLMHub
    from llmhub_runtime.models import ResolvedCall, RuntimeConfig

SIM = "sim"
Locate = Callable[[], Awaitable[str]]


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
            call = await self._placed(self._resolve(model, params))
            try:
                return await self._ask(call, messages)
            except ProviderUnavailableError:
                if not self._is_ours(call) or not await self._find_sim():
                    raise
            return await self._ask(await self._placed(call), messages)
        except ProviderTimeoutError as exc:
            raise NodeTimeout(str(exc)) from exc
        except LLMHubRuntimeError as exc:
            raise ModelFailed(str(exc), model=_name(model)) from exc

    async def warm_up(self, roles: Collection[str]) -> None:
        """Make the clients of these roles now, so that the first call does not pay for it."""
        await self._hub.awarm_up([await self._placed(self._resolve(role, {})) for role in roles])

    async def _ask(self, call: ResolvedCall, messages: Sequence[Mapping[str, Any]]) -> ModelAnswer:
        response = await self._hub.acompletion(call, [dict(message) for message in messages])
        choice = response.choices[0]
        usage = response.usage
        return ModelAnswer(
            text=choice.message.content or "",
            finish_reason=choice.finish_reason,
            usage={} if usage is None else {"input": usage.prompt_tokens, "output": usage.completion_tokens},
        )

    def _is_ours(self, call: ResolvedCall) -> bool:
        return call.provider == SIM and self._locate_sim is not None

    async def _placed(self, call: ResolvedCall) -> ResolvedCall:
        """The call with the address of the simulated model, where that is ours to find."""
        if not self._is_ours(call):
            return call
        if self._sim_base is None:
            await self._find_sim()
        return call.model_copy(update={"api_base": self._sim_base})

    async def _find_sim(self) -> bool:
        """Ask where the simulated model is; True when it is somewhere new."""
        assert self._locate_sim is not None
        before, self._sim_base = self._sim_base, await self._locate_sim()
        return self._sim_base != before

    def _resolve(self, model: str | ModelRef, params: Mapping[str, Any]) -> ResolvedCall:
        if isinstance(model, str):
            call = self._hub.resolve(model, params)
        else:
            self._admit(model)
            call = self._hub.ad_hoc(
                provider=model.provider, model=model.name, params=params, api_base=model.endpoint
            )
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


@asynccontextmanager
async def local_models(flow: Flow, hub: LLMHub, *, allow_hosts: Collection[str] = ()) -> AsyncIterator[HubModels]:
    """The models of a flow in one process; a simulated model that has no address yet runs as a child process."""
    if not needs_sim(flow, hub.config):
        yield HubModels(hub, allow_hosts=allow_hosts)
        return
    from llmhub_runtime.sim import SimProcess

    async with SimProcess() as sim:

        async def locate() -> str:
            return sim.openai_base

        yield HubModels(hub, allow_hosts=allow_hosts, locate_sim=locate)


def needs_sim(flow: Flow, config: RuntimeConfig) -> bool:
    """Whether the flow calls the simulated model and nobody says where that is.

    Raises UnknownRoleError for a role that the configuration does not have.
    """
    settings = (node_settings(flow, node).model for node in flow.nodes.values() if node.prompt)
    providers = {model.provider for model in settings if isinstance(model, ModelRef)}
    for role in sorted(roles_of(flow)):
        binding = config.roles.get(role) or config.defaults
        if binding is None:
            known = ", ".join(config.roles) or "none"
            message = f"the llmhub.yaml has no role '{role}' and no defaults; its roles: {known}"
            raise UnknownRoleError(message, role=role, known=tuple(config.roles))
        providers.add(binding.provider)
    own = config.providers.get(SIM)
    return SIM in providers and (own is None or own.api_base is None)
