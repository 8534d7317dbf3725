"""From `llmhub.yaml`, or a dictionary, to a checked `RuntimeConfig`. Knows nothing of any-llm.

The YAML is composed once into nodes. Their marks give every key its line, and one walk over them refuses what
would hurt later: duplicate keys, keys that YAML does not read as text, and aliases that expand without end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.constructor import ConstructorError
from yaml.error import MarkedYAMLError
from yaml.reader import ReaderError

from .errors import ConfigError
from .models import ProviderConfig, RuntimeConfig

MAX_BYTES = 1 << 20
MAX_NODES = 100_000
MAX_DEPTH = 64

KeyPath = tuple[str | int, ...]

_TEXT_TAGS = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"})
_NAMING_PATHS: frozenset[KeyPath] = frozenset({("providers",), ("roles",)})
"""Where the keys are names that a person chose: YAML reads a bare `on` or `1` as something else."""


@dataclass(slots=True)
class _Problem:
    sentence: str
    key: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = ", ".join(
            part for part in (f"line {self.line}" if self.line else "", f"key {self.key}" if self.key else "") if part
        )
        return f"{place}: {self.sentence}" if place else self.sentence


@dataclass(slots=True)
class _Positions:
    """The line of every key path, and what is wrong with the document before anyone reads its values."""

    lines: dict[KeyPath, int] = field(default_factory=dict[KeyPath, int])
    problems: list[_Problem] = field(default_factory=list[_Problem])

    def line_of(self, key: KeyPath) -> int | None:
        """The line of the key, or of the nearest thing around it."""
        return next((self.lines[key[:n]] for n in range(len(key), -1, -1) if key[:n] in self.lines), None)


class _Loader(yaml.SafeLoader):
    """A SafeLoader whose scalars fail with their place: `!!int x` alone would be a bare ValueError."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as exc:
            kind = node.tag.rpartition(":")[2]
            raise ConstructorError(None, None, f"this cannot be read as {kind}", node.start_mark) from exc


def load_runtime_config(path: str | os.PathLike[str]) -> RuntimeConfig:
    """The configuration in a file. Raises ConfigError, which names the file, the line and the key."""
    name = os.fspath(path)
    text = _read(name)
    data, positions = _compose(text, name)
    return _validate(data, positions, name)


def parse_runtime_config(data: Mapping[str, Any]) -> RuntimeConfig:
    """The configuration in a dictionary. Raises ConfigError, which names the key."""
    return _validate(data, _Positions(), None)


def with_api_base(config: RuntimeConfig, provider: str, base: str) -> RuntimeConfig:
    """The same configuration with another address for one provider, which is added if it is missing.

    Raises ConfigError when `base` is no http(s) URL.
    """
    known = config.providers.get(provider, ProviderConfig())
    try:
        changed = ProviderConfig(env_key=known.env_key, api_base=base, client_args=known.client_args)
    except ValidationError as exc:
        key = f"providers.{provider}.api_base"
        raise ConfigError(f"{key} {first_problem(exc)[1]}.", key=key) from exc
    return config.model_copy(update={"providers": {**config.providers, provider: changed}})


def _read(name: str) -> str:
    try:
        raw = Path(name).read_bytes()
    except FileNotFoundError as exc:
        raise ConfigError(f"{name}: there is no such file; check the path.", path=name) from exc
    except OSError as exc:
        raise ConfigError(f"{name}: cannot be read ({exc.strerror or exc}).", path=name) from exc
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{name}: is larger than {MAX_BYTES >> 20} MiB; that is no llmhub.yaml.", path=name)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = raw[: exc.start].count(b"\n") + 1
        raise ConfigError(f"{name}: line {line}: is not UTF-8 text.", path=name, line=line) from exc


def _compose(text: str, name: str) -> tuple[Any, _Positions]:
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise ConfigError(f"{name}: is empty; it needs project, env, providers and roles.", path=name)
            positions = _walk(node)
            if positions.problems:
                raise _config_error(positions.problems, name)
            return loader.construct_document(node), positions
        finally:
            loader.dispose()
    except yaml.YAMLError as exc:
        raise _yaml_error(exc, text, name) from exc
    except RecursionError as exc:
        raise ConfigError(f"{name}: is nested too deeply.", path=name) from exc


