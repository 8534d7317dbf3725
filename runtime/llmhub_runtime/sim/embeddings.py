"""Embeddings by feature hashing: texts that share words or parts of words point in similar directions.

Every word and every character trigram of a word is hashed to one coordinate and a sign; the sum is
scaled to length one. The same text always gives the same vector, whatever the model is called.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b

DEFAULT_DIMENSIONS = 256
MAX_DIMENSIONS = 8192
_TRIGRAM_WEIGHT = 0.4
_WORD = re.compile(r"\w+")


def embed(text: str, dimensions: int = DEFAULT_DIMENSIONS) -> tuple[float, ...]:
    """A unit vector for `text`. A text without any word gives the first unit vector."""
    vector = [0.0] * dimensions
    for feature, count in Counter(_features(text)).items():
        hashed = int.from_bytes(blake2b(feature.encode(), digest_size=8).digest(), "big")
        weight = math.sqrt(count) * (1.0 if feature[0] == "w" else _TRIGRAM_WEIGHT)
        vector[(hashed >> 1) % dimensions] += weight if hashed & 1 else -weight
    length = math.sqrt(sum(x * x for x in vector))
    if length == 0.0:
        return (1.0, *([0.0] * (dimensions - 1)))
    return tuple(x / length for x in vector)


def _features(text: str) -> Iterator[str]:
    for word in _WORD.findall(text.casefold()):
        yield f"w{word}"
        padded = f"<{word}>"
        for start in range(len(padded) - 2):
            yield f"t{padded[start : start + 3]}"
