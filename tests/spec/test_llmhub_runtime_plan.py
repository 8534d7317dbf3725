"""The samples and interfaces of `llmhub-runtime-plan.md`, one test each, named after their headings.

The samples run as written. Only the configuration gains an `api_base` for each provider, so that the calls
reach a local server; any-llm talks to it over real HTTP.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

import llmhub_runtime
from llmhub_runtime import (
    CallContext,
    CallResult,
    ConfigError,
    EnvVarMissingError,
    LLMHub,
    LLMHubRuntimeError,
    LLMMode,
    ProviderConfig,
    ResolvedCall,
    RoleConfig,
    RoleDefaultsConfig,
    RuntimeConfig,
    UnknownProviderError,
    UnknownRoleError,
    load_runtime_config,
    parse_runtime_config,
    resolve_role,
)
from support.scripted_provider import ScriptedProvider, error_reply, running_provider, wait_until

EXPECTED_STRUCTURE = """\
# llmhub.yaml
# GENERATED FILE – DO NOT EDIT BY HAND
project: memory
env: dev

providers:
  openai:
    env_key: OPENAI_API_KEY
  anthropic:
    env_key: ANTHROPIC_API_KEY
  mistral:
    env_key: MISTRAL_API_KEY
  openrouter:
    env_key: OPENROUTER_API_KEY

roles:
  llm.preprocess:
    provider: openai
    model: gpt-4o-mini
    mode: chat
    params:
      temperature: 0.2
      max_tokens: 512

  llm.memwrite:
    provider: anthropic
    model: claude-3-5-sonnet-20241022
    mode: chat
    params:
      temperature: 0.3
      max_tokens: 1024

  llm.memread:
    provider: anthropic
    model: claude-3-5-sonnet-20241022
    mode: chat
    params:
      temperature: 0.5
      max_tokens: 2048

  llm.inference:
    provider: openai
    model: gpt-4.1
    mode: chat
    params:
      temperature: 0.7
      max_tokens: 2048

  llm.embedding:
    provider: openai
    model: text-embedding-3-small
    mode: embedding
    params:
      embedding_dim: 1536

defaults:
  # optional fallback if a role is missing; may be omitted by generator
  provider: openai
  model: gpt-4o-mini
  mode: chat
  params:
    temperature: 0.3
    max_tokens: 1024
"""

README_CONFIG = """\
project: memory
env: dev

providers:
  openai:
    env_key: OPENAI_API_KEY
  anthropic:
    env_key: ANTHROPIC_API_KEY

roles:
  llm.preprocess:
    provider: openai
    model: gpt-4o-mini
    mode: chat
    params:
      temperature: 0.2
      max_tokens: 512

  llm.inference:
    provider: anthropic
    model: claude-3-5-sonnet-20241022
    mode: chat
    params:
      temperature: 0.7
      max_tokens: 2048
"""


@pytest.fixture(scope="module")
def _server() -> Iterator[ScriptedProvider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(_server: ScriptedProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedProvider]:
    _server.reset()
    for name in ("OPENAI", "ANTHROPIC", "MISTRAL", "OPENROUTER"):
        monkeypatch.setenv(f"{name}_API_KEY", f"sk-{name.lower()}")
    yield _server
    wait_until(lambda: _server.open_connections == 0)


def served(text: str, provider: ScriptedProvider) -> dict[str, Any]:
    """The configuration of the sample, with the local server as the address of every provider."""
    data = yaml.safe_load(text)
    for name, settings in data["providers"].items():
        settings["api_base"] = provider.root if name == "anthropic" else provider.base
    return data


@pytest.fixture
def in_project(tmp_path: Path, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch) -> ScriptedProvider:
    """A working directory with an `llmhub.yaml`, as the README's samples expect."""
    (tmp_path / "llmhub.yaml").write_text(yaml.safe_dump(served(EXPECTED_STRUCTURE, provider)))
    monkeypatch.chdir(tmp_path)
    return provider


@pytest.fixture
def hub(provider: ScriptedProvider) -> Iterator[LLMHub]:
    with LLMHub(config_obj=parse_runtime_config(served(EXPECTED_STRUCTURE, provider))) as hub:
        yield hub


def test_2_expected_structure_v0(tmp_path: Path) -> None:
    path = tmp_path / "llmhub.yaml"
    path.write_text(EXPECTED_STRUCTURE, encoding="utf-8")
    config = load_runtime_config(str(path))
    assert (config.project, config.env) == ("memory", "dev")
    assert config.providers["openrouter"].env_key == "OPENROUTER_API_KEY"
    assert list(config.roles) == [
        "llm.preprocess",
        "llm.memwrite",
        "llm.memread",
        "llm.inference",
        "llm.embedding",
    ]
    assert config.roles["llm.embedding"].params == {"embedding_dim": 1536}
    assert config.defaults is not None and config.defaults.model == "gpt-4o-mini"


