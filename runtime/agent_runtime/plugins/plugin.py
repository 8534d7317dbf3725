"""What a plugin is, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, ConfigDict

from agent_runtime.policy.rules import Rule
from runtime_core.context import Name


def _check_version(text: str) -> str:
    try:
        Version(text)
    except InvalidVersion as exc:
        raise ValueError(str(exc)) from exc
    return text


def _check_requirement(text: str) -> str:
    try:
        Requirement(text)
    except InvalidRequirement as exc:
        raise ValueError(f"{text!r} is no requirement: {exc}") from exc
    return text


VersionText = Annotated[str, AfterValidator(_check_version)]
RequirementText = Annotated[str, AfterValidator(_check_requirement)]


class PluginManifest(BaseModel):
    """`requires` are other plugins, `requires_packages` installed distributions, both as `name>=1.2`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    version: VersionText = "0"
    description: str = ""
    requires: tuple[RequirementText, ...] = ()
    requires_packages: tuple[RequirementText, ...] = ()


class Plugin:
    """Subclass it: give it a `manifest`, and override what it brings."""

    manifest: PluginManifest

    def policies(self) -> Sequence[Rule]:
        """Rules that are added to the runtime's policy."""
        return ()

    def operators(self) -> Mapping[str, Any]:
        """Operators by the id under which a request may ask for them."""
        return {}

    def tools(self) -> Sequence[Any]:
        """llm_client Tools for agents."""
        return ()

    async def start(self) -> None:
        """Called once, after the plugins that it requires."""

    async def stop(self) -> None:
        """Called once, before the plugins that it requires."""
