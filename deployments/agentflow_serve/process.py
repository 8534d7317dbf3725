"""What a replica opens before it can run nodes, and closes when it goes: the same in node and predictor replicas."""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from agentflow.feature_use import asks_people, calls_models
from agentflow.ir import Flow, Node
from agentflow.subflows import all_nodes
from agentflow_serve.actor_or_store import MEMORY
from agentflow_serve.key_files import export_keys
from agentflow_serve.process_settings import ProcessSettings
from agentflow_serve.run_store import RunStore
from flow_runtime.dispatch import Dispatcher
from flow_runtime.errors import ModelFailed
from flow_runtime.models import Models, accounts_of
from flow_runtime.node import NodeParts
from flow_runtime.operations import OperationResources, OperationSettings
from flow_runtime.recorder import CallRecorder
from flow_runtime.state import StateBackend, StateBackends, StoredState
from flow_runtime.tool_policy import AdmitAllTools, AdmitByPolicy
from llmhub_runtime.names import SERVED_FLOW, SIM
from runtime_core.clock import SystemClock
from runtime_core.stores.url import is_postgres

if TYPE_CHECKING:
    from agent_runtime.actions.manager import ActionManager
    from agent_runtime.ledger.transactions import LedgerTransactions
    from agent_runtime.policy.engine import PolicyEngine
    from agent_runtime.policy.rules import PolicyDocument
    from flow_runtime.budgets import RunAccounts

Locate = Callable[[], Awaitable[str]]


def spare_what_stays() -> None:
    """Call it when a replica is ready: what it has imported and opened is never garbage.

    A full collection over it takes 90 ms, in the middle of somebody's request, and finds nothing.
    """
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def sim_locator(sim: DeploymentHandle | None) -> Callable[[], Awaitable[str]] | None:
    """How a replica finds the simulated model, if the app has one."""
    if sim is None:
        return None

    async def locate() -> str:
        try:
            return await sim.address.remote()
        except (RayError, RayServeException) as exc:
            raise ModelFailed("the simulated model is not there now; it is restarting, try again", model=SIM) from exc

    return locate


async def open_parts(
    stack: AsyncExitStack,
    settings: ProcessSettings,
    nodes: Collection[Node],
    *,
    store: RunStore,
    sim: DeploymentHandle | None,
    tools: Dispatcher,
    actions: ActionManager | None = None,
    recorder: CallRecorder | None = None,
) -> NodeParts:
    """The parts that these nodes need; what is opened is closed with `stack`. `tools` leads to the nodes they call.

    Those that ask people ask by `actions` where the process has opened them already. `recorder` counts the calls of
    models.
    """
    os.environ[SERVED_FLOW] = serve.get_replica_context().app_name  # read by hubs here and in sandbox processes
    export_keys(os.environ)
    clock = SystemClock()
    if actions is None and may_ask(settings, nodes):
        actions = await open_actions(store)
    resources = OperationResources(actions=actions)
    policy = None if settings.policy is None else _open_policy(settings.policy, actions)
    stack.push_async_callback(resources.aclose)
    models = None
    if settings.llmhub is not None and calls_models(nodes, settings.embedder):
        models = await _open_models(stack, settings, store, sim_locator(sim), policy, recorder)
    return NodeParts(
        clock=clock,
        models=models,
        state=await open_state(store, nodes),
        operation_settings=OperationSettings(
            allow_hosts=settings.allow_hosts,
            feature_store=settings.feature_store,
            embedder=settings.embedder,
            slot_modules=settings.slot_modules,
        ),
        operation_resources=resources,
        code=settings.code,
        tools=tools,
        tool_policy=AdmitAllTools() if policy is None else AdmitByPolicy(policy),
    )


async def open_accounts(
    stack: AsyncExitStack, store: RunStore, flow: Flow, models: Models | None
) -> RunAccounts | None:
    """Where the runs of the flow have their budgets; None for a flow whose runs may use anything."""
    if flow.budgets is None:
        return None
    if (accounts := accounts_of(models)) is not None:
        return accounts
    from agent_runtime.ledger.run_ledger import RunLedger

    return await stack.enter_async_context(RunLedger(await store.database()))


async def open_state(store: RunStore, nodes: Iterable[Node]) -> StateBackends:
    """The state backends that these nodes keep something in."""
    return StateBackends({name: await _open_backend(store, name) for name in sorted(state_backends(nodes))})


def state_backends(nodes: Iterable[Node]) -> frozenset[str]:
    """The names of those backends."""
    return frozenset(node.state.backend for node in all_nodes(nodes) if node.state)


async def _open_models(
    stack: AsyncExitStack,
    settings: ProcessSettings,
    store: RunStore,
    locate_sim: Locate | None,
    policy: PolicyEngine | None,
    recorder: CallRecorder | None,
) -> Models:
    from agent_runtime.policy.guard import PolicyGuard
    from flow_runtime.hub_models import HubModels, list_prices
    from llmhub_runtime.hub import LLMHub
    from llmhub_runtime.models import RuntimeConfig

    hub = LLMHub(config_obj=RuntimeConfig.model_validate(settings.llmhub), behind_engine=True)
    stack.push_async_callback(hub.aclose)
    models = HubModels(
        hub,
        guard=None if policy is None else PolicyGuard(policy),
        allow_hosts=settings.allow_hosts,
        locate_sim=locate_sim,
        database=await store.database(),
        transactions=await _open_commits(stack, settings, store),
        prices=await list_prices() if settings.list_prices else None,
        recorder=recorder,
    )
    await stack.enter_async_context(models)
    await models.warm_up(settings.roles)
    return models


async def _open_commits(stack: AsyncExitStack, settings: ProcessSettings, store: RunStore) -> LedgerTransactions | None:
    """The way through the shared actor, where this app takes it; None is the store's own."""
    if not commits_together(settings):
        return None
    from agentflow_serve.session_ledger import LedgerCalls
    from agentflow_serve.shared_commits import SharedCommits

    calls = LedgerCalls(serve.get_replica_context().app_name)
    return await SharedCommits.open(stack, calls, settings.store, store)


def commits_together(settings: ProcessSettings) -> bool:
    """Whether the shared actor commits the calls of all replicas. A store in memory is each replica's own."""
    if settings.ledger is None:
        return is_postgres(settings.store)
    return settings.ledger == "shared" and settings.store != MEMORY


def may_ask(settings: ProcessSettings, nodes: Collection[Node]) -> bool:
    """Whether a person may be asked: by these nodes, for a larger budget, or for leave by the policy."""
    if settings.asks_for_more or asks_people(nodes):
        return True
    from agent_runtime.policy.policy_file import asks_people as wants_approval

    return settings.policy is not None and wants_approval(settings.policy)


def _open_policy(document: PolicyDocument, actions: ActionManager | None) -> PolicyEngine:
    from agent_runtime.policy.engine import PolicyEngine

    return PolicyEngine.of(document, actions=actions)


async def open_actions(store: RunStore) -> ActionManager:
    """The questions to people that stand in the run store."""
    from agent_runtime.actions.manager import ActionManager
    from agent_runtime.actions.sql_store import SqlActionStore

    return ActionManager(SqlActionStore(await store.database()))


async def _open_backend(store: RunStore, backend: str) -> StateBackend:
    if backend == "memory":
        from agentflow_serve.session_ledger import SharedState

        return SharedState(serve.get_replica_context().app_name)
    return await StoredState.open(await store.database(), SystemClock())
