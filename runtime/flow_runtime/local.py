"""A flow in one process: every node's body side by side, for `agentflow run`, tests and embedding programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agentflow.feature_use import asks_people
from agentflow.ir import Flow
from agentflow.memory import remembers
from agentflow.planning import Plan, plan
from agentflow.subflows import all_nodes
from flow_runtime.budgets import asks_for_more
from flow_runtime.code_mode import CodeMode
from flow_runtime.dispatch import Body, LocalDispatch
from flow_runtime.governed import actions_on, governed_models, under_policy
from flow_runtime.models import Models, accounts_of
from flow_runtime.node import NodeParts, body_of
from flow_runtime.operations import OperationResources, OperationSettings
from flow_runtime.operations.settings import ANY_MODULE
from flow_runtime.runner import FlowRunner
from flow_runtime.state import StateBackend, StateBackends, StoredState
from flow_runtime.tool_policy import AdmitAllTools, ToolPolicy
from runtime_core.clock import Clock, SystemClock
from runtime_core.ids import IdSource, RandomIds
from runtime_core.loop import Observer
from runtime_core.report import RunReport
from runtime_core.sessions.protocol import SessionStore
from runtime_core.sessions.store import StoredSessions
from runtime_core.stores.database import Database
from runtime_core.stores.url import DEFAULT_STORE, MEMORY, open_database

if TYPE_CHECKING:
    from agent_runtime.actions.manager import ActionManager
    from agent_runtime.ledger.budget_file import BudgetDocument
    from agent_runtime.policy.rules import PolicyDocument
    from llm_client.guard import Guard
    from llmhub_runtime.hub import LLMHub


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """`store` is opened only for a flow that keeps state in it, that remembers sessions and has no `sessions` to keep
    them, or that asks people and has no `actions` to do so. `ledger` is the store of its model calls and their budgets;
    None is a private one in memory, unless there are `budgets`: those are declared in the store. A `policy` makes the
    `guard` of model calls and the `tool_policy`; models that are given to LocalFlow have a guard of their own. The
    others are as in the serve config.
    """

    store: str = DEFAULT_STORE
    code: CodeMode = "inline"
    allow_hosts: tuple[str, ...] = ()
    feature_store: str | None = None
    embedder: str | None = None
    slot_modules: tuple[str, ...] = (ANY_MODULE,)
    sessions: SessionStore | None = None
    tool_policy: ToolPolicy = field(default_factory=AdmitAllTools)
    actions: ActionManager | None = None
    ledger: str | None = None
    budgets: BudgetDocument | None = None
    policy: PolicyDocument | None = None
    guard: Guard | None = None
    clock: Clock = field(default_factory=SystemClock)
    ids: IdSource = field(default_factory=RandomIds)


Through = Callable[[str, Body], Body]
"""What stands between the dispatcher and a node's body."""


class LocalFlow:
    """An async context manager that gives a FlowRunner. `models` may be left out for a flow without prompts.

    Every call of a node goes `through` what this makes of its body: compiled flows put their methods there.
    """

    def __init__(
        self,
        flow: Flow | Plan,
        *,
        models: Models | None = None,
        settings: LocalSettings | None = None,
        through: Through = lambda _, body: body,
    ) -> None:
        self._plan = flow if isinstance(flow, Plan) else plan(flow)
        self._models = models
        self._settings = settings or LocalSettings()
        self._through = through
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> FlowRunner:
        self._databases: dict[str, Database] = {}
        async with AsyncExitStack() as stack:
            settings = await under_policy(stack, self._settings)
            actions = await self._actions(stack)
            resources = OperationResources(clock=settings.clock, ids=settings.ids, actions=actions)
            stack.push_async_callback(resources.aclose)
            state = StateBackends(await self._state_backends(stack))
            bodies: dict[str, Body] = {}
            dispatch = LocalDispatch(bodies)
            sessions = await self._sessions(stack)
            parts = NodeParts(
                clock=settings.clock,
                models=self._models,
                state=state,
                operation_settings=OperationSettings(
                    allow_hosts=settings.allow_hosts,
                    feature_store=settings.feature_store,
                    embedder=settings.embedder,
                    slot_modules=settings.slot_modules,
                ),
                operation_resources=resources,
                code=settings.code,
                ids=settings.ids,
                tools=dispatch,
                tool_policy=settings.tool_policy,
            )
            for node in (*self._plan.graph.nodes, *self._plan.tools):
                bodies[node] = self._through(node, await stack.enter_async_context(body_of(self._plan, node, parts)))
            self._stack = stack.pop_all()
        return FlowRunner(
            self._plan,
            dispatch,
            clock=settings.clock,
            ids=settings.ids,
            state=state,
            sessions=sessions,
            accounts=accounts_of(self._models),
        )

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def _state_backends(self, stack: AsyncExitStack) -> dict[str, StateBackend]:
        urls = {"memory": MEMORY, "store": self._settings.store}
        used = {node.state.backend for node in all_nodes(self._plan.flow.nodes.values()) if node.state}
        return {
            name: await StoredState.open(await self._database(stack, url), self._settings.clock)
            for name, url in urls.items()
            if name in used
        }

    async def _sessions(self, stack: AsyncExitStack) -> SessionStore | None:
        settings = self._settings
        if settings.sessions is not None or all(
            remembers(node) != "session" for node in self._plan.flow.nodes.values()
        ):
            return settings.sessions
        sessions = StoredSessions(await self._database(stack, settings.store), clock=settings.clock)
        await sessions.prepare()
        return sessions

    async def _actions(self, stack: AsyncExitStack) -> ActionManager | None:
        settings = self._settings
        flow = self._plan.flow
        if settings.actions is not None or not (asks_people(flow.nodes.values()) or asks_for_more(flow)):
            return settings.actions
        return actions_on(await self._database(stack, settings.store), settings)

    async def _database(self, stack: AsyncExitStack, url: str) -> Database:
        if url not in self._databases:
            self._databases[url] = await stack.enter_async_context(open_database(url))
        return self._databases[url]


async def run(
    flow: Flow,
    request: Mapping[str, Any],
    *,
    hub: LLMHub | None = None,
    settings: LocalSettings | None = None,
    deadline_s: float | None = None,
    observe: Observer | None = None,
) -> RunReport:
    """Run one request through a flow in this process and report.

    `hub` is needed by flows with prompts and stays its owner's to close. A `sim` provider without an address
    gets a simulated model of its own, as a child process that ends with the run.
    """
    async with AsyncExitStack() as stack:
        settings = await under_policy(stack, settings or LocalSettings())
        models = None
        if hub is not None:
            models = await stack.enter_async_context(governed_models(flow, hub, settings))
        runner = await stack.enter_async_context(LocalFlow(flow, models=models, settings=settings))
        return await runner.run(request, deadline_s=deadline_s, observe=observe)