def test_2_semantics_of_defaults_when_a_role_is_missing(hub: LLMHub, provider: ScriptedProvider) -> None:
    hub.completion("llm.unheard", [{"role": "user", "content": "Hello"}])
    body = provider.requests[0].body
    assert (body["model"], body["temperature"], body["max_completion_tokens"]) == ("gpt-4o-mini", 0.3, 1024)


def test_3_package_layout() -> None:
    names = ["__init__", "models", "config_loader", "resolver", "hub", "errors"]
    folder = Path(llmhub_runtime.__file__).parent
    assert [name for name in names if not (folder / f"{name}.py").is_file()] == []


def test_sp1_model_interfaces() -> None:
    assert issubclass(LLMMode, str)
    assert {mode.value for mode in LLMMode} == {"chat", "embedding", "image", "audio", "tool", "other"}
    assert ProviderConfig().env_key is None
    role = RoleConfig(provider="openai", model="m", mode=LLMMode.CHAT)
    assert role.params == {}
    assert set(RoleDefaultsConfig.model_fields) == set(RoleConfig.model_fields)
    config = RuntimeConfig(project="p", env="e", providers={"openai": ProviderConfig()}, roles={"r": role})
    assert config.defaults is None
    call = ResolvedCall(role="r", provider="openai", model="m", mode=LLMMode.CHAT, params={})
    assert {"role", "provider", "model", "mode", "params"} <= set(call.model_dump())


def test_sp2_load_runtime_config_and_parse_runtime_config(tmp_path: Path) -> None:
    path = tmp_path / "llmhub.yaml"
    path.write_text(README_CONFIG)
    assert load_runtime_config(str(path)) == parse_runtime_config(yaml.safe_load(README_CONFIG))
    path.write_text(README_CONFIG.replace("mode: chat", "mode: talk"))
    with pytest.raises(ConfigError):
        load_runtime_config(str(path))
    with pytest.raises(ConfigError):
        parse_runtime_config({"project": "p"})


def test_sp3_resolve_role() -> None:
    config = parse_runtime_config(yaml.safe_load(EXPECTED_STRUCTURE))
    call = resolve_role(config, "llm.inference", {"temperature": 0.1})
    assert (call.provider, call.model, call.mode) == ("openai", "gpt-4.1", LLMMode.CHAT)
    assert call.params == {"temperature": 0.1, "max_tokens": 2048}
    assert resolve_role(config, "llm.embedding").params == {"embedding_dim": 1536}
    assert resolve_role(config, "llm.unheard").model == "gpt-4o-mini"
    without = config.model_copy(update={"defaults": None})
    with pytest.raises(UnknownRoleError):
        resolve_role(without, "llm.unheard")
    with pytest.raises(UnknownProviderError):
        resolve_role(config.model_copy(update={"providers": {}}), "llm.inference")


def test_sp4_errors() -> None:
    kinds = (ConfigError, UnknownRoleError, UnknownProviderError, EnvVarMissingError)
    assert all(issubclass(kind, LLMHubRuntimeError) for kind in kinds)
    assert issubclass(LLMHubRuntimeError, Exception)
    assert str(LLMHubRuntimeError("a readable message")) == "a readable message"


