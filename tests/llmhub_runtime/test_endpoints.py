"""Addresses and keys come from the configuration; nothing is picked up from the environment by accident."""

from __future__ import annotations

from typing import Any

import pytest

from llmhub_runtime import (
    ConfigError,
    LLMHub,
    ProviderAuthError,
    ResolvedCall,
    UnknownProviderError,
    parse_runtime_config,
)
from llmhub_runtime.endpoints import KEYLESS, Endpoint, endpoint_of
from support.llmhub import MESSAGES, config_data, config_for
from support.scripted_provider import ScriptedProvider

BASE = "http://models.test/v1"


def endpoint(
    provider: str, settings: dict[str, Any] | None, *, api_base: str | None = None, **environ: str
) -> Endpoint:
    from any_llm import AnyLLM

    providers = {} if settings is None else {provider: settings}
    config = parse_runtime_config({"project": "p", "env": "e", "providers": providers, "roles": {}})
    call = ResolvedCall(role="r", provider=provider, model="m", mode="chat", api_base=api_base)  # type: ignore[arg-type]
    return endpoint_of(call, config, any_llm=AnyLLM, environ=environ)


def test_an_address_in_the_environment_is_never_used() -> None:
    assert endpoint("openai", {}, OPENAI_BASE_URL="http://evil.test").api_base == "https://api.openai.com/v1"
    assert endpoint("anthropic", {}, ANTHROPIC_BASE_URL="http://evil.test").api_base == "https://api.anthropic.com"
    assert endpoint("ollama", {}, OLLAMA_HOST="http://evil.test").api_base == "http://127.0.0.1:11434"
    with pytest.raises(ConfigError, match=r"providers\.databricks\.api_base .*DATABRICKS_HOST"):
        endpoint("databricks", {}, DATABRICKS_HOST="http://evil.test")


def test_the_named_key_is_passed_and_no_other() -> None:
    mine = {"env_key": "MY_KEY"}
    assert endpoint("openai", mine, MY_KEY="k1", OPENAI_API_KEY="k2").api_key == "k1"
    with pytest.raises(ProviderAuthError, match="MY_KEY") as caught:
        endpoint("openai", mine, OPENAI_API_KEY="k2")
    assert caught.value.code == "missing_key"
    with pytest.raises(ProviderAuthError, match="MY_KEY"):
        endpoint("openai", mine, MY_KEY="  ", OPENAI_API_KEY="k2")


@pytest.mark.parametrize("key", ["sk-\nInjected: x", "sk-…"])
def test_a_key_that_cannot_be_a_header_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ProviderAuthError) as caught:
        endpoint("openai", {"env_key": "MY_KEY"}, MY_KEY=key)
    assert key not in str(caught.value)
    assert "MY_KEY" in str(caught.value)


def test_a_key_never_shows_in_a_representation() -> None:
    assert "k1" not in repr(endpoint("openai", {"env_key": "MY_KEY"}, MY_KEY="k1"))


def test_a_callers_address_with_another_origin_gets_neither_key_nor_client_arguments() -> None:
    settings = {"env_key": "K", "api_base": BASE, "client_args": {"default_headers": {"x-token": "t"}}}
    same = endpoint("openai", settings, api_base="http://models.test/other/v1", K="secret")
    assert (same.api_key, bool(same.client_args)) == ("secret", True)
    for address in ("http://evil.test/v1", "https://models.test/v1", "http://models.test:81/v1"):
        other = endpoint("openai", settings, api_base=address, K="secret")
        assert (other.api_base, other.api_key, other.client_args) == (address, KEYLESS, {})


def test_a_default_port_is_the_same_origin() -> None:
    settings = {"env_key": "K", "api_base": BASE}
    assert endpoint("openai", settings, api_base="http://models.test:80/v1", K="secret").api_key == "secret"


