"""Model calls by role name: `llmhub.yaml` says which model a role is, any-llm talks to its provider.

Importing this package imports none of its modules; a name loads the one that it comes from. any-llm is imported with
the first call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentflow.lazy import lazy_exports

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

__getattr__ = lazy_exports(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
