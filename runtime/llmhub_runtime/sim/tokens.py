"""How the simulated model counts tokens: four UTF-8 bytes are one token, rounded up.

The rule is simple on purpose, so that a test can predict every number the server reports.
Only the texts of messages and answers count; tool definitions and schemas are free.
"""

from __future__ import annotations

from collections.abc import Iterable

BYTES_PER_TOKEN = 4


def tokens_of_bytes(size: int) -> int:
    return -(-size // BYTES_PER_TOKEN)


def count_tokens(text: str) -> int:
    return tokens_of_bytes(len(text.encode()))


def count_prompt(texts: Iterable[str]) -> int:
    """Tokens of a whole prompt: counted over all texts together, and at least one."""
    return max(1, tokens_of_bytes(sum(len(text.encode()) for text in texts)))


def cut_to_tokens(text: str, limit: int) -> str:
    """The longest prefix of `text` that counts at most `limit` tokens."""
    return text.encode()[: limit * BYTES_PER_TOKEN].decode(errors="ignore")
