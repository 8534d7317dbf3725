"""What each replica is told of the serve config; apart from `args`, which replicas do not need."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from agent_runtime.policy.rules import PolicyDocument
from flow_runtime.code_mode import CodeMode

LedgerWay = Literal["shared", "own"]


class ProcessSettings(BaseModel):
    """What a process needs to run nodes: the arguments with every file read, so that pods need none."""

    model_config = ConfigDict(frozen=True)

    llmhub: dict[str, Any] | None
    roles: tuple[str, ...]
    store: str
    code: CodeMode
    allow_hosts: tuple[str, ...]
    feature_store: str | None = None
    embedder: str | None = None
    slot_modules: tuple[str, ...] = ()
    policy: PolicyDocument | None = None
    list_prices: bool = False
    asks_for_more: bool = False
    session_ttl_s: float | None = None
    calls_ttl_s: float | None = None
    ledger: LedgerWay | None = None
    metrics_by_scope: bool = False
