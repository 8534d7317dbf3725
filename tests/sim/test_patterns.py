"""Texts built from regular expressions, checked by running the expression."""

from __future__ import annotations

import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmhub_runtime.sim.patterns import text_matching

COMMON = [
    r"^[A-Z]{3}-\d{4,}$",
    r"^(draft|final)$",
    r"^\+?[1-9]\d{1,14}$",
    r"^[a-z0-9]+(?:-[a-z0-9]+)*$",
    r"^[^@\s]+@[^@\s]+\.[a-z]{2,}$",
    r"^#(?:[0-9a-fA-F]{3}){1,2}$",
    r"\d+",
    r"^v\d+\.\d+\.\d+$",
    r"^(?P<year>\d{4})-(?<month>\d{2})$",
    r"^[\w.\-/]+\x41é[€-₮]?$",
    r"^a{0}b??c*?$",
    r"^[]a]$|^x{y$",
    "",
    r"^$",
    r".*",
]


@pytest.mark.parametrize("pattern", COMMON)
def test_common_patterns_are_matched(pattern: str) -> None:
    for seed in range(20):
        text = text_matching(pattern, rng=random.Random(seed))
        assert text is not None
        assert re.search(pattern.replace("(?<", "(?P<"), text), text


_PIECES = st.sampled_from(["a", "-", r"\.", r"\d", r"\w", r"\W", r"\S", "[a-f]", "[^a-z]", r"[\d_]", ".", "é"])
_COUNTS = st.sampled_from(["", "?", "*", "+", "{2}", "{1,3}", "{2,}", "+?"])


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    several = st.lists(inner, min_size=1, max_size=3)
    return several.map("".join) | st.tuples(several.map("|".join), _COUNTS).map(lambda part: f"({part[0]}){part[1]}")


_PATTERNS = st.recursive(st.tuples(_PIECES, _COUNTS).map("".join), _grown, max_leaves=6)


@given(_PATTERNS, st.booleans(), st.integers(0, 12), st.integers(0, 1000))
def test_what_is_built_matches_and_has_the_length_asked_for(
    inner: str, anchored: bool, shortest: int, seed: int
) -> None:
    pattern = f"^(?:{inner})$" if anchored else inner
    text = text_matching(pattern, rng=random.Random(seed), shortest=shortest, longest=shortest + 30)
    if text is not None:
        assert re.search(pattern, text)
        assert shortest <= len(text) <= shortest + 30


@pytest.mark.parametrize("shortest", [0, 1, 5, 40])
def test_open_repetitions_stretch_to_the_length_asked_for(shortest: int) -> None:
    text = text_matching("^[a-z]+-[0-9]+$", rng=random.Random(0), shortest=shortest, longest=max(3, shortest))
    assert text is not None
    assert re.search("^[a-z]+-[0-9]+$", text)


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=a)",
        "(?!a)",
        r"(a)\1",
        r"\bword",
        r"\p{L}",
        "a^b",
        "$a",
        "(",
        "[a",
        "*",
        "a**",
        "a{3,1}",
        "a{,2}",
        "[[:alpha:]]",
    ],
)
def test_what_is_not_understood_is_not_built(pattern: str) -> None:
    assert text_matching(pattern, rng=random.Random(0)) is None


def test_no_pattern_hangs() -> None:
    started = time.process_time()
    for pattern in (
        r"^(a+)+$",
        "(" * 5000,
        "(a{1000}){1000}",
        "((a{900}){900}){900}",
        "((((b{0,999999}){0,999999}){0,999999})",
    ):
        text_matching(pattern, rng=random.Random(0), shortest=31)
    assert time.process_time() - started < 5
