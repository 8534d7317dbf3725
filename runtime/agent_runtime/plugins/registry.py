"""Which plugins there are: found by entry points, allowed by lists, in the order of their dependencies."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib import metadata
from typing import Any, Protocol

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from agent_runtime.errors import PluginDependencyError, PluginInvalidError, PluginRefusedError
from agent_runtime.plugins.plugin import Plugin
from agent_runtime.policy.globs import any_of
from agent_runtime.policy.rules import Rule

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "agent_runtime.plugins"


class Entry(Protocol):
    """An entry point; what it loads is a Plugin, or a function or class that makes one."""

    @property
    def name(self) -> str: ...

    def load(self) -> Any: ...


def installed_entries() -> Iterable[Entry]:
    return metadata.entry_points(group=ENTRY_POINT_GROUP)


class PluginRegistry:
    """`allow` and `deny` are globs of names; None allows every name, and what is denied is never loaded.

    Add plugins with `register` and `discover`, then `start`: it checks what they require and starts them in order.
    """

    def __init__(
        self,
        *,
        allow: Iterable[str] | None = None,
        deny: Iterable[str] = (),
        entries: Callable[[], Iterable[Entry]] = installed_entries,
        version_of: Callable[[str], str] = metadata.version,
    ) -> None:
        self._allows = None if allow is None else any_of(allow)
        self._denies = any_of(deny)
        self._entries = entries
        self._version_of = version_of
        self._plugins: dict[str, Plugin] = {}
        self._started: list[Plugin] = []

    def is_allowed(self, name: str) -> bool:
        return (self._allows is None or self._allows(name) is not None) and self._denies(name) is None

    def discover(self) -> list[str]:
        """Load the installed plugins whose entry point is allowed; their names. Others are not even imported."""
        found: list[str] = []
        for entry in self._entries():
            if self.is_allowed(entry.name):
                plugin = _made(entry)
                if plugin.manifest.name != entry.name:
                    raise PluginInvalidError(
                        f"The entry point {entry.name!r} brings a plugin that calls itself {plugin.manifest.name!r}.",
                        plugin=entry.name,
                    )
                self.register(plugin)
                found.append(entry.name)
        return found

    def register(self, plugin: Plugin) -> None:
        """Raises PluginRefusedError, and PluginInvalidError for a name that is taken."""
        name = plugin.manifest.name
        if not self.is_allowed(name):
            raise PluginRefusedError(f"The plugin {name!r} is not allowed here.", plugin=name)
        if name in self._plugins:
            raise PluginInvalidError(f"There are two plugins called {name!r}.", plugin=name)
        self._plugins[name] = plugin

    def get(self, name: str) -> Plugin | None:
        return self._plugins.get(name)

    def in_order(self) -> list[Plugin]:
        """Every plugin after those that it requires. Raises PluginDependencyError."""
        graph: dict[str, list[str]] = {}
        for name, plugin in sorted(self._plugins.items()):
            self._check_packages(plugin)
            graph[name] = [self._required(plugin, Requirement(text)) for text in plugin.manifest.requires]
        try:
            return [self._plugins[name] for name in TopologicalSorter(graph).static_order()]
        except CycleError as exc:
            circle = " -> ".join(exc.args[1])
            raise PluginDependencyError(f"Plugins require each other in a circle: {circle}.") from exc

    async def start(self) -> None:
        """Start all plugins in order; if one cannot, those that were started are stopped again."""
        for plugin in self.in_order():
            try:
                await plugin.start()
            except BaseException:
                await self._undo(plugin)
                raise
            self._started.append(plugin)

    async def _undo(self, culprit: Plugin) -> None:
        """Stop what was started; that one of them cannot is told to the log, where `culprit`'s error is raised."""
        try:
            await self.stop()
        except Exception:
            name = culprit.manifest.name
            logger.warning("the plugin %s did not start, and those before did not all stop", name, exc_info=True)

    async def stop(self) -> None:
        """Stop what was started, in reverse; all of them, even if one fails."""
        failed: Exception | None = None
        while self._started:
            try:
                await self._started.pop().stop()
            except Exception as exc:  # noqa: BLE001 - a plugin that fails must not keep others from stopping
                failed = failed or exc
        if failed is not None:
            raise failed

    def policies(self) -> list[Rule]:
        return [rule for plugin in self.in_order() for rule in plugin.policies()]

    def operators(self) -> Mapping[str, Any]:
        """Raises PluginInvalidError for an id that two plugins bring."""
        found: dict[str, Any] = {}
        for plugin in self.in_order():
            for operator_id, operator in plugin.operators().items():
                if operator_id in found:
                    raise PluginInvalidError(
                        f"Two plugins bring the operator {operator_id!r}.", plugin=plugin.manifest.name
                    )
                found[operator_id] = operator
        return found

    def tools(self) -> list[Any]:
        return [tool for plugin in self.in_order() for tool in plugin.tools()]

    def _required(self, plugin: Plugin, needed: Requirement) -> str:
        """The name of the plugin that meets the requirement."""
        by_canonical_name = {canonicalize_name(name): name for name in self._plugins}
        name = by_canonical_name.get(canonicalize_name(needed.name))
        found = None if name is None else self._plugins[name].manifest.version
        if name is None or found is None or not needed.specifier.contains(found, prereleases=True):
            raise _unmet(plugin, needed, f"{found} is there" if found else "it is not there")
        return name

    def _check_packages(self, plugin: Plugin) -> None:
        for text in plugin.manifest.requires_packages:
            needed = Requirement(text)
            try:
                found = self._version_of(needed.name)
            except metadata.PackageNotFoundError as exc:
                raise _unmet(plugin, needed, "it is not installed") from exc
            if not needed.specifier.contains(found, prereleases=True):
                raise _unmet(plugin, needed, f"{found} is installed")


def _unmet(plugin: Plugin, needed: Requirement, but: str) -> PluginDependencyError:
    name = plugin.manifest.name
    return PluginDependencyError(f"The plugin {name!r} needs {needed}, and {but}.", plugin=name, needs=str(needed))


def _made(entry: Entry) -> Plugin:
    try:
        loaded = entry.load()
        plugin = loaded if isinstance(loaded, Plugin) else loaded()
    except Exception as exc:
        raise PluginInvalidError(f"The plugin {entry.name!r} does not load: {exc}", plugin=entry.name) from exc
    if not isinstance(plugin, Plugin):
        raise PluginInvalidError(f"The entry point {entry.name!r} brings no Plugin.", plugin=entry.name)
    return plugin
