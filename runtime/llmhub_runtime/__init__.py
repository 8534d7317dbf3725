"""Model calls by role name: `llmhub.yaml` says which model a role is, any-llm talks to its provider.

Importing this package imports none of its modules; a name loads the one that it comes from. any-llm is imported with
the first call.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config_loader import load_runtime_config, parse_runtime_config
    from .errors import (
        ConfigError,
        EnvVarMissingError,
        HubClosedError,
        LLMHubRuntimeError,
        ModeMismatchError,
        ProviderAuthError,
        ProviderBadRequestError,
        ProviderCallError,
        ProviderMalformedError,
        ProviderRateLimitError,
        ProviderTimeoutError,
        ProviderUnavailableError,
        StreamAbandonedError,
        UnknownProviderError,
        UnknownRoleError,
        UnmeteredCallError,
        UnsupportedModeError,
    )
    from .hub import LLMHub
    from .models import (
        CallContext,
        CallResult,
        LLMMode,
        ProviderConfig,
        ResolvedCall,
        RoleConfig,
        RoleDefaultsConfig,
        RoleLimits,
        RolePrice,
        RuntimeConfig,
    )
    from .resolver import resolve_role

_HOMES = {
    "config_loader": (
        "load_runtime_config",
        "parse_runtime_config",
    ),
    "errors": (
        "ConfigError",
        "EnvVarMissingError",
        "HubClosedError",
        "LLMHubRuntimeError",
        "ModeMismatchError",
        "ProviderAuthError",
        "ProviderBadRequestError",
        "ProviderCallError",
        "ProviderMalformedError",
        "ProviderRateLimitError",
        "ProviderTimeoutError",
        "ProviderUnavailableError",
        "StreamAbandonedError",
        "UnknownProviderError",
        "UnknownRoleError",
        "UnmeteredCallError",
        "UnsupportedModeError",
    ),
    "hub": ("LLMHub",),
    "models": (
        "CallContext",
        "CallResult",
        "LLMMode",
        "ProviderConfig",
        "ResolvedCall",
        "RoleConfig",
        "RoleDefaultsConfig",
        "RoleLimits",
        "RolePrice",
        "RuntimeConfig",
    ),
    "resolver": ("resolve_role",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CallContext",
    "CallResult",
    "ConfigError",
    "EnvVarMissingError",
    "HubClosedError",
    "LLMHub",
    "LLMHubRuntimeError",
    "LLMMode",
    "ModeMismatchError",
    "ProviderAuthError",
    "ProviderBadRequestError",
    "ProviderCallError",
    "ProviderConfig",
    "ProviderMalformedError",
    "ProviderRateLimitError",
    "ProviderTimeoutError",
    "ProviderUnavailableError",
    "ResolvedCall",
    "RoleConfig",
    "RoleDefaultsConfig",
    "RoleLimits",
    "RolePrice",
    "RuntimeConfig",
    "StreamAbandonedError",
    "UnknownProviderError",
    "UnknownRoleError",
    "UnmeteredCallError",
    "UnsupportedModeError",
    "load_runtime_config",
    "parse_runtime_config",
    "resolve_role",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return __all__
