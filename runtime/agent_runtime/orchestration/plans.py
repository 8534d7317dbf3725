"""The steps of a plan, as an agent or an operator wrote it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from agent_runtime.orchestration.results import OperatorResult

STEPS = "steps"
_BULLET = re.compile(r"\s*(?:[-*\u2022]|\(?\d{1,3}[.):])\s+(?P<step>\S.*)")
_FENCE = re.compile(r"```[a-z]*\n(?P<inside>.*?)```", re.DOTALL)


def steps_of(plan: OperatorResult) -> list[Any]:
    """The steps: the list `steps` of the plan's data, a list as its answer, JSON in its text, or the text's bullets.

    A text that is none of those is one step. A plan that says nothing has no steps.
    """
    found = _listed(plan.data)
    if found is None:
        found = _listed(plan.content)
    if found is None and isinstance(plan.content, str):
        found = _in_text(plan.content)
    return [step for step in found or [] if step not in ("", None)]


def _listed(value: Any) -> list[Any] | None:
    if isinstance(value, Mapping):
        value = value.get(STEPS)
    return list(value) if isinstance(value, list | tuple) else None


def _in_text(text: str) -> list[Any]:
    fenced = _FENCE.search(text)
    for source in (fenced["inside"] if fenced else text, text):
        try:
            listed = _listed(json.loads(source))
        except (ValueError, RecursionError):
            continue
        if listed is not None:
            return listed
    bullets = [match["step"].strip() for line in text.splitlines() if (match := _BULLET.fullmatch(line))]
    return bullets or [text.strip()]
