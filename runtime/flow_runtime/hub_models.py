"""Models by role, of an LLMHub, through the engine that every model call passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from agentflow.feature_use import embedders_of
from agentflow.ir import Flow, ModelRef
from agentflow.settings import models_of, needs_judge, roles_of
from flow_runtime.asking import in_budgeted_run, request_context
from flow_runtime.errors import LedgerUnavailable, ModelFailed, NodeTimeout
from flow_runtime.models import ModelAnswer, name_of
from flow_runtime.operations.hosts import AllowedHost, normal_host
from flow_runtime.recorder import CallRecorder
from flow_runtime.refusals import not_allowed
from llmhub_runtime.errors import LLMHubRuntimeError, UnknownRoleError
from llmhub_runtime.names import SIM
from runtime_core.errors import StoreError
from runtime_core.frozen import unchecked

if TYPE_CHECKING:
    from types import TracebackType

    from agent_runtime.ledger.transactions import LedgerTransactions
    from llm_client.guard import Guard
    from llm_client.prices import PriceBook
    from llm_client.providers.hub import RoleProvider
    from llm_client.results import CompletionResult, EmbeddingResult
    from llmhub_runtime.hub import LLMHub
    from llmhub_runtime.models import ResolvedCall, RoleConfig, RoleDefaultsConfig, RuntimeConfig
    from llmhub_runtime.sim import SimProcess
    from runtime_core.clock import Clock
    from runtime_core.stores.database import Database

RETRY_AFTER_S = 1.0
"""What a caller is told when a provider limits its rate and does not say for how long."""
DEFAULT_PORT = {"http": 80, "https": 443}
Locate = Callable[[], Awaitable[str]]
Answer = TypeVar("Answer")


class HubModels:
    """Models behind an LLMHub, which stays its caller's to close. Use as an async context manager, or `aclose()`.

    Every call goes through an ExecutionEngine that tries once: a node's own attempts are the only layer of
    retries. The ledger on `database` keeps its attempts, and makes none that does not fit a budget; a private one in
    memory if it is left out. One in memory forgets after some minutes. `transactions` commits to that
    database by a way of its own. `guard` is asked before it, and `recorder` is told of every attempt and every refusal.
    `allow_hosts` are the hosts that a flow's own `endpoint` may name: `host:port`, or `host` for the ports 80
    and 443; anything else is a ValueError. `locate_sim` tells the base URL of the simulated model where the
    configuration gives none; it is asked again when the model stops answering, because a restarted one listens
    elsewhere.
    """

    def __init__(
        self,
        hub: LLMHub,
        *,
        allow_hosts: Collection[str] = (),
        locate_sim: Locate | None = None,
        database: Database | None = None,
        transactions: LedgerTransactions | None = None,
        guard: Guard | None = None,
        prices: PriceBook | None = None,
        clock: Clock | None = None,
        recorder: CallRecorder | None = None,
    ) -> None:
        from agent_runtime.guards import GuardChain
        from agent_runtime.ledger.engine import EngineLedger
        from agent_runtime.ledger.run_ledger import RunLedger
        from agent_runtime.ledger.tool_calls import ToolLedger
        from agent_runtime.ledger.writers import SqlLedgerWriter
        from flow_runtime.exceeding import within_budget
        from flow_runtime.metering import MeteringGuard
        from llm_client.assembly import OWN_LOG_KEEPS_S
        from llm_client.engine import ExecutionEngine
        from llm_client.retry import NO_RETRY
        from runtime_core.stores.memory import MemoryDatabase

        self._hub = hub
        self._allow_hosts = tuple(AllowedHost.parse(text) for text in allow_hosts)
        own = hub.config.providers.get(SIM)
        self._locate_sim = locate_sim if own is None or own.api_base is None else None
        self._router = _Router(hub)
        self._owns_database = database is None
        self.database: Database = MemoryDatabase() if database is None else database
        self._recorder = recorder
        self._within_budget = within_budget
        self.runs = RunLedger(self.database, clock=clock)
        accounts = EngineLedger(
            self.database,
            router=_ByAttempt(self._router),
            prices=prices,
            clock=clock,
            in_budgeted_run=in_budgeted_run,
            transactions=transactions,
        )
        self._engine = ExecutionEngine(
            router=self._router,
            retry=NO_RETRY,
            guard=MeteringGuard(accounts.guard if guard is None else GuardChain(guard, accounts.guard), recorder),
            log=accounts.log,
            prices=prices,
            clock=clock,
            keep_s=OWN_LOG_KEEPS_S if isinstance(self.database, MemoryDatabase) else None,
        )
        self.tool_ledger = ToolLedger(SqlLedgerWriter(self.database), clock=clock)

    @property
    def judge(self) -> str | None:
        """The role that judges answers."""
        return self._hub.config.judge

    async def chat(
        self,
        model: str | ModelRef,
        messages: Sequence[Mapping[str, Any]],
        params: Mapping[str, Any],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> ModelAnswer:
        from llm_client.spec import RequestSpec

        async def ask(role: str) -> CompletionResult:
            spec = unchecked(
                RequestSpec,
                messages=tuple(messages),
                role=role,
                params=dict(params),
                tools=tuple(tools),
                tool_choice=None,
            )
            with _counting(self._recorder):
                return await self._reach(role, lambda: self._engine.complete(spec, context=request_context()))

        with _translated(name_of(model)):
            answer = await self._within_budget(self._admitted(model), ask, self.runs)
        usage = {"input": answer.usage.input, "output": answer.usage.output}
        return ModelAnswer(answer.content, answer.finish_reason, usage, answer.tool_calls)

    async def embed(self, role: str, texts: Sequence[str]) -> list[list[float]]:
        from llm_client.spec import EmbeddingSpec

        async def ask(role: str) -> EmbeddingResult:
            spec = unchecked(EmbeddingSpec, inputs=tuple(texts), role=role, params={})
            with _counting(self._recorder):
                return await self._reach(role, lambda: self._engine.embed(spec, context=request_context()))

        with _translated(role):
            answer = await self._within_budget(role, ask, self.runs, may_degrade=False)
        return [list(vector) for vector in answer.vectors]

    async def warm_up(self, roles: Collection[str]) -> None:
        """Open the log and make the clients of these roles, so that the first call does not pay for it."""
        if any(self._is_ours(role) for role in roles):
            await self._sim()
        await self._engine.warm_up(roles)

    async def aclose(self) -> None:
        """Wait until every attempt has its end in the log."""
        await self.runs.aclose()
        await self._engine.aclose()
        await self.tool_ledger.aclose()
        if self._owns_database:
            await self.database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _reach(self, name: str, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Ask; the simulated model, whose address is ours to find, once more if it is somewhere else by now."""
        from llm_client.errors import CallUnavailable

        if not self._is_ours(name):
            return await ask()
        base = await self._sim()
        try:
            return await ask()
        except CallUnavailable:
            if self._router.sim_base == base:
                self._router.sim_base = None
            if await self._sim() == base:
                raise
            return await ask()

    def _is_ours(self, name: str) -> bool:
        """Whether the call goes to the simulated model, and where that is, is ours to find."""
        return self._locate_sim is not None and _is_simulated(self._router.configured(name).call)

    async def _sim(self) -> str:
        assert self._locate_sim is not None
        if (base := self._router.sim_base) is None:
            base = self._router.sim_base = await self._locate_sim()
            self._engine.forget_failures(SIM)
        return base

    def _admitted(self, model: str | ModelRef) -> str:
        """What the router calls the model. A flow's own endpoint must be among the allowed hosts."""
        if isinstance(model, str):
            return model
        call = self._hub.ad_hoc(provider=model.provider, model=model.name, api_base=model.endpoint)
        if call.api_base is not None:
            self._admit(call, call.api_base)
        return self._router.named(call)

    def _admit(self, call: ResolvedCall, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        host = normal_host(parts.hostname or "")
        port = DEFAULT_PORT[parts.scheme] if parts.port is None else parts.port
        if not any(entry.names(host, port) for entry in self._allow_hosts):
            raise ModelFailed(
                f"the flow's endpoint {endpoint} is not allowed here; "
                f"if flows may call it, add {AllowedHost(host, port)} to allow_hosts in the serve config",
                model=call.role,
            )


class _Router:
    """The hub's roles, and the models that a flow names itself.

    `sim_base` is where the simulated model was found. It stays here: the hub is its owner's, and may outlive it.
    """

    def __init__(self, hub: LLMHub) -> None:
        from llm_client.router import HubRouter

        self._hub = hub
        self._roles = HubRouter(hub)
        self._named: dict[str, RoleProvider] = {}
        self.ad_hoc: dict[str, RoleProvider] = {}
        self._at_sim: dict[str, RoleProvider] = {}
        self._sim_base: str | None = None

    @property
    def sim_base(self) -> str | None:
        return self._sim_base

    @sim_base.setter
    def sim_base(self, base: str | None) -> None:
        self._sim_base = base
        self._at_sim.clear()

    def configured(self, name: str) -> RoleProvider:
        return self._named.get(name) or self._roles.provider(name)

    def provider(self, role: str) -> RoleProvider:
        from llm_client.providers.hub import RoleProvider

        provider = self.configured(role)
        if self._sim_base is None or not _is_simulated(provider.call):
            return provider
        if role not in self._at_sim:
            self._at_sim[role] = RoleProvider(self._hub, provider.call.model_copy(update={"api_base": self._sim_base}))
        return self._at_sim[role]

    def named(self, call: ResolvedCall) -> str:
        from llm_client.providers.hub import RoleProvider

        name = f"model {call.role} {call.api_base or ''}".rstrip()  # no role of a flow has a space in its name
        if name not in self._named:
            self._named[name] = self.ad_hoc[call.role] = RoleProvider(self._hub, call)
        return name


class _ByAttempt:
    """The same, by what an attempt's row calls its role: a model that a flow names itself is `provider/name` there."""

    def __init__(self, router: _Router) -> None:
        self._router = router

    def provider(self, role: str) -> RoleProvider:
        return self._router.ad_hoc.get(role) or self._router.provider(role)


def _is_simulated(call: ResolvedCall) -> bool:
    return call.provider == SIM and call.api_base is None


@contextmanager
def _counting(recorder: CallRecorder | None) -> Iterator[None]:
    """Every refusal, whatever the flow then does about it."""
    from agent_runtime.errors import BudgetExceededError

    try:
        yield
    except BudgetExceededError as exc:
        if recorder is not None:
            recorder.refused(exc, scope_id=request_context().tenant_id)
        raise


@contextmanager
def _translated(model: str) -> Iterator[None]:
    from agent_runtime.errors import BudgetExceededError, PolicyDenied
    from llm_client.errors import CallRateLimited, CallStoreError, CallTimedOut, LLMClientError

    try:
        yield
    except CallTimedOut as exc:
        raise NodeTimeout(str(exc)) from exc
    except CallRateLimited as exc:
        retry_after = RETRY_AFTER_S if exc.retry_after is None else exc.retry_after
        raise ModelFailed(str(exc), model=model, retry_after=retry_after) from exc
    except (BudgetExceededError, PolicyDenied) as exc:
        raise not_allowed(exc) from exc
    except (CallStoreError, StoreError) as exc:  # of the calls; of the budgets, or of what asks a person
        raise LedgerUnavailable(str(exc)) from exc
    except (LLMClientError, LLMHubRuntimeError) as exc:
        raise ModelFailed(str(exc), model=model) from exc


async def list_prices() -> PriceBook:
    """The providers' list prices. Reading them takes a while."""
    from llm_client.prices import PublicPrices

    prices = PublicPrices()
    await asyncio.to_thread(prices.load)
    return prices


@asynccontextmanager
async def local_models(
    flow: Flow,
    hub: LLMHub,
    *,
    allow_hosts: Collection[str] = (),
    embedder: str | None = None,
    ledger: str | None = None,
    guard: Guard | None = None,
) -> AsyncIterator[HubModels]:
    """The models of a flow in one process, ready to be called: the first call does not pay for imports and clients.

    `embedder` is the role that embeds the text queries of operations that name none. `ledger` is the address of the
    store that keeps the calls and their budgets; without one they are kept in memory for a while. `guard` may refuse
    calls before. A simulated model that has no address yet runs as a child process.

    Raises LLMHubRuntimeError for a role that is not there or cannot be called.
    """
    async with AsyncExitStack() as stack:
        locate = None
        if needs_sim(flow, hub.config, embedder):
            from llmhub_runtime.sim import SimProcess

            locate = _locator(await stack.enter_async_context(SimProcess()))
        roles = sorted(called_roles(flow, embedder, hub.config.judge))
        prices = await list_prices() if needs_list_prices(flow, hub.config, embedder) else None
        database = None
        if ledger is not None:
            from runtime_core.stores.url import open_database

            database = await stack.enter_async_context(open_database(ledger))
        models = HubModels(
            hub, allow_hosts=allow_hosts, locate_sim=locate, database=database, guard=guard, prices=prices
        )
        await stack.enter_async_context(models)
        await models.warm_up(roles)
        yield models


def _locator(sim: SimProcess) -> Locate:
    async def locate() -> str:
        return sim.openai_base

    return locate


def called_roles(flow: Flow, embedder: str | None = None, judge: str | None = None) -> frozenset[str]:
    """The roles that a flow's prompts, slots and vector searches may call; `judge` judges answers."""
    judges = frozenset({judge} if judge is not None and needs_judge(flow) else ())
    return roles_of(flow) | embedders_of(flow.nodes.values(), embedder) | judges


def needs_sim(flow: Flow, config: RuntimeConfig, embedder: str | None = None) -> bool:
    """Whether the flow calls the simulated model and nobody says where that is. Raises UnknownRoleError."""
    own = config.providers.get(SIM)
    return SIM in providers_of(flow, config, embedder) and (own is None or own.api_base is None)


def providers_of(flow: Flow, config: RuntimeConfig, embedder: str | None = None) -> frozenset[str]:
    """The providers that the flow calls at their configured addresses.

    Raises UnknownRoleError for a role that the configuration does not have.
    """
    providers = {model.provider for model in models_of(flow) if model.endpoint is None}
    providers |= {binding.provider for binding in _bindings(flow, config, embedder)}
    return frozenset(config.serving(provider) for provider in providers)


def needs_list_prices(flow: Flow, config: RuntimeConfig, embedder: str | None = None) -> bool:
    """Whether the flow calls a model that neither has a price of its own nor is simulated.

    Raises UnknownRoleError for a role that the configuration does not have.
    """
    unpriced = [binding.provider for binding in _bindings(flow, config, embedder) if binding.price is None]
    return any(config.serving(name) != SIM for name in (*unpriced, *(model.provider for model in models_of(flow))))


def _bindings(flow: Flow, config: RuntimeConfig, embedder: str | None) -> list[RoleConfig | RoleDefaultsConfig]:
    """What each role that the flow calls is."""
    found: list[RoleConfig | RoleDefaultsConfig] = []
    for role in sorted(called_roles(flow, embedder, config.judge)):
        binding = config.roles.get(role) or config.defaults
        if binding is None:
            known = ", ".join(config.roles) or "none"
            message = f"the llmhub.yaml has no role '{role}' and no defaults; its roles: {known}"
            raise UnknownRoleError(message, role=role, known=tuple(config.roles))
        found.append(binding)
    return found
