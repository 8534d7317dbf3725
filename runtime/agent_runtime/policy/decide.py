"""What follows from the rules, without asking anybody: pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from agent_runtime.policy.globs import any_of
from agent_runtime.policy.rules import AccessRule, ConstraintPolicy

Concerns = Callable[[tuple[str, ...]], object]
"""Whether a rule concerns what has these names: those of a model, or a resource and an operation."""


class Effect(IntEnum):
    """The larger one is stricter."""

    ALLOW = 0
    WARN = 1
    REQUIRE_APPROVAL = 2
    DENY = 3


class Subject(Protocol):
    """On whose behalf something is done: an ExecutionContext, or an attempt of the call log."""

    @property
    def scope_id(self) -> str: ...
    @property
    def principal_id(self) -> str: ...
    @property
    def run_id(self) -> str | None: ...
    @property
    def job_id(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """A Subject of its own, where nothing at hand is one."""

    scope_id: str
    principal_id: str
    run_id: str | None = None
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """`allowed` is the answer; the rest says why.

    `effect` is what the strictest rule wanted: an approval that was granted is allowed with REQUIRE_APPROVAL.
    `action_id` is the approval. `max_output_tokens` is a bound that the call has to keep.
    """

    allowed: bool
    effect: Effect
    reason: str = ""
    rule: str | None = None
    warnings: tuple[str, ...] = ()
    max_output_tokens: int | None = None
    action_id: str | None = None


class CompiledAccess:
    """An access rule with its patterns translated."""

    def __init__(self, rule: AccessRule, title: str, concerns: Concerns) -> None:
        self.title = title
        self.concerns = concerns
        self._rule = rule
        self._in_scope = None if rule.allowed_scopes is None else any_of(rule.allowed_scopes)
        self._off_scope = any_of(rule.denied_scopes) if rule.denied_scopes else None
        self._is_principal = None if rule.allowed_principals is None else any_of(rule.allowed_principals)
        self._off_principal = any_of(rule.denied_principals) if rule.denied_principals else None

    def judge(self, subject: Subject) -> tuple[Effect, str]:
        """What this rule wants for a name that it concerns, and why."""
        rule = self._rule
        if rule.deny:
            return Effect.DENY, rule.reason or f"{self.title} denies it"
        if (self._in_scope is not None and not self._in_scope(subject.scope_id)) or (
            self._off_scope is not None and self._off_scope(subject.scope_id)
        ):
            return Effect.DENY, rule.reason or f"{self.title} does not allow it in this scope"
        if (self._is_principal is not None and not self._is_principal(subject.principal_id)) or (
            self._off_principal is not None and self._off_principal(subject.principal_id)
        ):
            return Effect.DENY, rule.reason or f"{self.title} does not allow it to this principal"
        if rule.require_approval:
            return Effect.REQUIRE_APPROVAL, rule.reason or f"{self.title} wants a person to agree"
        if rule.warn is not None:
            return Effect.WARN, rule.warn
        return Effect.ALLOW, ""


class CompiledConstraint:
    """A constraint with its patterns translated."""

    def __init__(self, rule: ConstraintPolicy, title: str, concerns: Concerns) -> None:
        self.title = title
        self.concerns = concerns
        self.rule = rule

    def problem(self, *, argument_bytes: int | None, input_chars: int | None) -> str | None:
        for size, limit, what in (
            (argument_bytes, self.rule.max_argument_bytes, "bytes of arguments"),
            (input_chars, self.rule.max_input_chars, "characters of input"),
        ):
            if size is not None and limit is not None and size > limit:
                return self.rule.reason or f"{self.title} allows {limit} {what}, and this has {size}"
        return None


def decide(
    access: Iterable[CompiledAccess],
    constraints: Iterable[CompiledConstraint],
    subject: Subject,
    *,
    default: Effect,
    argument_bytes: int | None = None,
    input_chars: int | None = None,
) -> PolicyResult:
    """The strictest wish of the rules that concern a name; `default` where none of the access rules does."""
    strictest, reason, title, cap = None, "", None, None
    warnings: tuple[str, ...] = ()
    for rule in access:
        effect, why = rule.judge(subject)
        if effect is Effect.WARN:
            warnings = (*warnings, why)
        if strictest is None or effect > strictest:
            strictest, reason, title = effect, why, rule.title
    for constraint in constraints:
        why = constraint.problem(argument_bytes=argument_bytes, input_chars=input_chars)
        if why is not None and strictest is not Effect.DENY:
            strictest, reason, title = Effect.DENY, why, constraint.title
        if (bound := constraint.rule.max_output_tokens) is not None:
            cap = bound if cap is None else min(cap, bound)
    if strictest is None:
        strictest, reason = default, "" if default is Effect.ALLOW else "no rule allows it"
    allowed = strictest <= Effect.WARN
    return PolicyResult(allowed, strictest, reason, title, warnings, cap)