def test_sp5_constructor(provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = list(inspect.signature(LLMHub).parameters)
    assert parameters[:5] == ["config_path", "config_obj", "strict_env", "on_before_call", "on_after_call"]
    config = parse_runtime_config(served(EXPECTED_STRUCTURE, provider))
    with pytest.raises(ConfigError):
        LLMHub()
    with pytest.raises(ConfigError):
        LLMHub(config_path="llmhub.yaml", config_obj=config)
    LLMHub(config_obj=config, strict_env=True).close()
    monkeypatch.delenv("MISTRAL_API_KEY")
    LLMHub(config_obj=config, strict_env=False).close()
    with pytest.raises(EnvVarMissingError, match="MISTRAL_API_KEY"):
        LLMHub(config_obj=config, strict_env=True)


def test_sp5_methods_sync(hub: LLMHub, provider: ScriptedProvider) -> None:
    answer = hub.completion("llm.memread", [{"role": "user", "content": "Hello"}], {"max_tokens": 8})
    assert answer.choices[0].message.content == "hello"
    assert len(hub.embedding("llm.embedding", ["a", "b"], {"embedding_dim": 3}).data) == 2
    assert [request.path for request in provider.requests] == ["/v1/messages", "/v1/embeddings"]


def test_sp5_methods_async(provider: ScriptedProvider) -> None:
    async def calls() -> tuple[Any, Any]:
        async with LLMHub(config_obj=parse_runtime_config(served(EXPECTED_STRUCTURE, provider))) as hub:
            messages = [{"role": "user", "content": "Hello"}]
            return await asyncio.gather(
                hub.acompletion("llm.inference", messages), hub.aembedding("llm.embedding", "Hello world")
            )

    answer, vectors = asyncio.run(calls())
    assert answer.choices[0].message.content == "hello"
    assert len(vectors.data[0].embedding) == 1536


def test_sp5_optional_streaming(provider: ScriptedProvider) -> None:
    messages = [{"role": "user", "content": "Hello"}]

    async def read(hub: LLMHub) -> list[Any]:
        return [chunk async for chunk in hub.astream_completion("llm.inference", messages)]

    with LLMHub(config_obj=parse_runtime_config(served(EXPECTED_STRUCTURE, provider))) as hub:
        for chunks in (list(hub.stream_completion("llm.inference", messages)), asyncio.run(read(hub))):
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
            assert text == "hello"


def test_sp5_call_context_and_call_result(provider: ScriptedProvider) -> None:
    assert {"role", "provider", "model", "mode", "params", "messages", "input"} <= set(get_type_hints(CallContext))
    wanted = {"role", "provider", "model", "mode", "duration_ms", "success", "error", "response"}
    assert wanted <= set(get_type_hints(CallResult))
    before: list[CallContext] = []
    after: list[CallResult] = []
    config = parse_runtime_config(served(EXPECTED_STRUCTURE, provider))
    with LLMHub(config_obj=config, on_before_call=before.append, on_after_call=after.append) as hub:
        hub.completion("llm.inference", [{"role": "user", "content": "Hello"}])
        hub.embedding("llm.embedding", "Hello world")
        provider.script(error_reply(500))
        with pytest.raises(LLMHubRuntimeError):
            hub.completion("llm.inference", [{"role": "user", "content": "Hello"}])
    assert before[0].messages == [{"role": "user", "content": "Hello"}]
    assert before[1].input == "Hello world"
    assert [result.success for result in after] == [True, True, False]
    assert after[0].response.choices[0].message.content == "hello"
    assert isinstance(after[2].error, LLMHubRuntimeError)
    assert all(result.duration_ms > 0 for result in after)


def test_sp5_internal_behaviour_of_completion(hub: LLMHub, provider: ScriptedProvider) -> None:
    """Provider, model, messages and merged parameters arrive; the key is the one that `env_key` names."""
    hub.completion("llm.inference", [{"role": "user", "content": "Hello"}], {"temperature": 0.1})
    request = provider.requests[0]
    assert request.body == {
        "model": "gpt-4.1",
        "messages": [{"role": "user", "content": "Hello"}],
        "temperature": 0.1,
        "max_completion_tokens": 2048,
    }
    assert request.headers["authorization"] == "Bearer sk-openai"


def test_6_readme_runtime_config(tmp_path: Path) -> None:
    path = tmp_path / "llmhub.yaml"
    path.write_text(README_CONFIG)
    assert list(load_runtime_config(str(path)).roles) == ["llm.preprocess", "llm.inference"]


def test_6_readme_basic_usage(in_project: ScriptedProvider, capsys: pytest.CaptureFixture[str]) -> None:
    from llmhub_runtime import LLMHub

    hub = LLMHub(config_path="llmhub.yaml")

    response = hub.completion(
        role="llm.inference",
        messages=[{"role": "user", "content": "Hello"}],
    )

    print(response)
    assert "hello" in capsys.readouterr().out
    hub.close()


def test_6_readme_embeddings(in_project: ScriptedProvider) -> None:
    with LLMHub(config_path="llmhub.yaml") as hub:
        embedding = hub.embedding(
            role="llm.embedding",
            input="Hello world",
        )
    assert len(embedding.data[0].embedding) == 1536


def test_6_readme_to_override_parameters_per_call(in_project: ScriptedProvider) -> None:
    with LLMHub(config_path="llmhub.yaml") as hub:
        hub.completion(
            role="llm.inference",
            messages=[{"role": "user", "content": "Hello"}],
            params_override={"temperature": 0.1},
        )
    assert in_project.requests[0].body["temperature"] == 0.1


def test_6_readme_design_principles_no_provider_logic() -> None:
    """No module of the hub imports a provider's SDK or an HTTP client (the simulated model is a server)."""
    foreign = {"openai", "anthropic", "ollama", "mistralai", "httpx", "httpx2", "requests", "aiohttp"}
    imported: set[str] = set()
    for path in Path(llmhub_runtime.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    assert "any_llm" in imported
    assert imported & foreign == set()
