"""Several voices on one question, and one that decides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent_runtime.errors import OrchestrationError
from agent_runtime.orchestration.children import Children
from agent_runtime.orchestration.context import OperatorContext
from agent_runtime.orchestration.operators import Operator, Runnable, as_operator, named
from agent_runtime.orchestration.parallel import failure_of
from agent_runtime.orchestration.results import TEXT, OperatorResult, reading, text_of

DECIDED = "decided"
_VERDICT = re.compile(r"\s*VERDICT:\s*(?P<verdict>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Statement:
    """What a debater said in one round, counted from 1."""

    round: int
    speaker: str
    text: str

    def __str__(self) -> str:
        return f"[round {self.round}] {self.speaker}: {self.text}"


class DebateOperator(Operator):
    """Multi-agent debate (source: agent-runtime, Built-in Patterns).

    In every round the debaters speak side by side; each is given the input with `topic`, `round`, `transcript` (the
    statements of earlier rounds) and all of it as `text`. After a round the moderator may end the debate: with
    `decided` true in its data, or with a text that begins with `VERDICT:`. After `max_rounds` it has to. Without a
    moderator all rounds are held, and the answer is the last statements by debater.
    """

    def __init__(
        self,
        *,
        debaters: Sequence[Runnable],
        moderator: Runnable | None = None,
        max_rounds: int = 3,
        name: str = "debate",
    ) -> None:
        if max_rounds < 1:
            raise OrchestrationError("A debate needs at least one round.")
        super().__init__()
        self._name = name
        self._debaters = named(debaters, "debater")
        self._moderator = None if moderator is None else as_operator(moderator, "moderator")
        self._max_rounds = max_rounds

    @property
    def name(self) -> str:
        return self._name

    async def execute(self, input_data: dict[str, Any], context: OperatorContext) -> OperatorResult:
        children = Children(context)
        topic = reading(input_data)
        said: list[Statement] = []
        parts: dict[str, OperatorResult] = {}
        for number in range(1, self._max_rounds + 1):
            final = number == self._max_rounds
            given = {**input_data, "topic": topic, "round": number, "transcript": [str(each) for each in said]}
            given[TEXT] = _for_debater(topic, said)
            calls = [(f"{name}[{number}]", operator, given) for name, operator in self._debaters.items()]
            spoken = await children.all(calls, stop_on_failure=True)
            parts |= zip((name for name, *_ in calls), spoken, strict=True)
            if (failure := failure_of(parts, "fail")) is not None:
                return failure
            said += [
                Statement(number, name, text_of(each.content))
                for name, each in zip(self._debaters, spoken, strict=True)
            ]
            if self._moderator is None:
                continue
            given |= {"transcript": [str(each) for each in said], "final": final}
            given[TEXT] = _for_moderator(topic, said, final=final)
            name = f"moderator[{number}]"
            verdict = parts[name] = await children.run(name, self._moderator, given)
            if not verdict.success:
                return verdict.failing(name, parts)
            if final or _is_decided(verdict):
                return replace(verdict, content=_verdict(verdict.content)).over(parts)
        last = {each.speaker: each.text for each in said if each.round == self._max_rounds}
        return OperatorResult(content=last, data={"transcript": [str(each) for each in said]}).over(parts)


def _for_debater(topic: str, said: Sequence[Statement]) -> str:
    if not said:
        return topic
    return f"{topic}\n\nWhat was said so far:\n{_lines(said)}\n\nAnswer the others, and say what you hold now."


def _for_moderator(topic: str, said: Sequence[Statement], *, final: bool) -> str:
    order = (
        "The debate is over: give your verdict."
        if final
        else "If it is decided, answer with VERDICT: and the verdict; if not, say what is still open."
    )
    return f"{topic}\n\nWhat was said:\n{_lines(said)}\n\n{order}"


def _lines(said: Sequence[Statement]) -> str:
    return "\n".join(map(str, said))


def _is_decided(moderated: OperatorResult) -> bool:
    return moderated.data.get(DECIDED) is True or (
        isinstance(moderated.content, str) and _VERDICT.match(moderated.content) is not None
    )


def _verdict(content: Any) -> Any:
    found = _VERDICT.match(content) if isinstance(content, str) else None
    return content if found is None else found["verdict"]
