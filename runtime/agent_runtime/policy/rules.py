"""The rules that a policy is made of. They are data: they come from configuration, and can be stored and compared.

Every rule concerns the names that its patterns match. Of all the rules that concern a name the strictest counts:
deny, then require_approval, then warn, then allow.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from agent_runtime.policy.globs import Glob

Globs = Annotated[tuple[Glob, ...], Field(min_length=1)]
Bound = Annotated[int, Field(ge=0)]


class _Rule(BaseModel):
    """`name` is what decisions call the rule; `reason` what people are told when it says no."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    reason: str | None = None


class _Access(_Rule):
    """Who may. With `allowed_scopes` or `allowed_principals` nobody else may; what is denied wins."""

    allowed_scopes: tuple[Glob, ...] | None = None
    denied_scopes: tuple[Glob, ...] = ()
    allowed_principals: tuple[Glob, ...] | None = None
    denied_principals: tuple[Glob, ...] = ()
    deny: bool = False
    require_approval: bool = False
    warn: str | None = None


class ToolPolicy(_Access):
    """Which tools may be called, by whom, and whether a person has to agree."""

    kind: Literal["tool"] = "tool"
    tool_patterns: Globs


class ModelPolicy(_Access):
    """Which models may be called. A pattern is compared with `model` and with `provider/model`."""

    kind: Literal["model"] = "model"
    model_patterns: Globs


class DataAccessPolicy(_Access):
    """Which resources may be used, and how: `operations` are words such as read and write."""

    kind: Literal["data"] = "data"
    resource_patterns: Globs
    operations: Globs = ("*",)


class ConstraintPolicy(_Rule):
    """How much at a time. More than `max_argument_bytes` or `max_input_chars` is refused; answers are cut short
    at `max_output_tokens`."""

    kind: Literal["constraint"] = "constraint"
    tool_patterns: tuple[Glob, ...] = ()
    model_patterns: tuple[Glob, ...] = ()
    max_argument_bytes: Bound | None = None
    max_input_chars: Bound | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None


class RedactionPolicy(_Rule):
    """Values under keys that match are replaced before anything is written down or shown."""

    kind: Literal["redaction"] = "redaction"
    field_patterns: Globs
    replacement: str = "[redacted]"


AccessRule: TypeAlias = ToolPolicy | ModelPolicy | DataAccessPolicy
Rule: TypeAlias = Annotated[
    ToolPolicy | ModelPolicy | DataAccessPolicy | ConstraintPolicy | RedactionPolicy, Field(discriminator="kind")
]


class PolicyDocument(BaseModel):
    """A policy as a file holds it. A person who is asked has `approval_timeout_seconds` to agree."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "default"
    version: str | None = None
    default: Literal["allow", "deny"] = "allow"
    approval_timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 300.0
    rules: tuple[Rule, ...] = ()
