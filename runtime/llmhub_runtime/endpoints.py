"""Where a call goes and which key it carries: from the configuration alone, never from a stray variable.

any-llm and the SDKs under it read addresses and keys from the environment when they get none. So an address
is always passed, and a key is read from the variable that the configuration names, or not sent at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .errors import ConfigError, EnvVarMissingError, ProviderAuthError, UnknownProviderError
from .models import ProviderConfig, ResolvedCall, RuntimeConfig
from .names import SIM

if TYPE_CHECKING:
    from any_llm import AnyLLM

KEYLESS = "no-key-required"
"""Sent where a client wants a key and none may go out, so that no other key is found and sent instead."""

_PUBLIC_BASES = {"anthropic": "https://api.anthropic.com", "ollama": "http://127.0.0.1:11434"}
"""For providers whose any-llm class does not say it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Calls with equal endpoints share a client. `provider_class` is None for an OpenAI-compatible server."""

    provider: str
    api_base: str | None
    api_key: str | None = field(repr=False)
    key_name: str | None
    provider_class: type[AnyLLM] | None = field(compare=False, repr=False)
    client_args: Mapping[str, Any] = field(compare=False, repr=False)


def endpoint_of(
    call: ResolvedCall, config: RuntimeConfig, *, any_llm: type[AnyLLM], environ: Mapping[str, str]
) -> Endpoint:
    """The endpoint of a call.

    A configured provider that any-llm does not know is an OpenAI-compatible server; `sim` always is one.
    An address in the call itself with another origin than the configured one gets neither key nor
    `client_args`.

    Raises: UnknownProviderError; ConfigError when an address is missing or the provider's package is not
    installed; ProviderAuthError when the key's variable is empty and another key would be sent instead.
    """
    if call.api_base is None and (serving := config.serving(call.provider)) != call.provider:
        call = call.model_copy(update={"provider": serving})
    provider = config.providers.get(call.provider)
    provider_class = _provider_class(call, any_llm)
    settings = provider or ProviderConfig()
    own_base = settings.api_base or _public_base(provider_class)
    base = call.api_base or own_base
    if base is None or (provider is None and provider_class is None and call.provider != SIM):
        _refuse(call, provider_class, environ)
    is_own = call.api_base is None or (own_base is not None and _origin(call.api_base) == _origin(own_base))
    return Endpoint(
        provider=call.provider,
        api_base=_with_version(base) if call.provider == SIM and base else base,
        api_key=_key(call, settings, provider_class, environ) if is_own else KEYLESS,
        key_name=settings.env_key,
        provider_class=provider_class,
        client_args=settings.client_args if is_own else {},
    )


def check_keys(config: RuntimeConfig, environ: Mapping[str, str]) -> None:
    """Raises EnvVarMissingError, which names every variable that is not set or empty."""
    named = {provider.env_key: name for name, provider in config.providers.items() if provider.env_key}
    missing = tuple(variable for variable in named if not environ.get(variable, "").strip())
    if missing:
        shown = ", ".join(f"{variable} (provider {named[variable]})" for variable in missing)
        raise EnvVarMissingError(f"These environment variables are not set: {shown}.", names=missing)


def _provider_class(call: ResolvedCall, any_llm: type[AnyLLM]) -> type[AnyLLM] | None:
    if call.provider == SIM or call.provider.strip().lower() not in any_llm.get_supported_providers():
        return None
    try:
        return any_llm.get_provider_class(call.provider)
    except ImportError as exc:
        raise missing_package(call.provider) from exc


def missing_package(provider: str) -> ConfigError:
    return ConfigError(
        f"The provider '{provider}' needs a package that is missing: pip install 'any-llm-sdk[{provider}]'.",
        key=f"providers.{provider}",
    )


def _public_base(provider_class: type[AnyLLM] | None) -> str | None:
    if provider_class is None:
        return None
    return provider_class.API_BASE or _PUBLIC_BASES.get(provider_class.PROVIDER_NAME)


def public_address(provider: str, *, any_llm: type[AnyLLM]) -> str | None:
    """The public address of a provider that has no `api_base`, None where nobody says it."""
    if provider == SIM or provider.strip().lower() not in any_llm.get_supported_providers():
        return None
    try:
        return _public_base(any_llm.get_provider_class(provider))
    except ImportError:
        return None


def _refuse(call: ResolvedCall, provider_class: type[AnyLLM] | None, environ: Mapping[str, str]) -> None:
    """Raises when nobody can say where the call goes; any-llm may still know an address of its own."""
    key = f"providers.{call.provider}.api_base"
    if call.provider == SIM:
        raise ConfigError(
            "The simulated model has no address: start one with `python -m llmhub_runtime.sim` and set "
            f"{key} to the URL that it prints.",
            key=key,
        )
    if provider_class is None:
        raise UnknownProviderError(
            f"any-llm knows no provider '{call.provider}'; correct the name, or set {key} in the "
            "configuration if it is an OpenAI-compatible server.",
            provider=call.provider,
            role=call.role,
        )
    variable = provider_class.ENV_API_BASE_NAME
    if variable and environ.get(variable):
        raise ConfigError(
            f"The address of '{call.provider}' must be in the configuration: set {key} "
            f"(the variable {variable} is not used).",
            key=key,
        )


def _key(
    call: ResolvedCall,
    provider: ProviderConfig,
    provider_class: type[AnyLLM] | None,
    environ: Mapping[str, str],
) -> str | None:
    """The key to pass. None leaves it to any-llm: a provider without `env_key`, or one that needs no key."""
    key = environ.get(provider.env_key, "").strip() if provider.env_key else ""
    if key and not (key.isascii() and key.isprintable()):
        raise _auth_error(call, f"The key in {provider.env_key} holds a line break or another unusable character.")
    if key:
        return key
    if provider_class is None:
        return KEYLESS
    other = provider_class.ENV_API_KEY_NAME
    if provider.env_key and other != provider.env_key and environ.get(other):
        raise _auth_error(
            call,
            f"The environment variable {provider.env_key} (providers.{call.provider}.env_key) is not set, "
            f"and the key in {other} is not sent in its place.",
        )
    return None


def _auth_error(call: ResolvedCall, message: str) -> ProviderAuthError:
    return ProviderAuthError(message, role=call.role, provider=call.provider, model=call.model, code="missing_key")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _with_version(base: str) -> str:
    return base if urlsplit(base).path.strip("/") else f"{base}/v1"
