"""`LLMHub`: model calls by role name.

A call resolves its role, finds its client, and hands any-llm's answer through untouched. What this layer adds
is what a caller should not have to think about: reused clients, one tree of errors, a time limit, answers
that are checked to be answers, and hooks. It never retries; `fallback` and `limits` of a role are applied by
llm_client.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from runtime_core.clock import Clock, SystemClock

from .background import BackgroundLoop
from .classify import translated
from .clients import ClientPool, load_any_llm, loaded_any_llm
from .config_loader import first_problem, load_runtime_config, with_api_base
from .endpoints import check_keys, endpoint_of
from .errors import ConfigError, HubClosedError, UnmeteredCallError
from .hooks import AfterHook, BeforeHook, Hooks, ObservedCall
from .models import LLMMode, ResolvedCall, RuntimeConfig
from .names import SERVED_FLOW
from .resolver import check_mode, merge_params, resolve_role
from .streams import StreamTally, TimeBudget, Translate, read_stream
from .wire import (
    chat_arguments,
    check_chat_answer,
    check_embedding_answer,
    embedding_arguments,
    time_limit,
    with_headers,
)

if TYPE_CHECKING:
    from any_llm import AnyLLM

log = logging.getLogger(__name__)

Messages = Sequence[Mapping[str, Any]]
Params = Mapping[str, Any]
Headers = Mapping[str, str]

_END = object()


class LLMHub:
    """Calls models by role. Exactly one of `config_path` and `config_obj` is given.

    `strict_env` checks at once that every provider's `env_key` is set. The hooks are described in `hooks`.
    `api_bases` (provider id -> URL) overrides or supplements the configured addresses, for servers whose
    address is known only when they start, such as the simulated model. `fast_messages=False` takes every
    message through the openai SDK's own conversion, which costs CPU and changes nothing on the wire.
    `behind_engine` says that an llm_client engine makes the calls: in the processes of a served flow (where the
    environment variable AGENTFLOW_SERVED_FLOW names its app) every other hub refuses them with UnmeteredCallError.

    One hub may be used from any number of threads and event loops; the sync methods share one private event
    loop in a thread. Close it with `close()`, `await aclose()`, or as a context manager.

    Every calling method takes a role name, or a `ResolvedCall` for a model without one (see `ad_hoc`). It
    raises ProviderCallError and its kinds for what the provider does, and LLMHubRuntimeError for the rest.
    """

    def __init__(
        self,
        config_path: str | os.PathLike[str] | None = None,
        config_obj: RuntimeConfig | None = None,
        strict_env: bool = False,
        on_before_call: BeforeHook | None = None,
        on_after_call: AfterHook | None = None,
        *,
        api_bases: Mapping[str, str] | None = None,
        fast_messages: bool = True,
        clock: Clock | None = None,
        behind_engine: bool = False,
    ) -> None:
        if (config_path is None) == (config_obj is None):
            raise ConfigError("LLMHub needs exactly one of config_path and config_obj.")
        self._config = config_obj or load_runtime_config(config_path or "")
        for provider, base in (api_bases or {}).items():
            self.set_api_base(provider, base)
        if strict_env:
            check_keys(self._config, os.environ)
        self._clock = clock or SystemClock()
        self._hooks = Hooks(on_before_call, on_after_call, self._clock)
        self._fast_messages = fast_messages
        self._served_flow = None if behind_engine else os.environ.get(SERVED_FLOW)
        self._clients = ClientPool()
        self._background = BackgroundLoop("llmhub-sync")
        self._warned_roles: set[str] = set()

    @property
    def config(self) -> RuntimeConfig:
        """The configuration in force, with the addresses that were set later."""
        return self._config

    def set_api_base(self, provider: str, base: str) -> None:
        """The address of a provider from now on. Raises ConfigError when `base` is no http(s) URL."""
        self._config = with_api_base(self._config, provider, base)

    def role_names(self) -> tuple[str, ...]:
        """The configured roles, in the order of the file."""
        return tuple(self._config.roles)

    def resolve(self, role: str, params_override: Params | None = None) -> ResolvedCall:
        """What a call of `role` would use. Raises UnknownRoleError, UnknownProviderError."""
        return resolve_role(self._config, role, params_override)

    def ad_hoc(
        self,
        *,
        provider: str,
        model: str,
        params: Params | None = None,
        api_base: str | None = None,
        timeout_s: float | None = None,
    ) -> ResolvedCall:
        """A chat call of a model without a role, to be given to a calling method in place of one.

        The provider must be under `providers` or known to any-llm. `api_base` must have been checked by the
        caller; with another origin than the provider's own it gets no key. Raises ConfigError when a value is
        not usable.
        """
        try:
            return ResolvedCall(
                role=f"{provider}/{model}",
                provider=self._config.serving(provider) if api_base is None else provider,
                model=model,
                mode=LLMMode.CHAT,
                params=dict(params or {}),
                api_base=api_base,
                timeout_s=timeout_s,
            )
        except ValidationError as exc:
            key, sentence = first_problem(exc)
            raise ConfigError(f"The model '{provider}/{model}' cannot be called: {key} {sentence}.", key=key) from exc

    async def acompletion(
        self,
        role: str | ResolvedCall,
        messages: Messages,
        params_override: Params | None = None,
        *,
        headers: Headers | None = None,
    ) -> Any:
        """any-llm's ChatCompletion for a role of mode `chat` or `tool`.

        `headers` go with the request, under those of the parameter `extra_headers`, to every provider whose SDK
        can carry them (see `wire.with_headers`).
        """
        call = self._call(role, params_override, LLMMode.CHAT)
        async with ObservedCall(self._hooks, call, messages=messages) as observed:
            client, translate = await self._client(call)
            arguments = with_headers(self._chat_arguments(call, client, messages), client, headers)
            with translate():
                response = await TimeBudget(time_limit(call)).wait_for(client.acompletion(**arguments))
            check_chat_answer(response, call)
            observed.response = response
            return response

    async def aembedding(
        self,
        role: str | ResolvedCall,
        input: str | Sequence[str],
        params_override: Params | None = None,
        *,
        headers: Headers | None = None,
    ) -> Any:
        """any-llm's CreateEmbeddingResponse for a role of mode `embedding`: one vector for each input."""
        call = self._call(role, params_override, LLMMode.EMBEDDING)
        async with ObservedCall(self._hooks, call, inputs=input) as observed:
            client, translate = await self._client(call)
            arguments = with_headers(embedding_arguments(call, client, input), client, headers)
            with translate():
                response = await TimeBudget(time_limit(call)).wait_for(client.aembedding(**arguments))
            check_embedding_answer(response, call, input)
            observed.response = response
            return response

    def astream_completion(
        self,
        role: str | ResolvedCall,
        messages: Messages,
        params_override: Params | None = None,
        *,
        headers: Headers | None = None,
    ) -> AsyncGenerator[Any]:
        """any-llm's chunks as they come, for `async for`. The request starts with the first one.

        The last chunks carry the finish reason and the token counts; an answer that ends without a finish
        reason is a ProviderMalformedError. A time limit counts the waiting for the provider, not the
        consumer's own time. Stopping early closes the upstream: at once with `contextlib.aclosing`, else when
        the loop collects it.
        """
        return self._stream(self._call(role, params_override, LLMMode.CHAT), messages, headers)

    def completion(self, role: str | ResolvedCall, messages: Messages, params_override: Params | None = None) -> Any:
        """`acompletion` from synchronous code; an event loop that runs in this thread waits meanwhile."""
        return self._background.run(self.acompletion(role, messages, params_override))

    def embedding(
        self, role: str | ResolvedCall, input: str | Sequence[str], params_override: Params | None = None
    ) -> Any:
        """`aembedding` from synchronous code."""
        return self._background.run(self.aembedding(role, input, params_override))

    def stream_completion(
        self, role: str | ResolvedCall, messages: Messages, params_override: Params | None = None
    ) -> Generator[Any]:
        """`astream_completion` from synchronous code. Leaving the loop early closes the upstream."""
        return self._read_from_thread(self.astream_completion(role, messages, params_override))

    async def awarm_up(self, roles: Iterable[str | ResolvedCall]) -> None:
        """Makes these roles' clients on the running loop, so that the first call does not pay for it."""
        for role in roles:
            await self._client(self.resolve(role) if isinstance(role, str) else role)

    async def aclose(self) -> None:
        """Ends the sync calls in flight and closes every client. May be called again."""
        self._background.refuse_own_thread()
        if self._background.is_running:
            await asyncio.to_thread(self._background.close)
        self._background.close()
        await self._clients.aclose()

    def close(self) -> None:
        """The same from synchronous code. Raises LLMHubRuntimeError on a running loop that has clients."""
        self._background.refuse_own_thread()
        self._clients.check_closable_here()
        self._background.close()
        self._clients.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _call(self, target: str | ResolvedCall, override: Params | None, wanted: LLMMode) -> ResolvedCall:
        if self._served_flow is not None:
            raise UnmeteredCallError(
                f"The code of the served flow '{self._served_flow}' calls an LLMHub directly, past its limits, budgets "
                "and call log; give the node a prompt, or put a prompt node before it.",
                flow=self._served_flow,
            )
        if isinstance(target, ResolvedCall):
            call = target
            if override:
                params = merge_params(target.params, override, mode=target.mode, role=target.role)
                call = target.model_copy(update={"params": params})
        else:
            call = self.resolve(target, override)
            if call.used_default and call.role not in self._warned_roles:
                self._warned_roles.add(call.role)
                log.warning(
                    "Role '%s' is not configured; defaults serve it with %s/%s.",
                    call.role,
                    call.provider,
                    call.model,
                )
        check_mode(call, wanted)
        return call

    async def _client(self, call: ResolvedCall) -> tuple[AnyLLM, Translate]:
        with translated(call, now=self._clock.now):
            any_llm = loaded_any_llm() or await load_any_llm()
            endpoint = endpoint_of(call, self._config, any_llm=any_llm, environ=os.environ)
            client = await self._clients.get(endpoint, any_llm)
        return client, partial(translated, call, now=self._clock.now, endpoint=endpoint)

    def _chat_arguments(
        self, call: ResolvedCall, client: AnyLLM, messages: Messages, *, stream: bool = False
    ) -> dict[str, Any]:
        return chat_arguments(call, client, messages, stream=stream, fast_messages=self._fast_messages)

    async def _stream(self, call: ResolvedCall, messages: Messages, headers: Headers | None) -> AsyncGenerator[Any]:
        tally = StreamTally()
        async with ObservedCall(self._hooks, call, messages=messages, tally=tally):
            client, translate = await self._client(call)
            arguments = with_headers(self._chat_arguments(call, client, messages, stream=True), client, headers)
            opening = partial(client.acompletion, **arguments)
            budget = TimeBudget(time_limit(call))
            chunks = read_stream(opening, call=call, budget=budget, tally=tally, translate=translate)
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk

    def _read_from_thread(self, chunks: AsyncGenerator[Any]) -> Generator[Any]:
        try:
            while (chunk := self._background.run(_next(chunks))) is not _END:
                yield chunk
        finally:
            if self._background.is_current:
                self._background.run_later(_close(chunks))
            else:
                with suppress(HubClosedError):
                    self._background.run(_close(chunks))


async def _next(chunks: AsyncGenerator[Any]) -> Any:
    return await anext(chunks, _END)


async def _close(chunks: AsyncGenerator[Any]) -> None:
    await chunks.aclose()
