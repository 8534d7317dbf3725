"""Embeddings: unit vectors that point the same way for texts that say alike."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmhub_runtime.sim.embeddings import embed


def _cosine(one: str, other: str) -> float:
    return sum(a * b for a, b in zip(embed(one), embed(other), strict=True))


@pytest.mark.parametrize(
    ("text", "similar", "unrelated"),
    [
        ("How do I return my shoes?", "I want to return the shoes I bought", "The stock market fell sharply on Monday"),
        ("refund for a broken kettle", "the kettle broke, please refund me", "opening hours of the museum"),
        ("running", "runner", "umbrella"),
        ("Die Lieferung ist verspätet", "verspätete Lieferungen", "Passwort zurücksetzen"),
    ],
)
def test_similar_texts_are_nearer_than_unrelated_ones(text: str, similar: str, unrelated: str) -> None:
    assert _cosine(text, similar) > _cosine(text, unrelated) + 0.15


@given(st.text(max_size=200), st.integers(1, 600))
def test_every_text_has_a_unit_vector_that_never_changes(text: str, dimensions: int) -> None:
    vector = embed(text, dimensions)
    assert len(vector) == dimensions
    assert math.sqrt(sum(x * x for x in vector)) == pytest.approx(1.0)
    assert embed(text, dimensions) == vector


def test_the_vector_is_the_same_in_every_process() -> None:
    known = (0.0, 0.0, 0.2649064714, 0.0, 0.9271726499, 0.0, 0.0, 0.2649064714)
    assert embed("shoes", 8) == pytest.approx(known, abs=1e-9)
