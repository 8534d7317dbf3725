"""`llmhub.yaml` is read with its lines: every mistake names the file, the line and the key."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmhub_runtime import ConfigError, RuntimeConfig, load_runtime_config, parse_runtime_config
from llmhub_runtime.config_loader import with_api_base

BASE = """\
project: p
env: dev
providers:
  openai:
roles:
  llm.chat:
    provider: openai
    model: gpt
    mode: chat
"""
SPARE = "  llm.spare: {provider: openai, model: mini, mode: chat}\n"
VECTOR = "  llm.vector: {provider: openai, model: e, mode: embedding}\n"

Load = Callable[[str | bytes], RuntimeConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str | bytes) -> RuntimeConfig:
        path = tmp_path / "llmhub.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_runtime_config(str(path))

    return load_text


def test_a_provider_with_nothing_under_it_is_an_empty_provider(load: Load) -> None:
    config = load(BASE)
    assert config.providers["openai"].env_key is None
    assert config.roles["llm.chat"].params == {}


def test_unknown_top_level_keys_and_meta_are_ignored(load: Load) -> None:
    config = load(BASE + "    meta: {score: 3, why: [a]}\ngenerated_by: someone\n1: x\n")
    dumped = config.model_dump()
    assert "generated_by" not in dumped
    assert "meta" not in dumped["roles"]["llm.chat"]


def test_every_extra_of_a_role_is_read(load: Load) -> None:
    config = load(
        BASE
        + "    price: {input: 0.15, output: 0.6}\n"
        + "    fallback: [llm.spare]\n"
        + "    limits: {requests_per_minute: 60, tokens_per_minute: 1000, concurrency: 4}\n"
        + "    timeout_s: 30\n"
        + SPARE
        + "judge: llm.spare\n"
    )
    role = config.roles["llm.chat"]
    assert role.price is not None and role.limits is not None
    assert (role.price.input, role.price.output) == (Decimal("0.15"), Decimal("0.6"))
    assert (role.limits.requests_per_minute, role.limits.concurrency) == (60, 4)
    assert (role.fallback, role.timeout_s, config.judge) == (("llm.spare",), 30, "llm.spare")


def test_anchors_and_merge_keys_work(load: Load) -> None:
    config = load(BASE.replace("llm.chat:", "llm.chat: &chat") + "  llm.more:\n    <<: *chat\n    model: other\n")
    assert config.roles["llm.more"].model == "other"
    assert config.roles["llm.more"].provider == "openai"


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        (BASE + "    temperatur: 1\n", 10, "roles.llm.chat.temperatur"),
        (BASE + "    mode: chat\n", 10, "roles.llm.chat.mode"),
        (BASE.replace("mode: chat", "mode: chta"), 9, "roles.llm.chat.mode"),
        (BASE.replace("model: gpt", "model:"), 8, "roles.llm.chat.model"),
        (BASE.replace("    model: gpt\n", ""), 6, "roles.llm.chat.model"),
        (BASE.replace("project: p", "project: 12"), 1, "project"),
        (BASE + "  on: {provider: openai, model: m, mode: chat}\n", 10, "roles"),
        (BASE + "    params: {stream: true}\n", 10, "roles.llm.chat.params"),
        (BASE + "    params: {api_key: sk-1}\n", 10, "roles.llm.chat.params"),
        (BASE + "    params: [1]\n", 10, "roles.llm.chat.params"),
        (BASE + "    timeout_s: 0\n", 10, "roles.llm.chat.timeout_s"),
        (BASE + "    timeout_s: .inf\n", 10, "roles.llm.chat.timeout_s"),
        (BASE + "    limits: {concurrency: yes}\n", 10, "roles.llm.chat.limits.concurrency"),
        (BASE + "    limits: {requests_per_second: 1}\n", 10, "roles.llm.chat.limits.requests_per_second"),
        (BASE + "    price: {input: -1, output: 1}\n", 10, "roles.llm.chat.price.input"),
        (BASE + "    price: {input: .nan, output: 1}\n", 10, "roles.llm.chat.price.input"),
        (BASE + "    price: {input: 1}\n", 10, "roles.llm.chat.price.output"),
        (BASE + "    fallback: [llm.none]\n", 10, "roles.llm.chat.fallback.0"),
        (BASE + "    fallback: [llm.vector]\n" + VECTOR, 10, "roles.llm.chat.fallback.0"),
        (BASE + "judge: llm.none\n", 10, "judge"),
        (BASE + VECTOR + "judge: llm.vector\n", 11, "judge"),
        (
            BASE + "defaults: {provider: openai, model: m, mode: chat, fallback: [x]}\n",
            10,
            "defaults.fallback.0",
        ),
        (BASE.replace("  openai:", "  openai: {env_kye: A}"), 4, "providers.openai.env_kye"),
        (BASE.replace("  openai:", "  openai: {api_base: 'host:80'}"), 4, "providers.openai.api_base"),
        (BASE.replace("  openai:", "  openai: {api_base: 'http://u:p@h'}"), 4, "providers.openai.api_base"),
        (
            BASE.replace("  openai:", "  openai: {client_args: {api_key: x}}"),
            4,
            "providers.openai.client_args",
        ),
        ("- a\n- b\n", 1, None),
        ("just words\n", 1, None),
    ],
)
def test_a_mistake_names_the_file_the_line_and_the_key(load: Load, text: str, line: int, key: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    error = caught.value
    assert (error.line, error.key) == (line, key)
    assert error.path is not None and error.path.endswith("llmhub.yaml")
    assert str(error).startswith(f"{error.path}: line {line}")
    assert key is None or key in str(error)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", None, "is empty"),
        ("# only a comment\n", None, "is empty"),
        ("a: [1\nb: }\n", 2, "not valid YAML"),
        ("project: p\n---\nproject: q\n", 2, "not valid YAML"),
        ("a: 1\nb: !!int x\n", 2, "cannot be read as int"),
        ("a: !!python/object:os.system x\n", 1, "not valid YAML"),
        ("a: 1\nb: \x00\n", 2, "not valid YAML"),
        (b"a: 1\nb: \xff\n", 2, "UTF-8"),
        ("[" * 20_000, None, "nested too deeply"),
        ("a: &a [*a]\n", None, "too large or too deep"),
        ("a: 1\n" + "# x\n" * 300_000, None, "larger than 1 MiB"),
    ],
)
def test_a_file_that_is_no_yaml_says_so(load: Load, text: str | bytes, line: int | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load(text)
    assert caught.value.line == line


def test_aliases_that_multiply_are_refused_before_anyone_expands_them(load: Load) -> None:
    rows = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(ConfigError, match="aliases"):
        load("\n".join(rows))


def test_a_missing_file_and_a_folder_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file") as caught:
        load_runtime_config(tmp_path / "none.yaml")
    assert caught.value.path == str(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_runtime_config(tmp_path)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load(BASE.replace("env: dev", "env: 1").replace("mode: chat", "mode: x"))
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "line 2, key env",
        "line 9, key roles.llm.chat.mode",
    ]


def test_fallbacks_may_not_go_round_in_a_circle(load: Load) -> None:
    with pytest.raises(ConfigError, match="circle") as caught:
        load(BASE + "    fallback: [llm.spare]\n" + SPARE.replace("}", ", fallback: [llm.chat]}"))
    told = str(caught.value)
    assert "chat -> llm.spare -> llm.chat" in told or "spare -> llm.chat -> llm.spare" in told
    assert caught.value.line in (10, 11)


def test_fallbacks_may_meet_again(load: Load) -> None:
    third = SPARE.replace("spare", "third")
    config = load(
        BASE + "    fallback: [llm.spare, llm.third]\n" + SPARE.replace("}", ", fallback: [llm.third]}") + third
    )
    assert config.roles["llm.chat"].fallback == ("llm.spare", "llm.third")


def test_a_key_pasted_where_its_name_belongs_is_not_repeated(load: Load) -> None:
    with pytest.raises(ConfigError, match="name of an environment variable") as caught:
        load(BASE.replace("  openai:", "  openai: {env_key: sk-proj-12345}"))
    assert "sk-proj" not in str(caught.value)


def test_a_dictionary_is_checked_like_a_file() -> None:
    data: dict[str, Any] = {"project": "p", "env": "e", "providers": {"openai": None}, "roles": None}
    assert parse_runtime_config(data).roles == {}
    with pytest.raises(ConfigError, match=r"key providers\.openai\.env_key") as caught:
        parse_runtime_config({**data, "providers": {"openai": {"env_key": 5}}})
    assert (caught.value.path, caught.value.line) == (None, None)


def test_the_simulated_model_may_stand_for_other_providers_and_not_for_itself() -> None:
    data: dict[str, Any] = {"project": "p", "env": "e", "providers": {"openai": {"api_base": "sim"}}, "roles": {}}
    config = parse_runtime_config(data)
    assert [config.serving(name) for name in ("openai", "sim", "anthropic")] == ["sim", "sim", "anthropic"]
    with pytest.raises(ConfigError, match="must be a URL, or be left out") as caught:
        parse_runtime_config({**data, "providers": {"sim": {"api_base": "sim"}}})
    assert caught.value.key == "providers.sim.api_base"


def test_an_address_set_later_keeps_the_rest_of_the_provider() -> None:
    data = {"project": "p", "env": "e", "providers": {"openai": {"env_key": "K"}}, "roles": {}}
    changed = with_api_base(parse_runtime_config(data), "openai", "http://127.0.0.1:8000/v1/")
    assert changed.providers["openai"].env_key == "K"
    assert changed.providers["openai"].api_base == "http://127.0.0.1:8000/v1"
    assert with_api_base(changed, "sim", "http://h").providers["sim"].api_base == "http://h"
    with pytest.raises(ConfigError, match="https://host:8000") as caught:
        with_api_base(changed, "sim", "127.0.0.1:9")
    assert caught.value.key == "providers.sim.api_base"


_LINES = [
    "project: p\n",
    "roles:\n",
    "  a: &x\n",
    "    mode: chat\n",
    "    <<: *x\n",
    "---\n",
    "\n",
    "- ",
    "? ",
    ": ",
]
_MARKS = [
    "*x",
    "&x ",
    "[",
    "]",
    "{",
    "}",
    "!!int ",
    "|",
    ">",
    '"',
    "'",
    "\t",
    "%",
    "@",
    "null",
    "1e999",
    "2024-13-45",
]
_YAML_PIECES = st.sampled_from([*_LINES, *_MARKS, "\u2028"])


@given(st.lists(st.one_of(_YAML_PIECES, st.text(max_size=5)), max_size=40).map("".join))
@example("? [1]\n: 2\n")
def test_any_text_either_loads_or_is_a_config_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load_runtime_config(path)
    except ConfigError as error:
        assert str(path) in str(error)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=4),
        lambda inner: st.dictionaries(st.text(max_size=8), inner, max_size=3) | st.lists(inner, max_size=3),
        max_leaves=12,
    )
)
def test_any_value_under_a_role_either_parses_or_is_a_config_error(value: Any) -> None:
    try:
        parse_runtime_config({"project": "p", "env": "e", "providers": {"o": None}, "roles": {"r": value}})
    except ConfigError as error:
        assert error.key is not None and error.key.startswith("roles")
