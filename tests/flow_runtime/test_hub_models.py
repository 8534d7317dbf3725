"""Models behind an LLMHub, with a simulated model on a real port: what is asked, where, and what a failure becomes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import Budget, BudgetExceededError, Ledger
from agent_runtime.ledger.writers import SqlLedgerWriter
from agentflow import Flow
from agentflow.ir import ModelRef
from agentflow_serve.errors import run_failed
from flow_runtime import LocalFlow, LocalSettings, run
from flow_runtime.errors import CallNotAllowed, ModelFailed, NodeTimeout
from flow_runtime.hub_models import HubModels, local_models, needs_sim
from llm_client.assembly import OWN_LOG_KEEPS_S
from llm_client.errors import CallFailed
from llm_client.guard import Admission, AdmitAll, Guard, Lease
from llm_client.spec import EmbeddingSpec, RequestSpec
from llmhub_runtime import LLMHub, LLMHubRuntimeError, RuntimeConfig, UnknownRoleError, parse_runtime_config
from llmhub_runtime.sim import SimServer, parse_script
from llmhub_runtime.sim.embeddings import embed
from runtime_core.call_log.records import Attempt, Ending
from runtime_core.errors import StoreUnavailableError
from runtime_core.stores.memory import MemoryDatabase
from runtime_core.stores.url import open_database
from support.flows import small_flow
from support.processes import child_processes

NEAR = {"provider": "sim", "model": "e", "mode": "embedding", "params": {"embedding_dim": 16}}
HI = [{"role": "user", "content": "hi"}]
ROLES = {
    "main": {"provider": "sim", "model": "big", "mode": "chat", "params": {"temperature": 0.5, "max_tokens": 40}},
    "other": {"provider": "sim", "model": "small", "mode": "chat"},
    "hasty": {"provider": "sim", "model": "small", "mode": "chat", "timeout_s": 0.2},
    "real": {"provider": "openai", "model": "m", "mode": "chat"},
}


def config(*, sim: str | None = None, openai: str | None = None) -> RuntimeConfig:
    providers = {"sim": {"api_base": sim} if sim else {}, "openai": {"api_base": openai} if openai else {}}
    return parse_runtime_config({"project": "t", "env": "t", "providers": providers, "roles": ROLES})


@pytest.fixture
async def sim() -> AsyncIterator[SimServer]:
    async with SimServer() as server:
        yield server


@asynccontextmanager
async def models_at(sim: SimServer, **options: Any) -> AsyncIterator[HubModels]:
    """Models whose configuration does not say where the simulated model is."""

    async def locate() -> str:
        return sim.openai_base

    async with LLMHub(config_obj=config()) as hub:
        yield HubModels(hub, locate_sim=locate, **options)


def asked(sim: SimServer) -> list[dict[str, Any]]:
    return [dict(entry.request) for entry in sim.log() if isinstance(entry.request, dict)]


def fault(kind: str, **match: Any) -> Any:
    return parse_script({"rules": [{"match": match, "reply": {"fault": {"kind": kind}}}]})


async def test_a_role_brings_its_models_text_and_usage_and_the_model_knows_which_role_asked(sim: SimServer):
    async with models_at(sim) as models:
        answer = await models.chat("main", HI, {})
    assert answer.text.startswith("[sim:big]")
    assert answer.finish_reason == "stop"
    assert answer.usage["input"] > 0 and answer.usage["output"] > 0
    [entry] = sim.log()
    assert (entry.model, entry.role) == ("big", "main")


class Recorded:
    def __init__(self) -> None:
        self.ended: list[tuple[str, str, int]] = []
        self.refusals: list[tuple[str | None, str]] = []

    def attempt_ended(self, attempt: Attempt, ending: Ending) -> None:
        self.ended.append((attempt.role, ending.status.value, 0 if ending.usage is None else ending.usage.output))

    def refused(self, error: BudgetExceededError, *, scope_id: str) -> None:
        self.refusals.append((error.limit, scope_id))


async def test_a_recorder_is_told_of_every_attempt_and_of_what_a_budget_refuses(sim: SimServer):
    recorder = Recorded()
    async with models_at(sim, recorder=recorder) as models:
        answer = await models.chat("main", HI, {})
        sim.set_script(fault("rate_limit", model="small"))
        with pytest.raises(ModelFailed):
            await models.chat("other", HI, {})
        await Ledger(SqlLedgerWriter(models.database)).set_budget(Budget(role="main", max_requests_total=1))
        with pytest.raises(CallNotAllowed):
            await models.chat("main", HI, {})
    assert recorder.ended[:2] == [("main", "settled", answer.usage["output"]), ("other", "released", 0)]
    assert [status for _, status, _ in recorder.ended[2:]] == ["released"]
    assert recorder.refusals == [("max_requests_total", "default")]


class Waiting:
    """A guard whose leases end in their own time."""

    admission = Admission()

    async def begin(self, attempt: Attempt, request: RequestSpec | EmbeddingSpec) -> Lease:
        return self

    async def end(self, ending: Ending) -> None:
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("guard", "tasks"),
    [(None, []), (AdmitAll(), []), (Waiting(), ["OpenAttempt._write"])],
    ids=["the ledger alone", "a guard that holds nothing", "a guard whose leases take time"],
)
async def test_the_end_of_a_recorded_call_is_a_task_of_its_own_only_where_something_waits_for_it(
    sim: SimServer, guard: Guard | None, tasks: list[str]
):
    recorder, started = Recorded(), list[str]()

    def counting(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        started.append(work.__qualname__)
        return asyncio.Task(work, loop=loop, **options)

    async with models_at(sim, recorder=recorder, guard=guard) as models:
        asyncio.get_running_loop().set_task_factory(counting)
        await models.chat("main", HI, {})
        asyncio.get_running_loop().set_task_factory(None)
    assert [name for name in started if name.startswith("OpenAttempt")] == tasks
    assert [status for _, status, _ in recorder.ended] == ["settled"]


async def test_the_prompts_parameters_win_over_the_roles_and_zero_is_a_value(sim: SimServer):
    async with models_at(sim) as models:
        await models.chat("main", HI, {"temperature": 0})
    [body] = asked(sim)
    assert body["temperature"] == 0
    assert 40 in (body.get("max_tokens"), body.get("max_completion_tokens"))


async def test_a_model_that_the_flow_names_needs_no_role(sim: SimServer):
    async with models_at(sim) as models:
        answer = await models.chat(ModelRef(provider="sim", name="odd"), HI, {"max_tokens": 30})
    assert answer.text.startswith("[sim:odd]")


async def test_the_simulated_model_may_answer_for_another_provider_without_its_key(
    sim: SimServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    async def locate() -> str:
        return sim.openai_base

    async with LLMHub(config_obj=config(openai="sim")) as hub:
        models = HubModels(hub, locate_sim=locate)
        assert (await models.chat(ModelRef(provider="openai", name="gpt-4o"), HI, {})).text.startswith("[sim:gpt-4o]")
        assert (await models.chat("real", HI, {})).text.startswith("[sim:m]")
    assert [entry.role for entry in sim.log()] == ["openai/gpt-4o", "real"]
    assert "sk-secret" not in repr(sim.log())


async def test_texts_are_embedded_by_a_role_for_embeddings(sim: SimServer):
    async def locate() -> str:
        return sim.openai_base

    data = {"project": "t", "env": "t", "providers": {"sim": {}}, "roles": {**ROLES, "near": NEAR}}
    async with LLMHub(config_obj=parse_runtime_config(data)) as hub:
        models = HubModels(hub, locate_sim=locate)
        first, second = await models.embed("near", ["worn shoes", "a phone"])
        assert first == pytest.approx(embed("worn shoes", 16), abs=1e-6)
        assert second == pytest.approx(embed("a phone", 16), abs=1e-6)
        with pytest.raises(ModelFailed, match=r"Role 'main' has mode chat; this call needs embedding"):
            await models.embed("main", ["worn shoes"])
        with pytest.raises(ModelFailed, match="no role 'far'"):
            await models.embed("far", ["worn shoes"])


# -- endpoints of a flow's own -----------------------------------------------------------------------------------------


async def test_an_endpoint_is_used_when_its_host_and_port_are_allowed(sim: SimServer):
    async with SimServer() as other, models_at(sim, allow_hosts=[f"127.0.0.1:{other.port}"]) as models:
        model = ModelRef(provider="sim", name="m", endpoint=other.openai_base)
        await models.chat(model, HI, {})
        assert len(other.log()) == 1
    assert sim.log() == []


@pytest.mark.parametrize("allowed", [[], ["127.0.0.1"], ["127.0.0.1:1"], ["localhost:{port}"], ["127.0.0.2:{port}"]])
async def test_an_endpoint_that_is_not_allowed_is_not_called_and_the_error_names_the_entry_to_add(
    sim: SimServer, allowed: list[str]
):
    hosts = [entry.format(port=sim.port) for entry in allowed]
    async with models_at(sim, allow_hosts=hosts) as models:
        with pytest.raises(ModelFailed, match=rf"add 127\.0\.0\.1:{sim.port} to allow_hosts") as raised:
            await models.chat(ModelRef(provider="openai", name="m", endpoint=sim.openai_base), HI, {})
    assert raised.value.model == "openai/m"
    assert sim.log() == []


@pytest.mark.parametrize(
    ("endpoint", "allowed", "admitted"),
    [
        ("http://127.0.0.1/v1", "127.0.0.1", True),
        ("https://127.0.0.1/v1", "127.0.0.1", True),
        ("https://127.0.0.1/v1", "127.0.0.1:443", True),
        ("https://127.0.0.1/v1", "127.0.0.1:80", False),
        ("http://[::1]:80/v1", "[::1]", True),
        ("http://LOCALHOST:1/v1", "localhost:1", True),
        ("http://localhost.:1/v1", "localhost:1", True),
        ("http://localhost.example.com/v1", "localhost", False),
        ("http://example.com/localhost", "localhost", False),
    ],
)
async def test_a_bare_host_means_the_web_ports_as_it_does_for_http_operations(
    sim: SimServer, endpoint: str, allowed: str, admitted: bool
):
    async with models_at(sim, allow_hosts=[allowed]) as models:
        with pytest.raises(ModelFailed) as raised:  # nothing answers there; the question is who says so
            await models.chat(ModelRef(provider="sim", name="m", endpoint=endpoint), HI, {})
    assert ("not allowed here" in str(raised.value)) is not admitted


@pytest.mark.parametrize("endpoint", ["ftp://127.0.0.1", "127.0.0.1", "http://me:secret@127.0.0.1", "http://[::1", ""])
async def test_an_endpoint_that_is_no_address_is_a_failure_of_the_call(sim: SimServer, endpoint: str):
    async with models_at(sim, allow_hosts=["127.0.0.1"]) as models:
        with pytest.raises(ModelFailed) as raised:
            await models.chat(ModelRef(provider="sim", name="m", endpoint=endpoint), HI, {})
    assert "secret" not in str(raised.value)


def test_an_entry_that_is_no_host_is_refused_at_once():
    with pytest.raises(ValueError, match="is not a host or host:port"):
        HubModels(LLMHub(config_obj=config()), allow_hosts=["http://127.0.0.1"])


# -- the simulated model moves -----------------------------------------------------------------------------------------


class Moving:
    """Where the simulated model is, which changes; counts how often it is asked."""

    def __init__(self, sim: SimServer) -> None:
        self.sim = sim
        self.asked = 0

    async def locate(self) -> str:
        self.asked += 1
        return self.sim.openai_base


async def test_a_simulated_model_that_came_back_elsewhere_is_found_by_every_call_in_flight():
    async with SimServer() as first, SimServer() as second, LLMHub(config_obj=config()) as hub:
        where = Moving(first)
        models = HubModels(hub, locate_sim=where.locate)
        await models.chat("main", HI, {})
        assert where.asked == 1
        await models.chat("main", HI, {})
        assert where.asked == 1, "its place is asked for once"
        await first.stop()
        where.sim = second
        answers = await asyncio.gather(*(models.chat("main", HI, {}) for _ in range(8)))
        assert {answer.text[:9] for answer in answers} == {"[sim:big]"}
        assert len(second.log()) == 8


async def test_a_simulated_model_that_is_gone_for_good_is_asked_for_once_more_and_no_further(sim: SimServer):
    async with LLMHub(config_obj=config()) as hub:
        where = Moving(sim)
        models = HubModels(hub, locate_sim=where.locate)
        await sim.stop()
        with pytest.raises(ModelFailed, match="main"):
            await models.chat("main", HI, {})
        assert where.asked == 2


async def test_only_an_unreachable_model_is_looked_for_again_and_not_one_that_refuses(sim: SimServer):
    sim.set_script(fault("rate_limit"))
    async with LLMHub(config_obj=config()) as hub:
        where = Moving(sim)
        with pytest.raises(ModelFailed):
            await HubModels(hub, locate_sim=where.locate).chat("main", HI, {})
        assert where.asked == 1
    assert len(sim.log()) == 1


async def test_a_hub_outlives_the_simulated_models_that_were_found_for_it():
    flow = prompt_flow()
    async with LLMHub(config_obj=config()) as hub:
        reports = [await run(flow, {"x": text}, hub=hub) for text in ("one", "two")]
    assert [report.error for report in reports] == [None, None]


# -- failures ----------------------------------------------------------------------------------------------------------


async def test_a_model_that_takes_longer_than_its_role_may_is_a_timeout(sim: SimServer):
    sim.set_script(fault("hang"))
    async with models_at(sim) as models:
        with pytest.raises(NodeTimeout, match="hasty"):
            await models.chat("hasty", HI, {})


@pytest.mark.parametrize("kind", ["error", "rate_limit", "malformed", "reset"])
async def test_whatever_a_provider_does_wrong_is_a_failed_model_that_says_which_role(sim: SimServer, kind: str):
    sim.set_script(fault(kind))
    async with models_at(sim) as models:
        with pytest.raises(ModelFailed, match="Role 'main'") as raised:
            await models.chat("main", HI, {})
    assert raised.value.model == "main"
    assert isinstance(raised.value.__cause__, CallFailed)


@pytest.mark.parametrize(("said", "passed_on"), [(7, 7), (None, 1)])
async def test_a_rate_limit_says_when_to_try_again(sim: SimServer, said: int | None, passed_on: float):
    reply = {"fault": {"kind": "rate_limit", "retry_after": said}}
    sim.set_script(parse_script({"rules": [{"reply": reply}]}))
    async with models_at(sim) as models:
        with pytest.raises(ModelFailed) as raised:
            await models.chat("main", HI, {})
    assert raised.value.retry_after == passed_on


async def test_a_role_that_is_not_there_is_a_failed_model_that_lists_those_that_are(sim: SimServer):
    async with models_at(sim) as models:
        with pytest.raises(ModelFailed, match="hasty, main, other, real"):
            await models.chat("mian", HI, {})


async def test_a_ledger_in_memory_forgets_and_one_in_a_store_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept: list[float | None] = []
    monkeypatch.setattr("llm_client.engine.ExecutionEngine", lambda **options: kept.append(options["keep_s"]))
    async with LLMHub(config_obj=config()) as hub, open_database(f"sqlite:///{tmp_path / 's.sqlite'}") as stored:
        for database in (None, MemoryDatabase(), stored):
            HubModels(hub, database=database)
    assert kept == [OWN_LOG_KEEPS_S, OWN_LOG_KEEPS_S, None]


class FillingDatabase(MemoryDatabase):
    """One whose disk is full while `full` is set."""

    full = False

    async def run(self, op_factory: Any) -> Any:
        if self.full:
            raise StoreUnavailableError("The database cannot be used: disk I/O error.")
        return await super().run(op_factory)


async def test_a_call_that_cannot_be_recorded_is_not_made_and_the_run_may_be_tried_again(sim: SimServer):
    node = """
    node:
      inputs: [{name: x, type: string}]
      outputs: [{name: out, type: string}]
      prompt: {role: main, template: "{{ x }}"}
    """
    flow = small_flow(node, ["_input.x -> node.x", "node.out -> _output"])
    async with (
        FillingDatabase() as database,
        models_at(sim, database=database) as models,
        models,
        LocalFlow(flow, models=models) as runner,
    ):
        await models.warm_up(["main"])
        database.full = True
        full = await runner.run({"x": "hi"})
        assert asked(sim) == []
        database.full = False
        roomy = await runner.run({"x": "hi"})
    assert full.error is not None and roomy.error is None
    assert full.error.code == "unavailable"
    assert full.error.message.startswith("node 'node' failed: The call log cannot be written, so nothing was sent")


# -- what it takes -----------------------------------------------------------------------------------------------------


async def test_a_report_counts_the_calls_of_every_node_with_failed_attempts_repeats_and_subflows(sim: SimServer):
    rules = [{"match": {"contains": "fail"}, "reply": {"fault": {"kind": "malformed"}}}]
    sim.set_script(parse_script({"rules": rules}))
    inner = {
        "version": "1.0",
        "metadata": {"name": "inner"},
        "context": {"requires": ["x"]},
        "nodes": {
            "deep": {
                "inputs": [{"name": "x", "type": "string"}],
                "outputs": [{"name": "out", "type": "string"}],
                "prompt": {"role": "other", "template": "{{ x }}"},
            }
        },
        "edges": [{"from": "_input.x", "to": "deep.x"}, {"from": "deep.out", "to": "_output"}],
    }
    nodes = f"""
    each:
      inputs: [{{name: x, type: array}}]
      outputs: [{{name: out, type: array}}]
      for_each: {{input: x, on_item_error: skip}}
      prompt: {{template: "{{{{ x }}}}", role: main}}
      runtime: {{retries: 2, retry_backoff_ms: 1}}
    sub:
      type: subflow
      flow: {json.dumps(inner)}
      inputs: [{{name: x, type: array}}]
      outputs: [{{name: out, type: array}}]
      for_each: {{input: x}}
    """
    edges = ["_input.x -> each.x", "each.out -> sub.x", "sub.out -> _output"]
    flow = small_flow(nodes, edges, inputs={"x": {"type": "array"}})
    async with LLMHub(config_obj=config(sim=sim.openai_base)) as hub:
        report = await run(flow, {"x": ["one", "fail", "two"]}, hub=hub)
    assert report.error is None
    assert report.nodes["each"].use.calls == 4, "two answers, and one element that failed twice"
    assert report.nodes["sub"].use.calls == 2
    assert report.use == report.nodes["each"].use + report.nodes["sub"].use
    assert report.use.output_tokens >= sum(entry.completion_tokens_sent for entry in sim.log())
    assert report.use.unpriced == 0 and report.use.cost_micro > 0
    assert len(sim.log()) == 6


class Busy:
    """A store that counts no more calls now."""

    async def reserve(self, *_: Any) -> Any:
        raise StoreUnavailableError("Too many model calls wait to be counted; try again in a moment.")

    end = end_with_claim = reserve


async def test_a_call_that_cannot_be_counted_is_not_made_and_the_run_may_be_tried_again(sim: SimServer):
    busy: Any = Busy()
    async with models_at(sim, transactions=busy) as models, LocalFlow(prompt_flow(), models=models) as flow:
        report = await flow.run({"x": "hi"})
    assert report.error is not None
    assert (report.error.code, report.error.node) == ("unavailable", "a")
    assert "nothing was sent" in report.error.message
    assert asked(sim) == []
    answer = run_failed(report.error, report)
    assert (answer.status, answer.retry_after) == (503, 1.0)


# -- the models of a flow in one process -------------------------------------------------------------------------------


def prompt_flow(prompt: str = "role: main", **top: Any) -> Flow:
    nodes = f"""
    a:
      inputs: [{{name: x, type: string}}]
      outputs: [{{name: out, type: string}}]
      prompt: {{template: "{{{{ x }}}}", {prompt}}}
    """
    return small_flow(nodes, ["_input.x -> a.x", "a.out -> _output"], **top)


SIM = "provider: sim, name: m"
AT_HOME = config()
AWAY = config(sim="http://127.0.0.1:1/v1")
STANDS_IN = config(openai="sim")


@pytest.mark.parametrize(
    ("prompt", "configured", "needed"),
    [
        ("role: main", AT_HOME, True),
        ("role: main", AWAY, False),
        ("role: real", AT_HOME, False),
        ("role: real, fallback: {on: error, role: main}", AT_HOME, True),
        (f"role: real, fallback: {{on: error, model: {{{SIM}}}}}", AT_HOME, True),
        (f"model: {{{SIM}}}", AT_HOME, True),
        (f"model: {{{SIM}}}", AWAY, False),
        (f'model: {{{SIM}, endpoint: "http://127.0.0.1:1/v1"}}', AT_HOME, False),
        ("model: {provider: openai, name: m}", AT_HOME, False),
        ("model: {provider: openai, name: m}", STANDS_IN, True),
        ("role: real", STANDS_IN, True),
        ('model: {provider: openai, name: m, endpoint: "http://127.0.0.1:1/v1"}', STANDS_IN, False),
    ],
)
def test_a_simulated_model_is_needed_when_something_calls_it_and_nobody_says_where_it_is(
    prompt: str, configured: RuntimeConfig, needed: bool
):
    assert needs_sim(prompt_flow(prompt), configured) is needed


def test_a_role_that_nobody_serves_is_named_before_anything_starts_and_defaults_serve_any():
    with pytest.raises(UnknownRoleError, match=r"no role 'mian'.*its roles: main, other, hasty, real"):
        needs_sim(prompt_flow("role: mian"), config())
    data = {"project": "t", "env": "t", "providers": {"sim": {}}, "roles": {}, "defaults": ROLES["main"]}
    assert needs_sim(prompt_flow("role: anything"), parse_runtime_config(data))


async def test_a_flow_without_an_address_gets_a_simulated_model_that_ends_with_it():
    before = child_processes()
    async with LLMHub(config_obj=config()) as hub, local_models(prompt_flow(), hub) as models:
        assert len(child_processes() - before) == 1
        assert (await models.chat("main", HI, {})).text.startswith("[sim:big]")
    assert child_processes() == before


async def test_a_role_that_lacks_its_key_is_said_before_anything_runs(sim: SimServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    flow = prompt_flow("role: main, fallback: {on: error, role: real}")
    async with LLMHub(config_obj=config(sim=sim.openai_base)) as hub:
        with pytest.raises(LLMHubRuntimeError, match=r"Role 'real'.*key"):
            await run(flow, {"x": "hi"}, hub=hub)
    assert sim.log() == []


async def test_two_flows_may_share_a_hub_and_neither_closes_it(sim: SimServer):
    async with LLMHub(config_obj=config(sim=sim.openai_base)) as hub:
        flows = [prompt_flow(), prompt_flow("role: other")]
        reports = await asyncio.gather(*(run(flow, {"x": "hi"}, hub=hub) for flow in flows))
        assert [report.output[:9] for report in reports] == ["[sim:big]", "[sim:smal"]
        assert (await run(flows[0], {"x": "again"}, hub=hub)).error is None
    assert len(sim.log()) == 3


async def test_allowed_hosts_of_a_local_run_reach_the_models(sim: SimServer):
    flow = prompt_flow(f'model: {{{SIM}, endpoint: "{sim.openai_base}"}}')
    async with LLMHub(config_obj=config()) as hub:
        refused = await run(flow, {"x": "hi"}, hub=hub)
        settings = LocalSettings(allow_hosts=(f"127.0.0.1:{sim.port}",))
        allowed = await run(flow, {"x": "hi"}, hub=hub, settings=settings)
    assert refused.error is not None and "allow_hosts" in refused.error.message
    assert allowed.output.startswith("[sim:m]")


async def test_a_prompt_without_a_hub_is_said_before_any_node_runs():
    with pytest.raises(ModelFailed, match="node 'a' has a prompt"):
        await run(prompt_flow("role: main, fallback: {on: error, static_response: canned}"), {"x": "hi"})
