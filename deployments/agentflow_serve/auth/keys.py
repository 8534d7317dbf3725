"""API keys: what one looks like, what is kept of it, and when it counts.

The key itself is shown once and kept nowhere; its SHA-256 is what a store has and is asked for. A key is 256 random
bits, so that its hash needs neither salt nor stretching, and looking a hash up tells no one how near a guess was.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cached_property
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from runtime_core.context import CallerId, Identity, ScopeId
from runtime_core.ids import check_name

PREFIX = "afk_"
"""What scanners for leaked secrets may look for."""
KEY_BYTES = 32
_FORM = re.compile(PREFIX + r"[A-Za-z0-9_-]{43}")


class ApiKey(BaseModel):
    """What is known of a key, apart from the key. Times in seconds since the epoch.

    `flows` are the only flows that it may call, by name; none named are all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_id: Annotated[str, AfterValidator(check_name)]
    scope_id: ScopeId
    principal_id: CallerId
    name: CallerId | None = None
    flows: tuple[CallerId, ...] = ()
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None

    def counts(self, now: float) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def allows(self, flow: str) -> bool:
        return not self.flows or flow in self.flows

    @cached_property
    def identity(self) -> Identity:
        return Identity(scope_id=self.scope_id, principal_id=self.principal_id)


def key_text(random: bytes) -> str:
    """The key that these KEY_BYTES random bytes make."""
    if len(random) != KEY_BYTES:
        raise ValueError(f"a key is made of {KEY_BYTES} random bytes")
    return PREFIX + base64.urlsafe_b64encode(random).decode().rstrip("=")


def is_key(text: str) -> bool:
    """Whether it has the form of a key; the form is public."""
    return _FORM.fullmatch(text) is not None


def digest_of(key: str) -> str:
    """What a store keeps of a key."""
    return hashlib.sha256(key.encode()).hexdigest()
