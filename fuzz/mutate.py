"""From a seed and a number to an input: the same two always give the same bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

MAX_INPUT = 200_000
"""Bytes of one input: enough for every limit on nesting, and for most on size."""

_WORDS = (
    "{{", "}}", "{%", "%}", "{#", "${", "$${", "&a ", "*a", "!!python/object:os.system ", "<<: ", "--- ", "\t", "\0",
    "\r\n", "[" * 70, "{" * 70, "(" * 60, "9" * 80, "1e999", "NaN", "-1", "2147483648", "__class__", "__globals__",
    "import os", "lambda:", "**", "%2e%2e/", "../", "\\u202e", "\ud83d", "$ref", "#/definitions/a", "(a+)+", "{1,99}",
    "http://127.0.0.1", "@", "::1", "_input", "_output", "context", "true", "null", "''", '"',
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 2**63, 10**70, "", "a", "_input.x", "../x", "{{ x }}", "${x}", "\x00", "é" * 9,
    [], {}, [[]], {"a": {}}, {"$ref": "#"}, ["a"] * 200, "x" * 5_000,
)  # fmt: skip


def mutated(seed: bytes, *, others: Sequence[bytes], choose: random.Random) -> bytes:
    """`seed` after up to four changes, of its bytes or of the tree that it holds as JSON."""
    for _ in range(choose.choice((0, 1, 1, 1, 2, 4))):
        tree = _tree(seed)
        changed = _changed_text(tree, choose) if tree is not None and choose.random() < 0.6 else None
        seed = choose.choice(_BYTES)(seed, others, choose) if changed is None else changed
    return seed[:MAX_INPUT]


def _changed_text(tree: Any, choose: random.Random) -> bytes | None:
    """None for a tree that is deeper by now than JSON's own writer goes."""
    try:
        return json.dumps(_changed_tree(tree, choose)).encode("utf-8", "surrogatepass")
    except RecursionError:
        return None


def _tree(text: bytes) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, (dict, list)) and value else None


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending:
        part = pending.pop()
        keys = list(part) if isinstance(part, dict) else range(len(part))
        found += [(part, key) for key in keys]
        pending += [part[key] for key in keys if isinstance(part[key], (dict, list))]
    return found


def _changed_tree(tree: Any, choose: random.Random) -> Any:
    places = _places(tree)
    part, key = choose.choice(places)
    other, name = choose.choice(places)
    match choose.randrange(7):
        case 0:
            del part[key]
        case 1:
            part[key] = deepcopy(choose.choice(_VALUES))
        case 2:
            part[key] = json.loads(json.dumps(other[name]))
        case 3 if isinstance(part, dict):
            part[choose.choice(_WORDS)] = part.pop(key)
        case 4 if isinstance(part, list):
            part.extend(deepcopy(part[key]) for _ in range(choose.choice((1, 3, 500))))
        case 5 if isinstance(part[key], str):
            text = part[key]
            at = choose.randint(0, len(text))
            part[key] = text[:at] + choose.choice(_WORDS) * choose.choice((1, 1, 2, 300)) + text[at:]
        case _:
            for _ in range(choose.choice((1, 5, 70, 300))):
                part[key] = [part[key]] if choose.random() < 0.5 else {"a": part[key]}
    return tree


def _span(text: bytes, choose: random.Random) -> tuple[int, int]:
    at = choose.randint(0, len(text))
    return at, min(len(text), at + choose.choice((1, 1, 2, 8, 64, 1_000)))


def _cut(text: bytes, others: Sequence[bytes], choose: random.Random) -> bytes:
    at, end = _span(text, choose)
    return text[:at] + text[end:]


def _repeat(text: bytes, others: Sequence[bytes], choose: random.Random) -> bytes:
    at, end = _span(text, choose)
    return text[:at] + text[at:end] * choose.choice((2, 10, 100, 3_000)) + text[end:]


def _insert(text: bytes, others: Sequence[bytes], choose: random.Random) -> bytes:
    at, _ = _span(text, choose)
    word = choose.choice(_WORDS).encode("utf-8", "surrogatepass")
    return text[:at] + word * choose.choice((1, 1, 1, 4, 2_000)) + text[at:]


def _flip(text: bytes, others: Sequence[bytes], choose: random.Random) -> bytes:
    changed = bytearray(text or b"a")
    for _ in range(choose.choice((1, 2, 16))):
        changed[choose.randrange(len(changed))] = choose.randrange(256)
    return bytes(changed)


def _splice(text: bytes, others: Sequence[bytes], choose: random.Random) -> bytes:
    other = choose.choice(others)
    return text[: choose.randint(0, len(text))] + other[choose.randint(0, len(other)) :]


_BYTES: Sequence[Callable[[bytes, Sequence[bytes], random.Random], bytes]] = (_cut, _repeat, _insert, _flip, _splice)
