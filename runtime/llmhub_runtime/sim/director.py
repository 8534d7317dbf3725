"""Which rule of the script takes a request. Keeps the counters behind `times`, `nth` and `answers`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pydantic import JsonValue

from llmhub_runtime.sim.script import Match, Reply, Rule, Script

_DEFAULT_REPLY = Reply()


@dataclass(frozen=True, slots=True)
class Facts:
    """What a rule can look at. Header names are lower case."""

    kind: str
    model: str
    role: str | None
    texts: tuple[str, ...]
    last_role: str | None
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Decision:
    """The reply to give; `rule` is the rule's index, or None for the default answer."""

    reply: Reply
    rule: int | None = None
    answer: JsonValue = None


class Director:
    """Walks the rules of one script. Not thread-safe: it belongs to one event loop."""

    def __init__(self, script: Script) -> None:
        self.replace(script)

    def replace(self, script: Script) -> None:
        """Use another script; all counters start again."""
        self.script = script
        self._met = [0] * len(script.rules)
        self._applied = [0] * len(script.rules)

    @property
    def applied(self) -> tuple[int, ...]:
        """How often each rule has decided a request."""
        return tuple(self._applied)

    def decide(self, facts: Facts) -> Decision:
        for index, rule in enumerate(self.script.rules):
            if _holds(rule.match, facts) and self._counts(index, rule):
                self._applied[index] += 1
                return Decision(reply=rule.reply, rule=index, answer=_answer(rule.reply, self._applied[index] - 1))
        return Decision(reply=_DEFAULT_REPLY)

    def _counts(self, index: int, rule: Rule) -> bool:
        self._met[index] += 1
        met, match = self._met[index], rule.match
        return (match.times is None or met <= match.times) and (match.nth is None or met == match.nth)


def _holds(match: Match, facts: Facts) -> bool:
    return (
        (match.kind is None or match.kind == facts.kind)
        and (match.role is None or (facts.role is not None and fnmatchcase(facts.role, match.role)))
        and (match.model is None or fnmatchcase(facts.model, match.model))
        and (match.last_role is None or match.last_role == facts.last_role)
        and (match.contains is None or any(match.contains in text for text in facts.texts))
        and all(facts.headers.get(name.lower()) == value for name, value in match.headers.items())
    )


def _answer(reply: Reply, used: int) -> JsonValue:
    if not reply.answers:
        return reply.answer
    count = len(reply.answers)
    return reply.answers[used % count if reply.cycle else min(used, count - 1)]
