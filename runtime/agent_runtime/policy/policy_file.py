"""A policy from a file, or as it stands inline in a serve config.

default: allow
rules:
  - {kind: model, model_patterns: ["openai/*"], denied_scopes: ["trial-*"]}
  - {kind: tool, tool_patterns: ["refund_*"], require_approval: true}
"""

from __future__ import annotations

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
_KINDS = (ToolPolicy, ModelPolicy, DataAccessPolicy, ConstraintPolicy, RedactionPolicy)
_KEYS = frozenset(PolicyDocument.model_fields).union(*(kind.model_fields for kind in _KINDS))


def load_policy(source: Source) -> PolicyDocument:
    """The policy in a file, or as it is.

    Raises DocumentInvalid: one sentence, with the file and the line of everything that is wrong.
    """
    return load_document(source, PolicyDocument, what=WHAT, keys=_KEYS).value


def asks_people(policy: PolicyDocument) -> bool:
    """Whether one of its rules wants a person to agree."""
    return any(getattr(rule, "require_approval", False) for rule in policy.rules)
