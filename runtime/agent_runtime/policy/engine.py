"""The one place that answers whether something may be done."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, Self

from agent_runtime.actions.manager import ActionManager
from agent_runtime.actions.records import ActionStatus
from agent_runtime.errors import JobError
from agent_runtime.events.bus import EventBus
from agent_runtime.events.types import RuntimeEvent, RuntimeEventType
from agent_runtime.policy.approval import Approvals
from agent_runtime.policy.decide import (
    CompiledAccess,
    CompiledConstraint,
    Concerns,
    Effect,
    PolicyResult,
    Subject,
    decide,
)
from agent_runtime.policy.globs import Matches, any_of
from agent_runtime.policy.redaction import redact
from agent_runtime.policy.rules import (
    ConstraintPolicy,
    DataAccessPolicy,
    ModelPolicy,
    PolicyDocument,
    RedactionPolicy,
    Rule,
    ToolPolicy,
)

APPROVAL_TIMEOUT_S = 300.0
MOST_NAMES = 1024
"""How many names are remembered with their rules; names come from models, so there is no end to them."""

Kind = Literal["tool", "model", "data"]
Concerned = tuple[tuple[CompiledAccess, ...], tuple[CompiledConstraint, ...]]


class PolicyEngine:
    """Rules, and the way to people where a rule wants one to agree.

    What no rule concerns is allowed, or with `default="deny"` refused. With `actions`, require_approval opens an
    action in the subject's scope and waits until it is settled, up to `approval_timeout_s`; without, it is refused.
    """

    def __init__(
        self,
        rules: Iterable[Rule] = (),
        *,
        default: Literal["allow", "deny"] = "allow",
        actions: ActionManager | None = None,
        event_bus: EventBus | None = None,
        approval_timeout_s: float = APPROVAL_TIMEOUT_S,
    ) -> None:
        self._default = Effect.ALLOW if default == "allow" else Effect.DENY
        self._bus = event_bus
        self._approvals = None if actions is None else Approvals(actions, timeout_s=approval_timeout_s)
        self._rules: list[Rule] = []
        self._access: dict[Kind, list[CompiledAccess]] = {"tool": [], "model": [], "data": []}
        self._constraints: dict[Kind, list[CompiledConstraint]] = {"tool": [], "model": [], "data": []}
        self._redactions: list[tuple[Matches, str]] = []
        self._concerned: OrderedDict[tuple[Kind, tuple[str, ...]], Concerned] = OrderedDict()
        for rule in rules:
            self.add_rule(rule)

    @classmethod
    def of(cls, document: PolicyDocument, **options: Any) -> Self:
        """The engine of a policy file; `options` are the constructor's."""
        given = {"default": document.default, "approval_timeout_s": document.approval_timeout_seconds, **options}
        return cls(document.rules, **given)

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(self._rules)

    def add_rule(self, rule: Rule) -> None:
        """Counts from now on, in whatever order rules are added."""
        title = f"the rule {rule.name!r}" if rule.name else f"rule {len(self._rules) + 1}"
        match rule:
            case ToolPolicy():
                self._access["tool"].append(CompiledAccess(rule, title, _any_name(rule.tool_patterns)))
            case ModelPolicy():
                self._access["model"].append(CompiledAccess(rule, title, _any_name(rule.model_patterns)))
            case DataAccessPolicy():
                self._access["data"].append(CompiledAccess(rule, title, _resource_and_operation(rule)))
            case ConstraintPolicy():
                self._constraints["tool"].append(CompiledConstraint(rule, title, _any_name(rule.tool_patterns)))
                self._constraints["model"].append(CompiledConstraint(rule, title, _any_name(rule.model_patterns)))
            case RedactionPolicy():
                self._redactions.append((any_of(rule.field_patterns), rule.replacement))
        self._rules.append(rule)
        self._concerned.clear()

    async def check_tool(
        self, name: str, context: Subject, *, arguments: Mapping[str, Any] | None = None
    ) -> PolicyResult:
        """Whether `context` may call the tool, with these arguments. Asks a person where a rule wants that."""
        access, constraints = self._rules_for("tool", (name,))
        size = None
        if arguments is not None and constraints:
            size = len(json.dumps(dict(arguments), default=str).encode())
        result = decide(access, constraints, context, default=self._default, argument_bytes=size)
        return await self._settle(result, context, "tool", name)

    async def check_model(
        self, name: str, context: Subject, *, provider: str | None = None, input_chars: int | None = None
    ) -> PolicyResult:
        """Whether `context` may call the model; the result may bound its answer."""
        names = (name,) if provider is None else (name, f"{provider}/{name}")
        access, constraints = self._rules_for("model", names)
        result = decide(access, constraints, context, default=self._default, input_chars=input_chars)
        return await self._settle(result, context, "model", name)

    async def check_data(self, resource: str, operation: str, context: Subject) -> PolicyResult:
        """Whether `context` may do that with the resource."""
        access, constraints = self._rules_for("data", (resource, operation))
        result = decide(access, constraints, context, default=self._default)
        return await self._settle(result, context, "data", resource, operation)

    def redact(self, value: Any) -> Any:
        """A copy of a JSON value without what the redaction rules take out."""
        return redact(value, self._redactions)

    def _rules_for(self, kind: Kind, names: tuple[str, ...]) -> Concerned:
        key = (kind, names)
        if (known := self._concerned.get(key)) is not None:
            return known
        found = (
            tuple(rule for rule in self._access[kind] if rule.concerns(names)),
            tuple(rule for rule in self._constraints[kind] if rule.concerns(names)),
        )
        self._concerned[key] = found
        if len(self._concerned) > MOST_NAMES:
            self._concerned.popitem(last=False)
        return found

    async def _settle(
        self, result: PolicyResult, subject: Subject, kind: Kind, name: str, operation: str | None = None
    ) -> PolicyResult:
        """Ask where a rule wants that, and let the event bus know of what was not simply allowed."""
        if result.effect is Effect.REQUIRE_APPROVAL:
            result = await self._approved(result, subject, kind, name, operation)
        if self._bus is not None and (not result.allowed or result.warnings):
            await self._bus.publish(_news(result, subject, kind, name))
        return result

    async def _approved(
        self, result: PolicyResult, subject: Subject, kind: Kind, name: str, operation: str | None
    ) -> PolicyResult:
        if self._approvals is None:
            return replace(result, reason=f"{result.reason}, and nobody can be asked here")
        try:
            action = await self._approvals.ask(subject, kind=kind, name=name, reason=result.reason, operation=operation)
        except JobError as exc:  # the job is over, or not one of this runtime's
            return replace(result, reason=f"{result.reason}, and nobody could be asked: {exc}")
        if action.is_granted:
            return replace(result, allowed=True, action_id=action.action_id)
        why = "nobody answered in time" if action.status is ActionStatus.EXPIRED else "it was not granted"
        return replace(result, reason=f"{result.reason}, and {why}", action_id=action.action_id)


def _any_name(patterns: Iterable[str]) -> Concerns:
    matches = any_of(patterns)
    return lambda names: matches(names[0]) or (len(names) > 1 and matches(names[1]))


def _resource_and_operation(rule: DataAccessPolicy) -> Concerns:
    is_resource, is_operation = any_of(rule.resource_patterns), any_of(rule.operations)
    return lambda names: is_resource(names[0]) and is_operation(names[1])


def _news(result: PolicyResult, subject: Subject, kind: Kind, name: str) -> RuntimeEvent:
    return RuntimeEvent(
        type=RuntimeEventType.POLICY_WARNED if result.allowed else RuntimeEventType.POLICY_DENIED,
        scope_id=subject.scope_id,
        job_id=subject.job_id,
        run_id=subject.run_id,
        action_id=result.action_id,
        data={"kind": kind, "name": name, "reason": result.reason, "rule": result.rule},
    )
