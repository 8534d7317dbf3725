"""Policies that requests select by name, and by version where they say one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agent_runtime.errors import OrchestrationError
from agent_runtime.policy.engine import PolicyEngine
from agent_runtime.policy.rules import PolicyDocument
from runtime_core.context import PolicyRef


class NamedPolicies:
    """The engines of policy documents; of several with one name, the one that comes last is the newest.

    `options` are those of each PolicyEngine. Raises ValueError for two documents of one name and version.
    """

    def __init__(self, documents: Iterable[PolicyDocument] = (), **options: Any) -> None:
        self._by_name: dict[str, dict[str | None, PolicyEngine]] = {}
        for document in documents:
            versions = self._by_name.setdefault(document.name, {})
            if document.version in versions:
                raise ValueError(f"There are two policies {_title(document.name, document.version)}.")
            versions[document.version] = PolicyEngine.of(document, **options)

    def exact(self, wanted: PolicyRef | None) -> PolicyRef | None:
        """The same with the version that is the newest now, so that a run keeps its policy.

        Raises OrchestrationError where there is no such policy.
        """
        if wanted is None:
            return None
        versions = self._by_name.get(wanted.name)
        if versions is None:
            known = ", ".join(map(repr, self._by_name)) or "none"
            raise OrchestrationError(f"There is no policy {wanted.name!r}; there are: {known}.")
        if wanted.version is None:
            return wanted.model_copy(update={"version": [*versions][-1]})
        if wanted.version not in versions:
            known = ", ".join(_version(each) for each in versions)
            raise OrchestrationError(
                f"There is no policy {_title(wanted.name, wanted.version)}; of that name there are: {known}."
            )
        return wanted

    def engine(self, wanted: PolicyRef) -> PolicyEngine:
        """Raises OrchestrationError where there is no such policy."""
        found = self.exact(wanted)
        assert found is not None, "there is one, or an error"
        return self._by_name[found.name][found.version]


def _title(name: str, version: str | None) -> str:
    return f"{name!r} {_version(version)}"


def _version(version: str | None) -> str:
    return "without a version" if version is None else f"version {version!r}"
