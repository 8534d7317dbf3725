"""Plugins: found, allowed, checked, started in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import pytest
from pydantic import ValidationError

from agent_runtime import (
    Plugin,
    PluginDependencyError,
    PluginInvalidError,
    PluginManifest,
    PluginRefusedError,
    PluginRegistry,
    ToolPolicy,
)
from agent_runtime.policy.rules import Rule

log: list[str] = []


@pytest.fixture(autouse=True)
def clean_log() -> None:
    log.clear()


class Sample(Plugin):
    def __init__(self, name: str, version: str = "1.0", *requires: str, packages: Sequence[str] = ()) -> None:
        self.manifest = PluginManifest(
            name=name, version=version, requires=tuple(requires), requires_packages=tuple(packages)
        )

    def policies(self) -> Sequence[Rule]:
        return (ToolPolicy(name=self.manifest.name, tool_patterns=("*",)),)

    def operators(self) -> dict[str, Any]:
        return {f"{self.manifest.name}.run": self}

    async def start(self) -> None:
        log.append(f"start {self.manifest.name}")

    async def stop(self) -> None:
        log.append(f"stop {self.manifest.name}")


@dataclass
class Entry:
    name: str
    value: Any

    def load(self) -> Any:
        log.append(f"load {self.name}")
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def registry_of(*plugins: Plugin, **options: Any) -> PluginRegistry:
    registry = PluginRegistry(entries=list, **options)
    for plugin in plugins:
        registry.register(plugin)
    return registry


async def test_plugins_start_after_what_they_require_and_stop_before_it() -> None:
    registry = registry_of(Sample("c", "1.0", "b>=2", "a"), Sample("a"), Sample("b", "2.1", "a~=1.0"))
    await registry.start()
    await registry.stop()
    assert log == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]
    assert [rule.name for rule in registry.policies()] == ["a", "b", "c"]
    assert set(registry.operators()) == {"a.run", "b.run", "c.run"}


@pytest.mark.parametrize(
    ("version", "needs", "is_met"),
    [
        ("1.10", ">=1.9", True),
        ("1.9", ">=1.10", False),
        ("2.0rc1", ">=2.0", False),
        ("2.0rc1", ">=1.0", True),
        ("1.0", "!=1.0", False),
        ("1.0.0", "==1", True),
        ("3", "~=2.1", False),
    ],
)
def test_versions_are_compared_as_versions(version: str, needs: str, is_met: bool) -> None:
    registry = registry_of(Sample("base", version), Sample("user", "1", f"base{needs}"))
    if is_met:
        assert [plugin.manifest.name for plugin in registry.in_order()] == ["base", "user"]
    else:
        with pytest.raises(PluginDependencyError, match="needs base") as refused:
            registry.in_order()
        assert (refused.value.plugin, refused.value.needs) == ("user", f"base{needs}")


@pytest.mark.parametrize(
    "plugins",
    [
        (Sample("a", "1", "missing"),),
        (Sample("a", "1", "b"), Sample("b", "1", "c"), Sample("c", "1", "a")),
        (Sample("a", "1", packages=["no-such-distribution"]),),
        (Sample("a", "1", packages=["pydantic>=999"]),),
    ],
)
async def test_what_is_required_must_be_there(plugins: tuple[Plugin, ...]) -> None:
    with pytest.raises(PluginDependencyError):
        await registry_of(*plugins).start()
    assert log == []


def test_installed_packages_count() -> None:
    assert registry_of(Sample("a", packages=["pydantic>=2", "PyYAML"])).in_order()

    def nothing_installed(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    with pytest.raises(PluginDependencyError, match="not installed"):
        registry_of(Sample("a", packages=["pydantic"]), version_of=nothing_installed).in_order()


def test_only_what_is_allowed_is_even_imported() -> None:
    entries = [
        Entry("good", Sample("good")),
        Entry("good.too", lambda: Sample("good.too")),
        Entry("bad", Sample("bad")),
    ]
    registry = PluginRegistry(entries=lambda: entries, allow=("good*", "bad"), deny=("b?d",))
    assert registry.discover() == ["good", "good.too"]
    assert log == ["load good", "load good.too"]
    assert registry.get("good") is not None and registry.get("bad") is None
    for name in ("bad", "stranger"):
        with pytest.raises(PluginRefusedError) as refused:
            registry.register(Sample(name))
        assert refused.value.plugin == name


@pytest.mark.parametrize(
    "entry",
    [Entry("a", ImportError("no module")), Entry("a", object), Entry("a", Sample("b")), Entry("a", lambda: 1 / 0)],
)
def test_what_is_no_plugin_is_said_to_be_none(entry: Entry) -> None:
    with pytest.raises(PluginInvalidError) as invalid:
        PluginRegistry(entries=lambda: [entry]).discover()
    assert invalid.value.plugin == "a"


def test_names_are_unique() -> None:
    with pytest.raises(PluginInvalidError, match="two plugins"):
        registry_of(Sample("a"), Sample("a"))


async def test_what_was_started_is_stopped_when_a_later_one_cannot_start() -> None:
    class Broken(Sample):
        async def start(self) -> None:
            raise OSError("no disk")

    registry = registry_of(Sample("a"), Broken("b", "1", "a"), Sample("c", "1", "b"))
    with pytest.raises(OSError):
        await registry.start()
    assert log == ["start a", "stop a"]


async def test_what_kept_a_plugin_from_starting_is_raised_even_if_another_one_cannot_stop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stuck(Sample):
        async def stop(self) -> None:
            raise OSError("no disk")

    class Cancelled(Sample):
        async def start(self) -> None:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await registry_of(Stuck("a"), Cancelled("b", "1", "a")).start()
    assert "no disk" in caplog.text


@pytest.mark.parametrize(
    "manifest",
    [
        {"name": "Not A Name"},
        {"name": "a", "version": "one"},
        {"name": "a", "requires": ["b >> 1"]},
        {"name": "a", "unknown": 1},
    ],
)
def test_a_manifest_is_checked_when_it_is_made(manifest: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PluginManifest.model_validate(manifest)
