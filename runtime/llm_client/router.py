"""Every role of a llmhub.yaml, as providers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_client.providers.hub import RoleProvider

if TYPE_CHECKING:
    from llmhub_runtime.hub import LLMHub


class HubRouter:
    """A Router over an LLMHub, which stays its owner's to close."""

    def __init__(self, hub: LLMHub) -> None:
        self._hub = hub
        self._providers: dict[str, RoleProvider] = {}

    def provider(self, role: str) -> RoleProvider:
        found = self._providers.get(role)
        if found is None:
            self._hub.resolve(role)
            found = self._providers[role] = RoleProvider(self._hub, role)
        return found
