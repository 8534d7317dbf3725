"""Models by role, through an LLMHub."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from agentflow.feature_use import embedders_of
from agentflow.ir import Flow, ModelRef, Node
from agentflow.settings import models_of, roles_of
from agentflow.subflows import all_nodes
from flow_runtime.errors import ModelFailed, NodeTimeout
from flow_runtime.models import ModelAnswer
from flow_runtime.operations.hosts import AllowedHost, normal_host
from llmhub_runtime.errors import (
    LLMHubRuntimeError,
    ProviderRateLimitError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnknownRoleError,
)
from llmhub_runtime.models import SIM

if TYPE_CHECKING:
    from llmhub_runtime.hub import LLMHub
    from llmhub_runtime.models import ResolvedCall, RuntimeConfig
    from llmhub_runtime.sim import SimProcess

RETRY_AFTER_S = 1.0
"""What a caller is told when a provider limits its rate and does not say for how long."""
DEFAULT_PORT = {"http": 80, "https": 443}
Locate = Callable[[], Awaitable[str]]
Answer = TypeVar("Answer")


class HubModels:
    """Models behind an LLMHub, which stays its caller's to close.

    `allow_hosts` are the hosts that a flow's own `endpoint` may name: `host:port`, or `host` for the ports 80
    and 443; anything else is a ValueError. `locate_sim` tells the base URL of the simulated model where the
    configuration gives none; it is asked again when the model stops answering, because a restarted one listens
    elsewhere.
    """

    def __init__(self, hub: LLMHub, *, allow_hosts: Collection[str] = (), locate_sim: Locate | None = None) -> None:
        self._hub = hub
        self._allow_hosts = tuple(AllowedHost.parse(text) for text in allow_hosts)
        self._locate_sim = locate_sim
        self._sim_base: str | None = None

    async def chat(
        self,
        model: str | ModelRef,
        messages: Sequence[Mapping[str, Any]],
        params: Mapping[str, Any],
    ) -> ModelAnswer:
        with _translated(_name(model)):
            return await self._reach(self._resolve(model, params), lambda call: self._ask(call, messages))

    async def embed(self, role: str, texts: Sequence[str]) -> list[list[float]]:
        with _translated(role):
            answer = await self._reach(self._resolve(role, {}), lambda call: self._hub.aembedding(call, list(texts)))
            return [list(entry.embedding) for entry in sorted(answer.data, key=lambda entry: entry.index)]

    async def warm_up(self, roles: Collection[str]) -> None:
        """Make the clients of these roles now, so that the first call does not pay for it."""
        calls = [self._resolve(role, {}) for role in roles]
        await self._hub.awarm_up([_at(call, await self._sim()) if self._is_ours(call) else call for call in calls])

    async def _ask(self, call: ResolvedCall, messages: Sequence[Mapping[str, Any]]) -> ModelAnswer:
        response = await self._hub.acompletion(call, [dict(message) for message in messages])
        choice = response.choices[0]
        usage = response.usage
        return ModelAnswer(
            text=choice.message.content or "",
            finish_reason=choice.finish_reason,
            usage={} if usage is None else {"input": usage.prompt_tokens, "output": usage.completion_tokens},
        )

    async def _reach(self, call: ResolvedCall, ask: Callable[[ResolvedCall], Awaitable[Answer]]) -> Answer:
        """Ask; the simulated model, whose address is ours to find, once more if it is somewhere else by now."""
        if not self._is_ours(call):
            return await ask(call)
        base = await self._sim()
        try:
            return await ask(_at(call, base))
        except ProviderUnavailableError:
            self._sim_base = None
            if (found := await self._sim()) == base:
                raise
            return await ask(_at(call, found))

    def _is_ours(self, call: ResolvedCall) -> bool:
        """Whether the call goes to the simulated model, and where that is, is ours to find."""
        return call.provider == SIM and call.api_base is None and self._locate_sim is not None

    async def _sim(self) -> str:
        assert self._locate_sim is not None
        if self._sim_base is None:
            self._sim_base = await self._locate_sim()
        return self._sim_base

    def _resolve(self, model: str | ModelRef, params: Mapping[str, Any]) -> ResolvedCall:
        if isinstance(model, str):
            call = self._hub.resolve(model, params)
        else:
            call = self._hub.ad_hoc(provider=model.provider, model=model.name, params=params, api_base=model.endpoint)
            self._admit(call)
        if call.provider == SIM:
            headers = {"x-agentflow-role": call.role}
            call = call.model_copy(update={"params": {**call.params, "extra_headers": headers}})
        return call

    def _admit(self, call: ResolvedCall) -> None:
        """A flow's own model: its endpoint, if it names one, must be among the allowed hosts."""
        if call.api_base is None:
            return
        parts = urlsplit(call.api_base)
        host = normal_host(parts.hostname or "")
        port = DEFAULT_PORT[parts.scheme] if parts.port is None else parts.port
        if not any(entry.names(host, port) for entry in self._allow_hosts):
            raise ModelFailed(
                f"the flow's endpoint {call.api_base} is not allowed here; "
                f"if flows may call it, add {AllowedHost(host, port)} to allow_hosts in the serve config",
                model=call.role,
            )


