"""Resume tokens: whoever has one may answer one action, once. Only the SHA-256 is stored, and looked up by."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

TOKEN_BYTES = 32
MOST_CHARS = 128

NewToken = Callable[[], str]


def new_token() -> str:
    """256 random bits, fit for a URL (but keep it out of them: URLs are logged)."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def token_hash(token: str) -> str | None:
    """What the store knows of a token; None for text that can be none."""
    if not 1 <= len(token) <= MOST_CHARS or not token.isascii():
        return None
    return hashlib.sha256(token.encode()).hexdigest()
