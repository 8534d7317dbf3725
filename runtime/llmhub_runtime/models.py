"""The shape of `llmhub.yaml`, of a resolved call, and of what hooks see.

`price`, `fallback`, `limits` and `judge` are read and checked here so that a mistake shows at start. The hub
itself applies `timeout_s` only: fallback and limits belong to the layer above it (llm_client), prices to the
ledger.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, cast
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from .names import SIM

RESERVED_PARAMS = frozenset(
    {"model", "messages", "input", "inputs", "stream", "provider", "api_key", "api_base", "client_args"}
)
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED_CLIENT_ARGS = frozenset({"api_key", "api_base", "base_url", "host", "unified_exceptions"})


class LLMMode(StrEnum):
    """What a role is for. `chat` and `tool` (chat with tools) and `embedding` can be called."""

    CHAT = "chat"
    EMBEDDING = "embedding"
    IMAGE = "image"
    AUDIO = "audio"
    TOOL = "tool"
    OTHER = "other"


CHAT_MODES = frozenset({LLMMode.CHAT, LLMMode.TOOL})


def _split(value: str) -> SplitResult | None:
    try:
        parts = urlsplit(value)
        _ = parts.port  # a ValueError when it is no number
    except ValueError:
        return None
    return parts


def check_base_url(value: str) -> str:
    """An absolute http(s) URL without credentials, query or fragment; a final slash is dropped."""
    parts = _split(value)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise PydanticCustomError("base_url", "must be a URL such as https://host:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise PydanticCustomError("base_url", "must not hold credentials, a query or a fragment")
    return value.rstrip("/")


def _check_provider_base(value: str) -> str:
    return value if value == SIM else check_base_url(value)


def _params_are_ours(value: dict[str, Any]) -> dict[str, Any]:
    if taken := sorted(RESERVED_PARAMS & value.keys()):
        raise PydanticCustomError("reserved", "must not set '{name}': the call itself decides it", {"name": taken[0]})
    return value


def _client_args_are_ours(value: dict[str, Any]) -> dict[str, Any]:
    if taken := sorted(_RESERVED_CLIENT_ARGS & value.keys()):
        raise PydanticCustomError(
            "reserved", "must not set '{name}': use env_key and api_base of the provider", {"name": taken[0]}
        )
    return value


def _nothing_is_empty(value: Any) -> Any:
    return {} if value is None else value


def _variable_name(value: str) -> str:
    if not _VARIABLE_NAME.fullmatch(value):
        raise PydanticCustomError("env_key", "must be the name of an environment variable, never the key itself")
    return value


Name = Annotated[str, Field(min_length=1)]
EnvVarName = Annotated[str, AfterValidator(_variable_name)]
BaseUrl = Annotated[str, AfterValidator(check_base_url)]
ProviderBase = Annotated[str, AfterValidator(_check_provider_base)]
Params = Annotated[dict[str, Any], BeforeValidator(_nothing_is_empty), AfterValidator(_params_are_ours)]
ClientArgs = Annotated[dict[str, Any], BeforeValidator(_nothing_is_empty), AfterValidator(_client_args_are_ours)]
PositiveCount = Annotated[int, Field(strict=True, gt=0)]
Seconds = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Dollars = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProviderConfig(_Frozen):
    """How to reach a provider. `env_key` is the *name* of the environment variable that holds its key.

    `api_base` is its URL; without it the provider's public address is used, never an environment variable. `sim`
    in its place lets the simulated model answer for this provider.
    `client_args` go to the provider's client as they are (headers, proxies, regions).
    """

    env_key: EnvVarName | None = None
    api_base: ProviderBase | None = None
    client_args: ClientArgs = Field(default_factory=dict)


class RolePrice(_Frozen):
    """US dollars for a million tokens."""

    input: Dollars
    output: Dollars


class RoleLimits(_Frozen):
    """Ceilings for one role over all its callers. Applied by llm_client, not by the hub."""

    requests_per_minute: PositiveCount | None = None
    tokens_per_minute: PositiveCount | None = None
    concurrency: PositiveCount | None = None


class RoleConfig(_Frozen):
    """Which model a role is. `timeout_s` bounds the time spent waiting for the provider, in seconds.

    `fallback` names the roles that llm_client tries next. A `meta` block is for generators and is not read.
    """

    provider: Name
    model: Name
    mode: LLMMode
    params: Params = Field(default_factory=dict)
    price: RolePrice | None = None
    fallback: tuple[Name, ...] = ()
    limits: RoleLimits | None = None
    timeout_s: Seconds | None = None
    meta: Any = Field(default=None, exclude=True, repr=False)


class RoleDefaultsConfig(RoleConfig):
    """The binding that serves a role which the configuration does not have."""


def _provider_or_empty(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return _nothing_is_empty(value)
    providers = cast("Mapping[Any, Any]", value)
    return {name: _nothing_is_empty(provider) for name, provider in providers.items()}


class RuntimeConfig(BaseModel):
    """A whole `llmhub.yaml`. Unknown top-level keys are ignored: generators write them."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    project: str
    env: str
    providers: Annotated[dict[str, ProviderConfig], BeforeValidator(_provider_or_empty)]
    roles: Annotated[dict[str, RoleConfig], BeforeValidator(_nothing_is_empty)]
    defaults: RoleDefaultsConfig | None = None
    judge: Name | None = None

    def serving(self, provider: str) -> str:
        """The provider that answers calls of `provider`: itself, or the simulated model."""
        known = self.providers.get(provider)
        return SIM if known is not None and known.api_base == SIM else provider

    @model_validator(mode="after")
    def _sim_does_not_stand_for_itself(self) -> RuntimeConfig:
        if SIM in self.providers and self.providers[SIM].api_base == SIM:
            raise _reference_error("must be a URL, or be left out", ("providers", SIM, "api_base"))
        return self

    @model_validator(mode="after")
    def _roles_refer_to_roles(self) -> RuntimeConfig:
        if self.judge is not None:
            self._check_reference(self.judge, mode=LLMMode.CHAT, key=("judge",))
        holders: list[tuple[tuple[str, ...], RoleConfig]] = [(("roles", name), self.roles[name]) for name in self.roles]
        if self.defaults is not None:
            holders.append((("defaults",), self.defaults))
        for key, role in holders:
            for index, target in enumerate(role.fallback):
                self._check_reference(target, mode=role.mode, key=(*key, "fallback", index))
        self._check_cycles()
        return self

    def _check_reference(self, target: str, *, mode: LLMMode, key: tuple[str | int, ...]) -> None:
        role = self.roles.get(target)
        if role is None:
            raise _reference_error(f"names the role '{target}', which is not under roles", key)
        if role.mode != mode and not {role.mode, mode} <= CHAT_MODES:
            raise _reference_error(f"names the role '{target}' of mode {role.mode.value}, not {mode.value}", key)

    def _check_cycles(self) -> None:
        try:
            TopologicalSorter({name: role.fallback for name, role in self.roles.items()}).prepare()
        except CycleError as exc:
            circle: list[str] = exc.args[1][::-1]
            raise _reference_error(
                f"goes round in a circle: {' -> '.join(circle)}", ("roles", circle[0], "fallback")
            ) from exc


