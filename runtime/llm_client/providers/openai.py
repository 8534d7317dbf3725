"""One OpenAI model, or one behind any server that speaks OpenAI's API, without a llmhub.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from llm_client.providers.hub import RoleProvider
from llmhub_runtime.hub import LLMHub
from llmhub_runtime.models import LLMMode, ProviderConfig, RoleConfig, RuntimeConfig

ROLE = "default"


class OpenAIProvider(RoleProvider):
    """`model` at OpenAI, or at `api_base`.

    The key is read, with each call, from the environment variable that `env_key` names; a server of your own
    may need none (`env_key=None`). `params` go with every request. The HTTP client lives as long as its event
    loop; `aclose()`, or `async with`, ends it earlier. With `mode="embedding"` it embeds.
    """

    def __init__(
        self,
        model: str,
        *,
        api_base: str | None = None,
        env_key: str | None = "OPENAI_API_KEY",
        params: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        mode: str = "chat",
    ) -> None:
        # any-llm's own openai provider insists on a key; a server without one is merely compatible.
        name = "openai" if env_key else "openai-compatible"
        role = RoleConfig(
            provider=name, model=model, mode=LLMMode(mode), params=dict(params or {}), timeout_s=timeout_s
        )
        config = RuntimeConfig(
            project="llm_client",
            env="direct",
            providers={name: ProviderConfig(env_key=env_key, api_base=api_base)},
            roles={ROLE: role},
        )
        self._own_hub = LLMHub(config_obj=config)
        super().__init__(self._own_hub, ROLE)

    async def aclose(self) -> None:
        await self._own_hub.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
