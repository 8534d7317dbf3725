"""From the headers of a request to who is asking."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from agentflow_serve.auth.keys import ApiKey, digest_of, is_key
from agentflow_serve.errors import RETRY_AFTER_S, RequestRefused
from agentflow_serve.request_headers import RawHeaders, values
from runtime_core.clock import Clock
from runtime_core.context import Identity
from runtime_core.errors import StoreError

logger = logging.getLogger(__name__)

KEY_FRESH_S = 5.0
"""How long a key that was found counts before the store is asked again: a revoked one ends no later than that."""
LOOKUP_S = 5.0
CACHED_KEYS = 10_000


class Authenticator(Protocol):
    async def identify(self, headers: RawHeaders) -> Identity:
        """Who sends them. Raises RequestRefused: 401, 403, and 503 where nobody can say now."""
        ...


@dataclass(frozen=True, slots=True)
class _Found:
    key: ApiKey
    asked_at: float


class KeyAuthenticator:
    """Knows callers by their API key, and lets in those that may call `flow`.

    Only keys that count are remembered, for KEY_FRESH_S; one that is unknown, expired or revoked costs a look into the
    store each time, and gets the same answer. Where the store does not answer, nobody new comes in.
    """

    def __init__(self, find: Callable[[str], Awaitable[ApiKey | None]], *, flow: str, clock: Clock) -> None:
        self._find = find
        self._flow = flow
        self._clock = clock
        self._known: OrderedDict[str, _Found] = OrderedDict()

    async def identify(self, headers: RawHeaders) -> Identity:
        given = credential(headers)
        key = await self._key(digest_of(given)) if given is not None else None
        if key is None or not key.counts(self._clock.now().timestamp()):
            raise RequestRefused(
                "This service asks for an API key: send a valid one as `authorization: Bearer KEY`.",
                status=401,
                code="unauthorized",
            )
        if not key.allows(self._flow):
            raise RequestRefused("This API key is not for this flow.", status=403, code="forbidden")
        return key.identity

    async def _key(self, digest: str) -> ApiKey | None:
        asked_at = self._clock.monotonic()
        known = self._known.get(digest)
        if known is not None and asked_at - known.asked_at < KEY_FRESH_S:
            return known.key
        self._known.pop(digest, None)
        try:
            async with asyncio.timeout(LOOKUP_S):
                key = await self._find(digest)
        except (StoreError, TimeoutError) as exc:
            logger.warning("API keys cannot be checked: %s", str(exc) or "the store did not answer in time")
            message = "API keys cannot be checked now; try again."
            raise RequestRefused(message, status=503, code="unavailable", retry_after=RETRY_AFTER_S) from exc
        if key is not None and key.counts(self._clock.now().timestamp()):
            self._known[digest] = _Found(key, asked_at)
            if len(self._known) > CACHED_KEYS:
                self._known.popitem(last=False)
        return key


def credential(headers: RawHeaders) -> str | None:
    """The API key of a request, from `authorization: Bearer` or `x-api-key`; None where there is not exactly one."""
    given = {*values(headers, b"x-api-key")}
    for value in values(headers, b"authorization"):
        scheme, _, rest = value.partition(" ")
        if scheme.lower() == "bearer":
            given.add(rest.strip())
    [key] = given if len(given) == 1 else [""]
    return key if is_key(key) else None
