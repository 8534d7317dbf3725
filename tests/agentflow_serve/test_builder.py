"""From a serve config's args to the Serve application: which deployments, with which options, bound to what.

Nothing is started: the bound application is looked at, as Serve would deploy it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.serve import Application

from agentflow import load, plan
from agentflow.errors import FlowInvalid
from agentflow.ir import Flow
from agentflow_serve import app
from agentflow_serve.args import parse_args
from agentflow_serve.deployment_options import HEALTH_CHECK
from agentflow_serve.errors import AppInvalid
from agentflow_serve.nodes import NodeReplica, NodeSpec
from agentflow_serve.predictor import Predictor, PredictorSpec
from agentflow_serve.process import commits_together
from agentflow_serve.process_settings import LedgerWay, ProcessSettings
from agentflow_serve.sim import SimReplica
from flow_runtime.errors import FeatureStoreInvalid
from llmhub_runtime.errors import UnknownRoleError
from support.applications import bound

CONFIGS = Path(__file__).parents[2] / "configs"
EXAMPLES = sorted((CONFIGS / "flows").glob("*.yaml"))
AROUND = {
    "llmhub": str(CONFIGS / "llmhub.sim.yaml"),
    "feature_store": f"local:{CONFIGS / 'features'}",
    "embedder": "llm.embed",
}
HUB: dict[str, Any] = {
    "project": "p",
    "env": "e",
    "providers": {"sim": {}},
    "roles": {"main": {"provider": "sim", "model": "m", "mode": "chat"}},
}
AWAY = {**HUB, "providers": {"sim": {"api_base": "http://model:9/v1"}}}


def node(runtime: dict[str, Any] | None = None, **parts: Any) -> dict[str, Any]:
    """A node with one input and one output; a prompt, unless it says otherwise."""
    body = parts or {"prompt": {"template": "{{ x }}", "role": "main"}}
    return {
        "inputs": [{"name": "x", "type": "string"}],
        "outputs": [{"name": "out", "type": "string"}],
        "runtime": runtime or {},
        **body,
    }


def flow(*, nodes: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    nodes = nodes or {"a": node()}
    edges = [
        edge
        for name in nodes
        for edge in ({"from": "_input.x", "to": f"{name}.x"}, {"from": f"{name}.out", "to": f"_output.{name}"})
    ]
    return {
        "version": "1.0",
        "metadata": {"name": "desk"},
        "context": {"requires": ["x"]},
        "nodes": nodes,
        "edges": edges,
        **top,
    }


PLAIN = node(transform={"mode": "declarative", "spec": {"op": "io.format_response", "args": {"template": "hi"}}})


class Built:
    """An app taken apart."""

    def __init__(self, **args: Any) -> None:
        given = {"flow": flow(), "llmhub": HUB, **args}
        self.predictor, (self.spec, nodes, self.inline_sim) = bound(app(parse_args(given)))
        assert isinstance(self.spec, PredictorSpec)
        self.nodes: dict[str, tuple[Any, NodeSpec, Application | None]] = {}
        self.tools: dict[str, dict[str, Application]] = {}
        for name, target in nodes.items():
            deployment, (spec, sim, self.tools[name]) = bound(target)
            self.nodes[name] = (deployment, spec, sim)

    def deployment(self, name: str) -> Any:
        return self.nodes[name][0]

    @property
    def sims(self) -> list[Application]:
        found = [self.inline_sim, *(sim for _, _, sim in self.nodes.values())]
        return [each for each in found if each is not None]

    @property
    def names(self) -> set[str]:
        sims = {bound(sim)[0].name for sim in self.sims}
        return {self.predictor.name, *(each.name for each, _, _ in self.nodes.values()), *sims}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_node_of_the_plan_is_a_deployment_named_after_flow_and_node(path: Path):
    planned = plan(load(path).flow)
    built = Built(flow=str(path), **AROUND)
    assert list(built.nodes) == list(planned.graph.nodes)
    assert built.names == {
        planned.name,
        f"{planned.name}.sim",
        *(f"{planned.name}.{name}" for name in planned.graph.nodes),
    }
    assert built.predictor.func_or_class is Predictor
    assert {each.func_or_class for each, _, _ in built.nodes.values()} == {NodeReplica}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_inline_everything_runs_in_the_predictor_with_the_simulated_model_beside_it(path: Path):
    planned = plan(load(path).flow)
    built = Built(flow=str(path), **AROUND, placement="inline")
    assert built.nodes == {}
    assert built.spec.inline == tuple(planned.graph.nodes)
    assert built.names == {planned.name, f"{planned.name}.sim"}


def test_a_node_that_is_placed_inline_shares_the_predictors_process_and_the_others_do_not():
    built = Built(flow=flow(nodes={"a": node({"placement": "inline"}), "b": node()}))
    assert (built.spec.inline, list(built.nodes)) == (("a",), ["b"])
    assert built.inline_sim is not None


def test_a_node_that_nothing_needs_has_no_deployment():
    document = flow(nodes={"a": node(), "idle": node()})
    document["edges"] = [edge for edge in document["edges"] if edge["from"] != "idle.out"]
    assert list(Built(flow=document).nodes) == ["a"]


# -- the simulated model -----------------------------------------------------------------------------------------------


def test_there_is_one_simulated_model_and_it_is_given_to_the_nodes_that_ask_models():
    built = Built(flow=flow(nodes={"a": node(), "b": node(), "plain": PLAIN}), sim_script={"models": ["m"]})
    assert built.nodes["plain"][2] is None
    assert built.inline_sim is None
    first, second = (built.nodes[name][2] for name in ("a", "b"))
    assert first is not None and first is second
    deployment, (script,) = bound(first)
    assert (deployment.name, deployment.func_or_class) == ("desk.sim", SimReplica)
    assert script["models"] == ["m"]


def test_a_model_with_an_address_or_a_flow_without_prompts_brings_no_simulated_model():
    assert Built(llmhub=AWAY).names == {"desk", "desk.a"}
    assert Built(flow=flow(nodes={"plain": PLAIN}), llmhub=None).names == {"desk", "desk.plain"}


def test_a_node_called_sim_beside_the_simulated_model_is_refused_and_without_it_is_fine():
    with pytest.raises(AppInvalid, match="rename the node"):
        Built(flow=flow(nodes={"sim": node()}))
    assert Built(flow=flow(nodes={"sim": node()}), llmhub=AWAY).names == {"desk", "desk.sim"}


# -- what replicas are told --------------------------------------------------------------------------------------------


def test_replicas_are_told_everything_so_that_they_need_no_file():
    args = {"store": "sqlite:///x.sqlite", "code": "modules", "allow_hosts": ["example.com"]}
    built = Built(flow=str(CONFIGS / "flows" / "triage.yaml"), llmhub=str(CONFIGS / "llmhub.sim.yaml"), **args)
    process = built.spec.process
    assert process.roles == ("llm.backup", "llm.search", "llm.writer")
    assert (process.store, process.code, process.allow_hosts) == ("sqlite:///x.sqlite", "modules", ("example.com",))
    assert process.llmhub is not None and set(process.llmhub["roles"]) >= set(process.roles)
    assert all(spec.process == process for _, spec, _ in built.nodes.values())


# -- features ----------------------------------------------------------------------------------------------------------

READ = node(
    transform={"mode": "declarative", "spec": {"op": "features.read", "args": {"feature_group": "a", "key": "${x}"}}}
)
SEARCH = node(
    transform={"mode": "declarative", "spec": {"op": "features.vector_search", "args": {"index": "a", "query": "${x}"}}}
)
WITH_EMBEDDER = {**HUB, "roles": {**HUB["roles"], "near": {"provider": "sim", "model": "e", "mode": "embedding"}}}


def test_replicas_are_told_where_features_are_with_the_folder_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "store").mkdir()
    monkeypatch.chdir(tmp_path)
    built = Built(flow=flow(nodes={"look": READ}), feature_store="local:store")
    assert built.spec.process.feature_store == f"local:{tmp_path.resolve() / 'store'}"
    assert Built(flow=flow(nodes={"plain": PLAIN}), feature_store="local:nowhere").spec.process.feature_store is None


def test_a_search_for_text_is_given_the_simulated_model_that_embeds_it(tmp_path: Path):
    nodes = {"find": SEARCH, "look": READ}
    built = Built(flow=flow(nodes=nodes), llmhub=WITH_EMBEDDER, feature_store=f"local:{tmp_path}", embedder="near")
    assert (built.nodes["find"][2] is not None, built.nodes["look"][2] is not None) == (True, False)
    assert (built.spec.process.roles, built.spec.process.embedder) == (("near",), "near")


@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        ({"feature_store": None}, FeatureStoreInvalid, "the flow uses features: name a feature store"),
        ({"feature_store": "local:./nowhere"}, FeatureStoreInvalid, "there is no folder './nowhere'"),
        ({"embedder": None}, FlowInvalid, "nobody says which model embeds it"),
        ({"embedder": "far"}, UnknownRoleError, "no role 'far'"),
        ({"llmhub": None}, AppInvalid, "'near' embeds queries: name an llmhub.yaml"),
    ],
)
def test_a_feature_store_that_cannot_be_used_is_found_before_ray_starts(
    tmp_path: Path, args: dict[str, Any], error: type[Exception], says: str
):
    around = {"llmhub": WITH_EMBEDDER, "feature_store": f"local:{tmp_path}", "embedder": "near", **args}
    with pytest.raises(error, match=says):
        Built(flow=flow(nodes={"find": SEARCH}), **around)


def test_a_handle_that_a_config_would_send_to_another_process_is_refused(tmp_path: Path):
    nodes = {
        "model": node(transform={"mode": "declarative", "spec": {"op": "hopsworks.get_model", "args": {"name": "m"}}}),
        "use": node(transform={"mode": "code", "module": "shop.models:score"}),
    }
    edges = [
        {"from": "_input.x", "to": "model.x"},
        {"from": "model.out", "to": "use.x"},
        {"from": "use.out", "to": "_output"},
    ]
    document = flow(nodes=nodes, edges=edges, deployment={"target": "ray", "ray": {"placement": "inline"}})
    store = f"local:{tmp_path}"
    assert Built(flow=document, feature_store=store).spec.inline == ("model", "use")
    with pytest.raises(AppInvalid, match="the model that 'model' gets cannot go to another process"):
        Built(flow=document, feature_store=store, placement="per_node")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_flow_and_its_nodes_reach_the_replicas_as_they_were_planned(path: Path):
    planned = plan(load(path).flow)
    built = Built(flow=str(path), **AROUND)
    again = plan(Flow.model_validate(dict(built.spec.flow)))
    assert (again.fingerprint, again.signature, again.settings) == (
        planned.fingerprint,
        planned.signature,
        planned.settings,
    )
    for name, (_, spec, _) in built.nodes.items():
        assert spec.id == name
        assert type(planned.node(name)).model_validate(dict(spec.nodes[name])) == planned.node(name)
        assert spec.settings == {name: planned.settings[name]}


def test_a_default_of_null_is_still_a_default_in_the_predictor():
    built = Built(flow=flow(inputs={"cursor": {"default": None}}))
    signature = plan(Flow.model_validate(dict(built.spec.flow))).signature
    assert {field.name: field.required for field in signature.inputs} == {"x": True, "cursor": False}


# -- options -----------------------------------------------------------------------------------------------------------


def test_a_node_that_says_nothing_gets_a_small_replica_with_bounded_queues():
    deployment = Built().deployment("a")
    assert deployment.ray_actor_options == {"num_cpus": 0.05, "num_gpus": 0.0}
    assert deployment.num_replicas == 1
    assert deployment._deployment_config.autoscaling_config is None
    assert deployment.max_ongoing_requests == 64
    assert deployment.max_queued_requests == 1024


def test_every_deployment_is_checked_often_enough_to_be_replaced_within_seconds():
    built = Built()
    for deployment in (built.predictor, built.deployment("a"), bound(built.sims[0])[0]):
        config = deployment._deployment_config
        assert config.health_check_period_s == HEALTH_CHECK["health_check_period_s"] == 1
        assert config.health_check_timeout_s == HEALTH_CHECK["health_check_timeout_s"] == 10


def test_resources_concurrency_and_autoscaling_of_a_node_are_its_deployments():
    runtime = {
        "concurrency": 5,
        "resources": {"num_cpus": 1.5, "num_gpus": 0.5, "memory": "1Gi"},
        "autoscaling": {"min_replicas": 2, "max_replicas": 6, "target_ongoing_requests": 3},
    }
    deployment = Built(flow=flow(nodes={"a": node(runtime)})).deployment("a")
    assert deployment.ray_actor_options == {"num_cpus": 1.5, "num_gpus": 0.5, "memory": 1024**3}
    assert deployment.max_ongoing_requests == 5
    scaling = deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (2, 6, 3)


@pytest.mark.parametrize(("concurrency", "waiting"), [(1, 1024), (64, 1024), (100, 1600)])
def test_a_queue_holds_several_whole_batches_however_few_calls_a_replica_takes(concurrency: int, waiting: int):
    deployment = Built(flow=flow(nodes={"a": node({"concurrency": concurrency})})).deployment("a")
    assert (deployment.max_ongoing_requests, deployment.max_queued_requests) == (concurrency, waiting)


def test_a_node_that_scales_without_a_target_aims_at_half_of_what_a_replica_takes():
    runtime = {"concurrency": 1, "autoscaling": {"min_replicas": 0, "max_replicas": 2}}
    deployment = Built(flow=flow(nodes={"a": node(runtime)})).deployment("a")
    scaling = deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.target_ongoing_requests) == (0, 1)
    runtime["concurrency"] = 10
    deployment = Built(flow=flow(nodes={"a": node(runtime)})).deployment("a")
    assert deployment._deployment_config.autoscaling_config.target_ongoing_requests == 5


def test_a_fixed_number_of_replicas_is_fixed():
    deployment = Built(
        flow=flow(nodes={"a": node({"autoscaling": {"min_replicas": 3, "max_replicas": 3}})})
    ).deployment("a")
    assert deployment.num_replicas == 3
    assert deployment._deployment_config.autoscaling_config is None


def test_kserves_replicas_size_the_predictor():
    built = Built(flow=flow(deployment={"kserve": {"min_replicas": 2, "max_replicas": 4}}))
    scaling = built.predictor._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 4)
    assert built.deployment("a").num_replicas == 1


FALLBACK = {"prompt": {"template": "hi", "role": "main", "fallback": {"on": "error", "static_response": "x"}}}


@pytest.mark.parametrize(
    ("runtime", "parts", "drains_s"),
    [
        ({"timeout_ms": 2000}, {}, 2 + 5),
        ({"timeout_ms": 2000, "retries": 3, "retry_backoff_ms": 500}, {}, 3 * 2 + 2 * 0.5 + 5),
        ({"timeout_ms": 2000}, FALLBACK, 2 * 2 + 5),
        ({"timeout_ms": 900_000}, {}, 60 + 5),
    ],
)
def test_a_replica_that_must_go_may_finish_its_calls_but_no_call_outlasts_its_request(
    runtime: dict[str, Any], parts: dict[str, Any], drains_s: float
):
    built = Built(flow=flow(nodes={"a": node(runtime, **parts)}))
    assert built.deployment("a")._deployment_config.graceful_shutdown_timeout_s == drains_s
    assert built.predictor._deployment_config.graceful_shutdown_timeout_s == 60 + 5


def test_the_predictor_drains_as_long_as_a_request_may_take():
    built = Built(limits={"deadline_s": 7})
    assert built.predictor._deployment_config.graceful_shutdown_timeout_s == 12
    assert built.spec.limits.deadline_s == 7


def test_building_starts_no_ray():
    import ray

    before = ray.is_initialized()
    Built()
    assert ray.is_initialized() is before


# -- tools -------------------------------------------------------------------------------------------------------------


def with_tools(**placements: str) -> dict[str, Any]:
    """`a` asks a model that may call `near` and `far`."""

    def placed(name: str) -> dict[str, Any]:
        return {"placement": placements[name]} if name in placements else {}

    tools = [{"name": name, "maps_to": name} for name in ("near", "far")]
    ask = node(placed("a"), prompt={"role": "main", "template": "{{ x }}", "tools": tools})
    nodes = {name: {**PLAIN, "inputs": [], "runtime": placed(name)} for name in ("near", "far")}
    return flow(nodes={"a": ask, **nodes}, edges=flow()["edges"])


def test_a_node_is_bound_to_the_deployments_of_its_tools_and_holds_those_that_run_inside_it():
    built = Built(flow=with_tools(near="inline"))
    assert (built.spec.inline, set(built.nodes)) == ((), {"a"})
    deployment, spec, _ = built.nodes["a"]
    assert (deployment.name, spec.id) == ("desk.a", "a")
    assert set(spec.nodes) == set(spec.settings) == {"a", "near"}
    assert {name: bound(target)[0].name for name, target in built.tools["a"].items()} == {"far": "desk.far"}


def test_the_predictor_reaches_the_tools_of_the_prompts_that_run_inside_it():
    built = Built(flow=with_tools(a="inline", near="inline"))
    assert built.spec.inline == ("a", "near")
    assert set(built.nodes) == {"far"}


@pytest.mark.parametrize(
    ("store", "ledger", "together"),
    [
        ("sqlite:///agentflow.sqlite", None, False),
        ("postgresql://db/agentflow", None, True),
        ("postgresql://db/agentflow", "own", False),
        ("sqlite:///agentflow.sqlite", "shared", True),
        ("memory:", "shared", False),
    ],
)
def test_the_actor_counts_model_calls_where_that_pays_or_where_it_is_said(
    store: str, ledger: LedgerWay | None, together: bool
):
    settings = ProcessSettings(llmhub=None, roles=(), store=store, code="inline", allow_hosts=(), ledger=ledger)
    assert commits_together(settings) is together