def test_an_unknown_provider_with_an_address_is_an_openai_compatible_server() -> None:
    gateway = endpoint("our-gateway", {"api_base": BASE, "env_key": "K"}, K="k1")
    assert (gateway.provider_class, gateway.api_base, gateway.api_key) == (None, BASE, "k1")
    assert endpoint("our-gateway", {"api_base": BASE}, OPENAI_COMPATIBLE_API_KEY="k2").api_key == KEYLESS


@pytest.mark.parametrize("settings", [None, {}])
def test_an_unknown_provider_without_an_address_is_an_error(settings: dict[str, Any] | None) -> None:
    with pytest.raises(UnknownProviderError, match=r"'opnai'.*providers\.opnai\.api_base"):
        endpoint("opnai", settings)


def test_a_caller_cannot_bring_a_provider_that_nobody_configured() -> None:
    with pytest.raises(UnknownProviderError):
        endpoint("our-gateway", None, api_base=BASE)
    assert endpoint("sim", None, api_base=BASE).api_base == BASE


@pytest.mark.parametrize("settings", [None, {}])
def test_a_simulated_model_without_an_address_says_how_to_start_one(settings: dict[str, Any] | None) -> None:
    with pytest.raises(ConfigError, match=r"python -m llmhub_runtime\.sim.*providers\.sim\.api_base"):
        endpoint("sim", settings)


def test_the_address_of_the_simulated_model_gets_its_version() -> None:
    assert endpoint("sim", {"api_base": "http://127.0.0.1:9"}).api_base == "http://127.0.0.1:9/v1"
    assert endpoint("sim", {"api_base": "http://127.0.0.1:9/sim/v1"}).api_base == "http://127.0.0.1:9/sim/v1"


def test_a_provider_whose_package_is_missing_names_the_package() -> None:
    with pytest.raises(ConfigError, match=r"any-llm-sdk\[gemini\]"):
        endpoint("gemini", {})


async def test_a_missing_package_shows_at_the_call(provider: ScriptedProvider) -> None:
    async with LLMHub(config_obj=config_for(provider.root, provider="sim")) as hub:
        with pytest.raises(ConfigError, match=r"any-llm-sdk\[mistral\]"):
            await hub.acompletion(hub.ad_hoc(provider="mistral", model="m"), MESSAGES)


async def test_a_missing_key_names_the_variable_of_the_configuration(
    provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_MODEL_KEY")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    async with LLMHub(config_obj=config_for(provider.root)) as hub:
        with pytest.raises(ProviderAuthError, match="TEST_MODEL_KEY") as caught:
            await hub.acompletion("openai", MESSAGES)
    assert (caught.value.role, caught.value.code) == ("openai", "missing_key")
    assert provider.requests == []


async def test_addresses_known_only_at_start_are_given_to_the_hub(provider: ScriptedProvider) -> None:
    data = config_data("http://127.0.0.1:1")
    del data["providers"]["sim"]
    async with LLMHub(config_obj=parse_runtime_config(data), api_bases={"sim": provider.root}) as hub:
        assert (await hub.acompletion("chat", MESSAGES)).choices
        hub.set_api_base("openai", provider.base)
        assert (await hub.acompletion("openai", MESSAGES)).choices
    assert [request.path for request in provider.requests] == ["/v1/chat/completions"] * 2
    assert "sk-test-key" not in str(provider.requests[0].headers)


async def test_client_arguments_reach_the_client(provider: ScriptedProvider) -> None:
    data = config_data(provider.root)
    data["providers"]["sim"]["client_args"] = {"default_headers": {"x-team": "blue"}}
    async with LLMHub(config_obj=parse_runtime_config(data)) as hub:
        await hub.acompletion("chat", MESSAGES)
    assert provider.requests[0].headers["x-team"] == "blue"


async def test_an_ad_hoc_address_is_called_without_the_providers_key(provider: ScriptedProvider) -> None:
    data = config_data("http://127.0.0.1:1")
    async with LLMHub(config_obj=parse_runtime_config(data)) as hub:
        await hub.acompletion(hub.ad_hoc(provider="openai", model="x", api_base=provider.base), MESSAGES)
    assert provider.requests[0].headers["authorization"] == f"Bearer {KEYLESS}"