@contextmanager
def _translated(model: str) -> Iterator[None]:
    try:
        yield
    except ProviderTimeoutError as exc:
        raise NodeTimeout(str(exc)) from exc
    except ProviderRateLimitError as exc:
        retry_after = RETRY_AFTER_S if exc.retry_after is None else exc.retry_after
        raise ModelFailed(str(exc), model=model, retry_after=retry_after) from exc
    except LLMHubRuntimeError as exc:
        raise ModelFailed(str(exc), model=model) from exc


def _at(call: ResolvedCall, base: str) -> ResolvedCall:
    return call.model_copy(update={"api_base": base})


def _name(model: str | ModelRef) -> str:
    return model if isinstance(model, str) else f"{model.provider}/{model.name}"


@asynccontextmanager
async def local_models(
    flow: Flow, hub: LLMHub, *, allow_hosts: Collection[str] = (), embedder: str | None = None
) -> AsyncIterator[HubModels]:
    """The models of a flow in one process, ready to be called: the first call does not pay for imports and clients.

    `embedder` is the role that embeds the text queries of operations that name none. A simulated model that has no
    address yet runs as a child process. Raises LLMHubRuntimeError for a role that is not there or cannot be called.
    """
    async with AsyncExitStack() as stack:
        locate = None
        if needs_sim(flow, hub.config, embedder):
            from llmhub_runtime.sim import SimProcess

            locate = _locator(await stack.enter_async_context(SimProcess()))
        models = HubModels(hub, allow_hosts=allow_hosts, locate_sim=locate)
        await models.warm_up(sorted(called_roles(flow, embedder)))
        yield models


def _locator(sim: SimProcess) -> Locate:
    async def locate() -> str:
        return sim.openai_base

    return locate


def called_roles(flow: Flow, embedder: str | None = None) -> frozenset[str]:
    """The roles that a flow's prompts and vector searches may call."""
    return roles_of(flow) | embedders_of(flow.nodes.values(), embedder)


def calls_models(nodes: Collection[Node], embedder: str | None = None) -> bool:
    """Whether a prompt or a vector search among these nodes may call a model."""
    return any(node.prompt for node in all_nodes(nodes)) or bool(embedders_of(nodes, embedder))


def needs_sim(flow: Flow, config: RuntimeConfig, embedder: str | None = None) -> bool:
    """Whether the flow calls the simulated model and nobody says where that is. Raises UnknownRoleError."""
    own = config.providers.get(SIM)
    return SIM in providers_of(flow, config, embedder) and (own is None or own.api_base is None)


def providers_of(flow: Flow, config: RuntimeConfig, embedder: str | None = None) -> frozenset[str]:
    """The providers that the flow calls at their configured addresses.

    Raises UnknownRoleError for a role that the configuration does not have.
    """
    providers = {model.provider for model in models_of(flow) if model.endpoint is None}
    for role in sorted(called_roles(flow, embedder)):
        binding = config.roles.get(role) or config.defaults
        if binding is None:
            known = ", ".join(config.roles) or "none"
            message = f"the llmhub.yaml has no role '{role}' and no defaults; its roles: {known}"
            raise UnknownRoleError(message, role=role, known=tuple(config.roles))
        providers.add(binding.provider)
    return frozenset(config.serving(provider) for provider in providers)
