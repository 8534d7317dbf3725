"""Which providers may serve a call: the asked one, then the roles that it falls back to, each once."""

from __future__ import annotations

from collections.abc import Iterator

from llm_client.providers.protocol import Provider, Router


def chain_of(provider: Provider, router: Router) -> list[Provider]:
    """Depth first, in the order of llmhub.yaml. Raises what the router raises for a role that is not there."""
    if not provider.target.fallback:
        return [provider]
    return list(_walk(provider, router, {provider.target.role}))


def _walk(provider: Provider, router: Router, seen: set[str]) -> Iterator[Provider]:
    yield provider
    for role in provider.target.fallback:
        if role not in seen:
            seen.add(role)
            yield from _walk(router.provider(role), router, seen)
