"""Slots and plain functions of a program, as tests call them by module and name."""

from __future__ import annotations

from mellea import generative
from pydantic import BaseModel


class Ticket(BaseModel):
    title: str
    urgent: bool


@generative
async def summarize(text: str, max_words: int = 10) -> str:
    """A summary of a text in so many words."""


@generative
def triage(text: str) -> Ticket:
    """A ticket for a message of a customer."""


def shout(text: str) -> dict[str, str]:
    """A program without any model."""
    return {"text": text.upper()}


async def whisper(text: str) -> str:
    return text.lower()


def breaks(text: str) -> str:
    raise KeyError(text)


def makes_no_json() -> object:
    return object()


NO_SLOT = 7
