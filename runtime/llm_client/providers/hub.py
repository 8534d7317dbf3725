"""A role of llmhub.yaml as a provider."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from llm_client.providers.answers import StreamReader, read_completion, read_embeddings
from llm_client.providers.protocol import Delta, Price, Target
from llm_client.results import CompletionResult, EmbeddingResult
from llm_client.spec import EmbeddingSpec, RequestSpec
from llmhub_runtime.errors import ProviderCallError
from llmhub_runtime.names import SIM

if TYPE_CHECKING:
    from llmhub_runtime.hub import LLMHub
    from llmhub_runtime.models import ResolvedCall, RoleConfig, RuntimeConfig

ATTEMPT_HEADER = "x-attempt-id"
ROLE_HEADER = "x-agentflow-role"
"""Tells the simulated model which of its rules is meant."""
SIM_PRICE = Price(input=Decimal("0.10"), output=Decimal("0.40"))
"""What the simulated model costs where its role says nothing else, so that costs and budgets can be tried."""


class RoleProvider:
    """Calls one role through an LLMHub, which stays its owner's to close.

    `role` is a role's name, or a ResolvedCall for a model without one (see `LLMHub.ad_hoc`). Raises
    UnknownRoleError and UnknownProviderError when the role is looked up: at `target` or with a call.
    """

    def __init__(self, hub: LLMHub, role: str | ResolvedCall) -> None:
        self._hub = hub
        self._role = role
        self._seen: RuntimeConfig | None = None

    @property
    def target(self) -> Target:
        if self._hub.config is not self._seen:
            self._look_up()
        return self._target

    @property
    def call(self) -> ResolvedCall:
        """What the role is under the hub's configuration of now."""
        return self._look_up()

    async def complete(self, request: RequestSpec, *, attempt_id: str) -> CompletionResult:
        call = self._look_up()
        headers = self._headers(call, attempt_id)
        response = await self._hub.acompletion(call, request.messages, _chat_params(request), headers=headers)
        return read_completion(response, call, request, attempt_id)

    async def stream(self, request: RequestSpec, *, attempt_id: str) -> AsyncGenerator[Delta | CompletionResult]:
        call = self._look_up()
        headers = self._headers(call, attempt_id)
        reader = StreamReader(call, request, attempt_id)
        chunks = self._hub.astream_completion(call, request.messages, _chat_params(request), headers=headers)
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    for delta in reader.read(chunk):
                        yield delta
        except ProviderCallError as exc:
            exc.usage = exc.usage or reader.usage
            raise
        yield reader.result()

    async def embed(self, request: EmbeddingSpec, *, attempt_id: str) -> EmbeddingResult:
        call = self._look_up()
        headers = self._headers(call, attempt_id)
        response = await self._hub.aembedding(call, list(request.inputs), request.params, headers=headers)
        return read_embeddings(response, call, request, attempt_id)

    async def warm_up(self) -> None:
        await self._hub.awarm_up([self._look_up()])

    def _look_up(self) -> ResolvedCall:
        config = self._hub.config
        if config is not self._seen:  # an address was set since, or this is the first time
            self._call = self._hub.resolve(self._role) if isinstance(self._role, str) else self._role
            binding = config.roles.get(self._call.role) or (config.defaults if isinstance(self._role, str) else None)
            self._target = _target(self._call, binding)
            self._seen = config
        return self._call

    def _headers(self, call: ResolvedCall, attempt_id: str) -> dict[str, str]:
        if call.provider == SIM:
            return {ATTEMPT_HEADER: attempt_id, ROLE_HEADER: call.role}
        return {ATTEMPT_HEADER: attempt_id}


def _chat_params(request: RequestSpec) -> dict[str, Any]:
    params: dict[str, Any] = dict(request.params)
    if request.tools:
        params["tools"] = list(request.tools)
        if request.tool_choice is not None:
            params["tool_choice"] = request.tool_choice
    return params


def _target(call: ResolvedCall, binding: RoleConfig | None) -> Target:
    # A role's own price, limits and fallbacks do not apply to another model under its name.
    same = binding is not None and (binding.provider, binding.model) == (call.provider, call.model)
    usual = SIM_PRICE if call.provider == SIM else None
    if binding is None or not same:
        return Target(call.role, call.provider, call.model, params=call.params, price=usual, timeout_s=call.timeout_s)
    limits, price = binding.limits, binding.price
    return Target(
        role=call.role,
        provider=call.provider,
        model=call.model,
        params=call.params,
        price=usual if price is None else Price(input=price.input, output=price.output),
        fallback=binding.fallback,
        timeout_s=call.timeout_s,
        concurrency=limits.concurrency if limits else None,
        requests_per_minute=limits.requests_per_minute if limits else None,
        tokens_per_minute=limits.tokens_per_minute if limits else None,
    )