def _reference_error(sentence: str, key: tuple[str | int, ...]) -> PydanticCustomError:
    return PydanticCustomError("reference", "{sentence}", {"sentence": sentence, "key": key})


class ResolvedCall(_Frozen):
    """A role made concrete. `used_default` says that `defaults` served it because the role is missing.

    A caller may build one itself for an ad-hoc model (see `LLMHub.ad_hoc`). `api_base` is then an address
    that the caller has checked; a provider's key is never sent to an address with another origin than the
    configured one.
    """

    role: str
    provider: Name
    model: Name
    mode: LLMMode
    params: Params = Field(default_factory=dict)
    used_default: bool = False
    timeout_s: Seconds | None = None
    api_base: BaseUrl | None = None


@dataclass(frozen=True, slots=True)
class CallContext:
    """What a before-hook sees: copies, so nothing that it changes reaches the provider."""

    role: str
    provider: str
    model: str
    mode: LLMMode
    params: Mapping[str, Any]
    messages: Sequence[Mapping[str, Any]] | None = None
    input: str | Sequence[str] | None = None
    used_default: bool = False


@dataclass(frozen=True, slots=True)
class CallResult:
    """What an after-hook sees, once per call.

    `response` is a copy of the raw answer (None for a stream and after an error), `usage` the provider's
    token counts by name, `error` what the caller got instead of an answer, or how its stream ended early.
    """

    role: str
    provider: str
    model: str
    mode: LLMMode
    duration_ms: float
    success: bool
    error: BaseException | None = None
    response: Any = None
    usage: Mapping[str, Any] | None = None
    finish_reason: str | None = None
    streamed: bool = False
