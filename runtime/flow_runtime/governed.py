"""The rules over a flow in this process: its policy in front of models and tools, and the budgets of its ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from agentflow.ir import Flow
from flow_runtime.hub_models import HubModels, local_models
from flow_runtime.tool_policy import AdmitByPolicy

if TYPE_CHECKING:
    from agent_runtime.actions.manager import ActionManager
    from flow_runtime.local import LocalSettings
    from llmhub_runtime.hub import LLMHub
    from runtime_core.stores.database import Database


async def under_policy(stack: AsyncExitStack, settings: LocalSettings) -> LocalSettings:
    """The settings with the guard and the tool policy that their policy makes; what it opens closes with `stack`."""
    if settings.policy is None:
        return settings
    from agent_runtime.policy.engine import PolicyEngine
    from agent_runtime.policy.guard import PolicyGuard
    from agent_runtime.policy.policy_file import asks_people

    actions = settings.actions
    if actions is None and asks_people(settings.policy):
        from runtime_core.stores.url import open_database

        actions = actions_on(await stack.enter_async_context(open_database(settings.store)), settings)
    engine = PolicyEngine.of(settings.policy, actions=actions)
    return replace(settings, policy=None, guard=PolicyGuard(engine), tool_policy=AdmitByPolicy(engine))


def actions_on(database: Database, settings: LocalSettings) -> ActionManager:
    """What asks people, on a database."""
    from agent_runtime.actions.manager import ActionManager
    from agent_runtime.actions.sql_store import SqlActionStore

    return ActionManager(SqlActionStore(database), clock=settings.clock, ids=settings.ids)


@asynccontextmanager
async def governed_models(flow: Flow, hub: LLMHub, settings: LocalSettings) -> AsyncIterator[HubModels]:
    """`local_models` as the settings say, their budgets declared. A flow with budgets has its ledger in the store."""
    ledger = settings.ledger or (None if settings.budgets is None else settings.store)
    models = local_models(
        flow, hub, allow_hosts=settings.allow_hosts, embedder=settings.embedder, ledger=ledger, guard=settings.guard
    )
    async with models as opened:
        if settings.budgets is not None:
            from agent_runtime.ledger.declared import declare_budgets

            source, budgets = f"run:{flow.metadata.name}", settings.budgets.budgets
            await declare_budgets(opened.database, source, budgets, clock=settings.clock, ids=settings.ids)
        yield opened
