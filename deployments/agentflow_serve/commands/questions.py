"""What a run in this process asks people, told on stderr with the command that answers it."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from runtime_core.stores.url import MEMORY

if TYPE_CHECKING:
    from agent_runtime.events.types import RuntimeEvent
    from flow_runtime.local import LocalSettings


@asynccontextmanager
async def told(settings: LocalSettings) -> AsyncIterator[LocalSettings]:
    """The settings with actions in their store. Raises errors of the StoreError tree."""
    from agent_runtime.actions.manager import ActionManager
    from agent_runtime.actions.sql_store import SqlActionStore
    from agent_runtime.events.memory import InMemoryEventBus
    from agent_runtime.events.types import RuntimeEventType
    from runtime_core.stores.url import open_database

    bus = InMemoryEventBus()

    def tell(event: RuntimeEvent) -> None:
        click.echo(_sentence(event, settings.store), err=True)

    async with open_database(settings.store) as database:
        store = SqlActionStore(database)
        actions = ActionManager(store, event_bus=bus, clock=settings.clock, ids=settings.ids)
        hears = await bus.subscribe(tell, event_types=[RuntimeEventType.ACTION_REQUIRED], scope_id=None)
        try:
            yield replace(settings, actions=actions)
        finally:
            await hears.unsubscribe()


def _sentence(event: RuntimeEvent, store: str) -> str:
    if store == MEMORY:
        return "the run waits for a person, and nobody else can see its store in memory; name one with --store"
    scope = [] if event.scope_id == "default" else ["--scope", event.scope_id]
    resolve = ["agentflow", "actions", "resolve", event.action_id or "", "--store", store, *scope]
    return f"the run waits for a person: {shlex.join(resolve)} --approve (`actions show` says what it asks)"
