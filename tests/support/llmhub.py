"""Configurations for tests of model calls, all of them served by one `ScriptedProvider`."""

from __future__ import annotations

from typing import Any

from llmhub_runtime import RuntimeConfig, parse_runtime_config

MESSAGES = [{"role": "user", "content": "hi"}]


def config_data(root: str) -> dict[str, Any]:
    """`root` is the server's address without `/v1`."""
    return {
        "project": "tests",
        "env": "test",
        "providers": {
            "sim": {"api_base": f"{root}/v1"},
            "openai": {"api_base": f"{root}/v1", "env_key": "TEST_MODEL_KEY"},
            "anthropic": {"api_base": root, "env_key": "TEST_MODEL_KEY"},
            "ollama": {"api_base": root},
        },
        "roles": {
            "chat": {"provider": "sim", "model": "m", "mode": "chat", "params": {"temperature": 0.5}},
            "openai": {"provider": "openai", "model": "m", "mode": "chat"},
            "anthropic": {"provider": "anthropic", "model": "m", "mode": "chat", "params": {"max_tokens": 9}},
            "ollama": {"provider": "ollama", "model": "m", "mode": "chat"},
            "tools": {"provider": "sim", "model": "m", "mode": "tool"},
            "embed": {"provider": "sim", "model": "e", "mode": "embedding", "params": {"embedding_dim": 4}},
            "paint": {"provider": "sim", "model": "p", "mode": "image"},
            "speak": {"provider": "sim", "model": "s", "mode": "audio"},
        },
    }


def config_for(root: str, **role_changes: Any) -> RuntimeConfig:
    """The configuration, with changes to the role `chat`."""
    data = config_data(root)
    data["roles"]["chat"] |= role_changes
    return parse_runtime_config(data)
