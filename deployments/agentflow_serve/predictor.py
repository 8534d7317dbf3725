"""The predictor: the app's ingress deployment, which speaks KServe and runs the graph."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from agentflow.feature_use import calls_models
from agentflow.ir import Flow
from agentflow.memory import remembers
from agentflow.planning import plan
from agentflow_serve.auth.exposure import Auth
from agentflow_serve.call import CallMeta
from agentflow_serve.dispatch import ServeDispatch
from agentflow_serve.graph_health import GraphHealth
from agentflow_serve.limits import EdgeLimits
from agentflow_serve.metrics import ServeMetrics
from agentflow_serve.process import (
    commits_together,
    may_ask,
    open_accounts,
    open_actions,
    open_parts,
    open_state,
    spare_what_stays,
    state_backends,
)
from agentflow_serve.process_settings import ProcessSettings
from agentflow_serve.run_store import RunStore
from flow_runtime.dispatch import Body, LocalDispatch
from flow_runtime.errors import StateFailed
from flow_runtime.node import body_of
from flow_runtime.runner import FlowRunner
from runtime_core.clock import SystemClock
from runtime_core.ids import RandomIds
from runtime_core.report import RunReport
from runtime_core.stores.url import MEMORY

if TYPE_CHECKING:
    from agent_runtime.ledger.budgets import Budget
    from agent_runtime.ledger.view import LedgerView
    from agentflow_serve.auth.authenticator import KeyAuthenticator
    from agentflow_serve.session_ledger import SharedState
    from agentflow_serve.shared_sessions import SharedSessions
    from agentflow_serve.store_upkeep import Keeping
    from flow_runtime.compiled.agent import LocalAgent


@dataclass(frozen=True, slots=True)
class PredictorSpec:
    """All that a predictor replica is told; `flow` is the flow file as JSON values, `inline` what runs here.

    `agent` is the flow compiled: its methods are then the nodes that run here. `budgets` are those of its budgets.yaml.
    """

    flow: Mapping[str, Any]
    process: ProcessSettings
    limits: EdgeLimits
    inline: tuple[str, ...]
    agent: type[LocalAgent] | None = None
    auth: Auth = "none"
    budgets: tuple[Budget, ...] = ()


@serve.ingress()
class Predictor:
    """One process of the predictor's deployment."""

    async def __init__(
        self, spec: PredictorSpec, nodes: dict[str, DeploymentHandle], sim: DeploymentHandle | None
    ) -> None:
        self._spec = spec
        self._plan = spec.agent.plan() if spec.agent is not None else plan(Flow.model_validate(spec.flow))
        self._flow_nodes = self._plan.flow.nodes.values()
        self._asks_models = spec.process.llmhub is not None and calls_models(self._flow_nodes, spec.process.embedder)
        self._stack = AsyncExitStack()
        self._app_name = serve.get_replica_context().app_name
        self._health = GraphHealth(self._app_name)
        metrics = ServeMetrics(by_scope=spec.process.metrics_by_scope)
        self._metrics = await self._stack.enter_async_context(metrics)
        store = RunStore(self._stack, spec.process.store)
        self._actions = await open_actions(store) if may_ask(spec.process, self._flow_nodes) else None
        self._auth = await self._open_keys(store) if spec.auth == "keys" else None
        self._sessions = await self._open_sessions(store)
        self._spending = await self._open_ledger(store) if self._asks_models else None
        self._runner = await self._open_runner(store, nodes, sim)
        self._keep_alive(store)

    async def _open_runner(
        self, store: RunStore, nodes: dict[str, DeploymentHandle], sim: DeploymentHandle | None
    ) -> FlowRunner:
        spec, bodies = self._spec, dict[str, Body]()
        dispatch = ServeDispatch(nodes, LocalDispatch(bodies))
        parts = await open_parts(
            self._stack,
            spec.process,
            [self._plan.node(node) for node in spec.inline],
            store=store,
            sim=sim,
            tools=dispatch,
            actions=self._actions,
            recorder=self._metrics,
        )
        agent = spec.agent() if spec.agent is not None else None
        for node in spec.inline:
            body = await self._stack.enter_async_context(body_of(self._plan, node, parts))
            bodies[node] = body if agent is None else agent.through(node, body)
        in_run = [node for node in self._flow_nodes if node.state and node.state.scope == "request"]
        return FlowRunner(
            self._plan,
            dispatch,
            clock=SystemClock(),
            ids=RandomIds(),
            state=await open_state(store, in_run),
            sessions=self._sessions,
            accounts=await open_accounts(self._stack, store, self._plan.flow, parts.models),
        )

    def _keep_alive(self, store: RunStore) -> None:
        """The app's actor, where it has one, hears of this replica; where it has none, the store is kept up here."""
        process = self._spec.process
        together = self._asks_models and commits_together(process)
        self._ledger: SharedState | None = None
        self._keeping: Keeping | None = None
        self._beat: asyncio.Task[None] | None = None
        if self._asks_models or self._actions is not None:
            from agentflow_serve.store_upkeep import Keeping, keep_in_order

            keeping = Keeping(process.store, process.calls_ttl_s)
            if together:
                self._keeping = keeping
            else:
                self._stack.callback(asyncio.create_task(keep_in_order(store, keeping)).cancel)
        if self._sessions is not None or together or "memory" in state_backends(self._flow_nodes):
            from agentflow_serve.session_ledger import SharedState

            self._ledger = SharedState(self._app_name)
        if self._spending is not None:
            from agentflow_serve.unknown_attempts import count_unknown

            counting = count_unknown(self._spending, self._metrics.unknown, clock=SystemClock())
            self._stack.callback(asyncio.create_task(counting).cancel)

    async def __serve_build_asgi_app__(self) -> Any:
        from agentflow_serve.kserve_app import build_predictor_app

        app = build_predictor_app(
            name=self._plan.name,
            signature=self._plan.signature,
            runner=self,
            limits=self._spec.limits,
            health=self._health.check,
            sessions=self._sessions,
            ledger=self._spending,
            actions=self._actions,
            auth=self._auth,
            on_waiting=self._metrics.waiting,
        )
        spare_what_stays()
        return app

    async def _open_keys(self, store: RunStore) -> KeyAuthenticator:
        from agentflow_serve.auth.authenticator import KeyAuthenticator
        from agentflow_serve.auth.store import ApiKeys

        keys = ApiKeys(await store.database())
        await keys.prepare()
        return KeyAuthenticator(keys.find, flow=self._plan.name, clock=SystemClock())

    async def _open_sessions(self, store: RunStore) -> SharedSessions | None:
        if not any(remembers(node) == "session" for node in self._flow_nodes):
            return None
        from agentflow_serve.ledger_sessions import SessionTerms
        from agentflow_serve.shared_sessions import SharedSessions

        terms = SessionTerms(self._spec.process.store, self._spec.process.session_ttl_s)
        return await SharedSessions.open(self._stack, self._app_name, terms, store)

    async def _open_ledger(self, store: RunStore) -> LedgerView | None:
        """What the app spends, within the budgets that were declared for it.

        None for a store in memory, of which every process has its own: none of them knows what the app spends.
        """
        from agent_runtime.ledger.declared import declare_budgets
        from agent_runtime.ledger.view import LedgerView

        database = await store.database()
        await declare_budgets(database, self._app_name, self._spec.budgets, clock=SystemClock(), ids=RandomIds())
        return None if self._spec.process.store == MEMORY else LedgerView(database)

    async def run(self, request: dict[str, Any], call: CallMeta) -> RunReport:
        began, code = time.perf_counter(), "internal"
        try:
            report = await self._runner.run(
                request,
                identity=call.identity,
                trace_id=call.trace_id,
                deadline_s=call.deadline_s,
            )
            code = "ok" if report.error is None else report.error.code
            return report
        except asyncio.CancelledError:
            code = "cancelled"
            raise
        finally:
            self._metrics.run_ended(code, time.perf_counter() - began, scope_id=call.identity.scope_id)

    async def check_health(self) -> None:
        """Serve's own probe. It must not wait for the actor, which may be restarting."""
        if self._ledger is not None and (self._beat is None or self._beat.done()):
            self._beat = asyncio.create_task(self._show_life(self._ledger))

    async def _show_life(self, ledger: SharedState) -> None:
        with suppress(StateFailed):
            await ledger.heartbeat(self._keeping)

    async def __del__(self) -> None:
        await self._stack.aclose()