def _yaml_error(exc: yaml.YAMLError, text: str, name: str) -> ConfigError:
    if isinstance(exc, ReaderError):
        line, what = text.count("\n", 0, exc.position) + 1, exc.reason
    elif isinstance(exc, MarkedYAMLError) and exc.problem_mark is not None:
        line, what = exc.problem_mark.line + 1, exc.problem
    else:
        line, what = None, str(exc)
    place = f" line {line}:" if line else ""
    return ConfigError(f"{name}:{place} is not valid YAML: {what}.", path=name, line=line)


def _walk(root: yaml.Node) -> _Positions:
    """Depth first and with an explicit stack; an alias counts each time that it is used."""
    positions = _Positions(lines={(): root.start_mark.line + 1})
    stack: list[tuple[KeyPath, yaml.Node]] = [((), root)]
    visited = 0
    while stack:
        path, node = stack.pop()
        visited += 1
        if visited > MAX_NODES or len(path) > MAX_DEPTH:
            positions.problems.append(_Problem("the document is too large or too deep; check its aliases"))
            return positions
        if isinstance(node, yaml.MappingNode):
            stack.extend(_children(path, node, positions))
        elif isinstance(node, yaml.SequenceNode):
            stack.extend(((*path, index), child) for index, child in enumerate(node.value))
    return positions


def _children(path: KeyPath, node: yaml.MappingNode, positions: _Positions) -> Iterator[tuple[KeyPath, yaml.Node]]:
    seen: dict[tuple[str, str], int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        text = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "a structure"
        if key_node.tag not in _TEXT_TAGS and path in _NAMING_PATHS:
            sentence = f"{text} is not text to YAML; write the key in quotes"
            positions.problems.append(_Problem(sentence, key=_dotted(path), line=line))
        elif (key_node.tag, text) in seen and isinstance(key_node, yaml.ScalarNode):
            sentence = f"the key is already set in line {seen[key_node.tag, text]}"
            positions.problems.append(_Problem(sentence, key=_dotted((*path, text)), line=line))
        else:
            seen[key_node.tag, text] = line
            positions.lines.setdefault((*path, text), line)
            yield (*path, text), value_node


def _validate(data: Any, positions: _Positions, name: str | None) -> RuntimeConfig:
    if not isinstance(data, Mapping):
        line = positions.line_of(())
        raise _config_error([_Problem("the configuration must be a mapping of keys to values", line=line)], name)
    try:
        return RuntimeConfig.model_validate(data)
    except ValidationError as exc:
        raise _config_error(_problems(exc, positions), name) from exc


def first_problem(exc: ValidationError) -> tuple[str | None, str]:
    """The key and the sentence of a validation error's first problem, without the value that caused it."""
    problem = _problems(exc, _Positions())[0]
    return problem.key, problem.sentence


def _problems(exc: ValidationError, positions: _Positions) -> list[_Problem]:
    """Built from pydantic's sentences alone: its own text would repeat values, which may be secrets."""
    problems: list[_Problem] = []
    for error in exc.errors(include_url=False, include_input=False):
        path: KeyPath = error.get("ctx", {}).get("key") or tuple(error["loc"])
        sentence = "is not a known key" if error["type"] == "extra_forbidden" else _lower_first(error["msg"])
        problems.append(_Problem(sentence, key=_dotted(path), line=positions.line_of(path)))
    return sorted(problems, key=lambda problem: problem.line or 0)


def _lower_first(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _dotted(path: KeyPath) -> str | None:
    return ".".join(str(part) for part in path) or None


def _config_error(problems: list[_Problem], name: str | None) -> ConfigError:
    first = problems[0]
    sentences = tuple(str(problem) for problem in problems)
    message = f"{name or 'llmhub configuration'}: {'; '.join(sentences)}."
    return ConfigError(message, path=name, line=first.line, key=first.key, problems=sentences)
