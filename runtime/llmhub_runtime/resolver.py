"""From a role to a concrete call. Pure: it reads the configuration and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import (
    ModeMismatchError,
    ProviderBadRequestError,
    UnknownProviderError,
    UnknownRoleError,
    UnsupportedModeError,
)
from .models import CHAT_MODES, RESERVED_PARAMS, LLMMode, ResolvedCall, RuntimeConfig

_CALLABLE_MODES = CHAT_MODES | {LLMMode.EMBEDDING}
_DIMENSION_SPELLINGS = frozenset({"dimensions", "embedding_dim"})


def resolve_role(config: RuntimeConfig, role: str, params_override: Mapping[str, Any] | None = None) -> ResolvedCall:
    """The provider, model, mode and parameters that serve `role`.

    A role that the configuration lacks is served by `defaults`, which `used_default` tells. Parameters merge
    shallowly: the call's over the role's.

    Raises: UnknownRoleError, UnknownProviderError; ProviderBadRequestError for a parameter that is not one.
    """
    base = config.roles.get(role, config.defaults)
    if base is None:
        known = tuple(sorted(config.roles))
        raise UnknownRoleError(
            f"There is no role '{role}' and no defaults; known roles: {', '.join(known) or 'none'}.",
            role=role,
            known=known,
        )
    if base.provider not in config.providers:
        where = f"roles.{role}" if role in config.roles else "defaults"
        raise UnknownProviderError(
            f"{where} uses the provider '{base.provider}', which is not under providers; add it there.",
            provider=base.provider,
            role=role,
        )
    return ResolvedCall(
        role=role,
        provider=config.serving(base.provider),
        model=base.model,
        mode=base.mode,
        params=merge_params(base.params, params_override, mode=base.mode, role=role),
        used_default=role not in config.roles,
        timeout_s=base.timeout_s,
    )


def merge_params(
    base: Mapping[str, Any], override: Mapping[str, Any] | None, *, mode: LLMMode, role: str
) -> dict[str, Any]:
    """`base` with `override` over it, key by key.

    The two spellings of an embedding's size are one parameter: the call's wins whichever it uses.
    """
    override = override or {}
    if taken := sorted(RESERVED_PARAMS & override.keys()):
        raise ProviderBadRequestError(
            f"'{taken[0]}' is not a parameter of role '{role}': the call itself decides it.", role=role
        )
    if mode is LLMMode.EMBEDDING and _DIMENSION_SPELLINGS & override.keys():
        base = {name: value for name, value in base.items() if name not in _DIMENSION_SPELLINGS}
    return {**base, **override}


def check_mode(call: ResolvedCall, wanted: LLMMode) -> None:
    """Raises ModeMismatchError, or UnsupportedModeError for a mode that has no call yet."""
    mode = call.mode
    if mode not in _CALLABLE_MODES:
        raise UnsupportedModeError(
            f"Role '{call.role}' has mode {mode.value}, which is not supported yet; chat, tool and embedding are.",
            role=call.role,
            mode=mode.value,
            wanted=wanted.value,
        )
    if (mode is LLMMode.EMBEDDING) != (wanted is LLMMode.EMBEDDING):
        source = "is not configured, and the defaults have" if call.used_default else "has"
        raise ModeMismatchError(
            f"Role '{call.role}' {source} mode {mode.value}; this call needs {wanted.value}.",
            role=call.role,
            mode=mode.value,
            wanted=wanted.value,
        )
