"""From a role to a provider, a model and parameters."""

from __future__ import annotations

from typing import Any

import pytest

from llmhub_runtime import (
    LLMMode,
    ProviderBadRequestError,
    RuntimeConfig,
    UnknownProviderError,
    UnknownRoleError,
    parse_runtime_config,
    resolve_role,
)


def config(**changes: Any) -> RuntimeConfig:
    data: dict[str, Any] = {
        "project": "p",
        "env": "e",
        "providers": {"openai": {}},
        "roles": {
            "chat": {
                "provider": "openai",
                "model": "m",
                "mode": "chat",
                "params": {"a": 1, "b": {"x": 1}},
                "timeout_s": 5,
            },
            "vector": {
                "provider": "openai",
                "model": "e",
                "mode": "embedding",
                "params": {"embedding_dim": 1536},
            },
            "lost": {"provider": "nobody", "model": "m", "mode": "chat"},
        },
    }
    return parse_runtime_config(data | changes)


def test_the_calls_parameters_replace_the_roles_one_by_one() -> None:
    call = resolve_role(config(), "chat", {"b": {"y": 2}, "c": 3})
    assert call.params == {"a": 1, "b": {"y": 2}, "c": 3}
    assert (call.provider, call.model, call.mode, call.timeout_s) == ("openai", "m", LLMMode.CHAT, 5)


def test_resolving_changes_neither_the_configuration_nor_the_override() -> None:
    settings, override = config(), {"a": 2}
    resolve_role(settings, "chat", override)
    assert settings == config()
    assert override == {"a": 2}


def test_a_missing_role_is_served_by_defaults_and_says_so() -> None:
    defaults = {"provider": "openai", "model": "d", "mode": "chat", "params": {"temperature": 0.3}}
    call = resolve_role(config(defaults=defaults), "unheard", {"seed": 1})
    assert (call.role, call.model, call.used_default) == ("unheard", "d", True)
    assert call.params == {"temperature": 0.3, "seed": 1}
    assert resolve_role(config(defaults=defaults), "chat").used_default is False


def test_a_missing_role_without_defaults_names_the_roles_there_are() -> None:
    with pytest.raises(UnknownRoleError, match="chat, lost, vector") as caught:
        resolve_role(config(), "unheard")
    assert (caught.value.role, caught.value.known) == ("unheard", ("chat", "lost", "vector"))


def test_a_provider_that_is_not_configured_is_an_error_that_says_who_uses_it() -> None:
    with pytest.raises(UnknownProviderError, match=r"roles\.lost .*'nobody'") as caught:
        resolve_role(config(), "lost")
    assert (caught.value.provider, caught.value.role) == ("nobody", "lost")


@pytest.mark.parametrize("name", ["stream", "messages", "model", "api_key", "api_base", "inputs"])
def test_what_the_call_itself_decides_is_no_parameter(name: str) -> None:
    with pytest.raises(ProviderBadRequestError, match=f"'{name}' is not a parameter of role 'chat'"):
        resolve_role(config(), "chat", {name: 1})


def test_both_spellings_of_an_embeddings_size_are_one_parameter() -> None:
    assert resolve_role(config(), "vector").params == {"embedding_dim": 1536}
    assert resolve_role(config(), "vector", {"dimensions": 8}).params == {"dimensions": 8}
    assert resolve_role(config(), "vector", {"embedding_dim": 8}).params == {"embedding_dim": 8}
