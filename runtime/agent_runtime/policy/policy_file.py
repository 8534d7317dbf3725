"""A policy from a file, or as it stands inline in a serve config.

default: allow
rules:
  - {kind: model, model_patterns: ["openai/*"], denied_scopes: ["trial-*"]}
  - {kind: tool, tool_patterns: ["refund_*"], require_approval: true}
"""

from __future__ import annotations

from collections.abc import Collection

from agent_runtime.policy.rules import (
    ConstraintPolicy,
    DataAccessPolicy,
    ModelPolicy,
    PolicyDocument,
    RedactionPolicy,
    ToolPolicy,
)
from runtime_core.documents import Source, load_document

WHAT = "the policy"
OF_FLOWS = frozenset({"model", "tool", "constraint"})
"""The kinds of rules that flows keep to."""
_KINDS = (ToolPolicy, ModelPolicy, DataAccessPolicy, ConstraintPolicy, RedactionPolicy)
_KEYS = frozenset(PolicyDocument.model_fields).union(*(kind.model_fields for kind in _KINDS))


def load_policy(source: Source, *, kinds: Collection[str] | None = None) -> PolicyDocument:
    """The policy in a file, or as it is. A rule of none of these `kinds` is wrong: nobody would keep to it.

    Raises DocumentInvalid: one sentence, with the file and the line of everything that is wrong.
    """
    document = load_document(source, PolicyDocument, what=WHAT, keys=_KEYS)
    if kinds is not None:
        document.refuse(
            {
                ("rules", number): f"is a rule of kind {rule.kind}, which has no effect on a flow; remove it"
                for number, rule in enumerate(document.value.rules)
                if rule.kind not in kinds
            }
        )
    return document.value


def asks_people(policy: PolicyDocument) -> bool:
    """Whether one of its rules wants a person to agree."""
    return any(getattr(rule, "require_approval", False) for rule in policy.rules)
