"""What a serve config says to the app builder under `args`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from agentflow_serve.actor_or_store import MEMORY
from agentflow_serve.auth.exposure import Auth
from agentflow_serve.errors import AppInvalid
from agentflow_serve.limits import EdgeLimits
from agentflow_serve.process_settings import LedgerWay
from flow_runtime.code_mode import CodeMode
from flow_runtime.operations.settings import HostEntry
from runtime_core.stores.url import DEFAULT_STORE


class AppArgs(BaseModel):
    """The arguments of `agentflow_serve:app`. A key that is not listed here is an error that names it.

    `flow` and `llmhub` are paths, relative to the directory in which `serve run` was started, or the documents
    themselves. `llmhub` may be left out for a flow without prompts. `store` is the URL of the run store, for
    nodes whose state says `backend: store`: `sqlite:///file` on one machine, `postgresql://user@host:5432/database`
    for several; the password then comes from PGPASSWORD or PGPASSFILE where the replicas start.
    `placement` overrules the flow's. `code: modules` runs only
    installed code (`module: pkg.mod:name`), `code: off` none at all. `allow_hosts` lists hosts, or
    `host:port`, that http operations and a flow's own model endpoints may reach although they are private or
    plain http. `feature_store` is where `features.*` and `hopsworks.*` operations read and write: `local:./folder` or
    `hopsworks:project`. `embedder` is the role that embeds the text queries of vector searches which name none.
    `budgets` says who may use how much, and `policy` which models and tools may be called: paths too, or the documents.
    `slot_modules` are the installed modules, or packages of them, whose slots `slot.call` may call.
    `auth: keys` lets in who has an API key of the run store (`agentflow keys`), as the tenant and principal of the key.
    `auth: none` asks nobody, and is for loopback: elsewhere it takes `open_to_network: true` as well.
    `metrics_by_scope: true` adds the label `scope` to metrics of runs, model calls and refusals.
    `sim_script` is a script for the simulated model. `revision` means nothing: another one makes Serve replace every
    replica, as after a change of installed code.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    flow: str | dict[str, Any]
    llmhub: str | dict[str, Any] | None = None
    store: str = DEFAULT_STORE
    session_ttl_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 30 * 86_400.0
    """How long the store keeps a session after its last run, in seconds; null for ever."""
    calls_ttl_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 90 * 86_400.0
    """How long the store keeps what has ended, in seconds; null for ever.

    That is a model call, its answer and its entry in the ledger, and a question to people with what they answered.
    """
    ledger: LedgerWay | None = None
    """Who commits what model calls take: `own` is every replica by itself, `shared` the app's actor for all of them.

    Left out, it is `shared` on PostgreSQL and `own` on SQLite, where a call to the actor costs more than a commit:
    see docs/scaling.md.
    """
    placement: Literal["per_node", "inline"] | None = None
    code: CodeMode = "inline"
    allow_hosts: tuple[HostEntry, ...] = ()
    feature_store: str | None = None
    embedder: str | None = None
    slot_modules: tuple[str, ...] = ()
    budgets: str | dict[str, Any] | None = None
    policy: str | dict[str, Any] | None = None
    limits: EdgeLimits = EdgeLimits()
    auth: Auth = "none"
    open_to_network: bool = False
    metrics_by_scope: bool = False
    sim_script: str | dict[str, Any] | None = None
    revision: str | None = None

    @field_validator("code", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        # Serve reads the config with YAML 1.1, where an unquoted `off` is the boolean False.
        return "off" if value is False else value

    @model_validator(mode="after")
    def _keys_are_kept_and_asked_for(self) -> Self:
        if self.auth == "keys" and self.store == MEMORY:
            raise ValueError("`auth: keys` needs a store that outlives the process; name one under `store`")
        if self.auth == "keys" and self.open_to_network:
            raise ValueError("`open_to_network` stands beside `auth: none`; with `auth: keys` leave it out")
        if self.budgets is not None and self.store == MEMORY:
            raise ValueError("`budgets` need a store that all replicas share; name one under `store`")
        if self.ledger == "shared" and self.store == MEMORY:
            raise ValueError("`ledger: shared` needs a store that all replicas share; name one under `store`")
        return self


def parse_args(data: Mapping[str, Any]) -> AppArgs:
    """The arguments as a serve config writes them. Raises AppInvalid that names every key that is wrong."""
    try:
        return AppArgs.model_validate(data)
    except ValidationError as exc:
        known = ", ".join(AppArgs.model_fields)
        problems = "; ".join(f"{'.'.join(['args', *map(str, each['loc'])])}: {each['msg']}" for each in exc.errors())
        raise AppInvalid(f"the serve config's args are wrong: {problems} (args has: {known})") from exc
