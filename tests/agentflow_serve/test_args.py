"""The `args` of a serve config: what may stand there, and what a mistake is told."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import yaml

import agentflow_serve
from agentflow_serve import AppArgs
from agentflow_serve.args import parse_args
from agentflow_serve.errors import AppInvalid


def test_a_flow_is_all_that_an_app_needs_and_the_rest_has_production_defaults():
    args = parse_args({"flow": "flow.yaml"})
    assert args == AppArgs(flow="flow.yaml")
    assert (args.llmhub, args.placement, args.code, args.allow_hosts, args.sim_script) == (
        None,
        None,
        "inline",
        (),
        None,
    )
    assert args.store == "sqlite:///agentflow.sqlite"
    assert args.limits.deadline_s == 60


@pytest.mark.parametrize(
    ("wrong", "mentions"),
    [
        ({"llmhubb": "x"}, "args.llmhubb"),
        ({"placement": "everywhere"}, "args.placement"),
        ({"placement": "auto"}, "args.placement"),
        ({"code": "yes"}, "args.code"),
        ({"limits": {"deadline": 3}}, "args.limits.deadline"),
        ({"limits": {"deadline_s": 0}}, "args.limits.deadline_s"),
        ({"allow_hosts": ["http://example.com"]}, "'http://example.com' is not a host or host:port"),
        ({"flow": None}, "args.flow"),
        ({"store": 5}, "args.store"),
        ({"store": "memory:", "ledger": "shared"}, "`ledger: shared` needs a store"),
    ],
)
def test_a_key_or_value_that_is_wrong_is_named_with_the_keys_that_there_are(wrong: dict[str, Any], mentions: str):
    with pytest.raises(AppInvalid) as raised:
        parse_args({"flow": "flow.yaml", **wrong})
    assert mentions in str(raised.value)
    assert (
        "args has: flow, llmhub, store, session_ttl_s, calls_ttl_s, ledger, placement, code, allow_hosts, "
        "feature_store, embedder, slot_modules, budgets, policy, limits, auth, open_to_network, metrics_by_scope, "
        "sim_script" in str(raised.value)
    )


def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(AppInvalid) as raised:
        parse_args({"flo": "flow.yaml", "code": 1})
    for part in ("args.flow: Field required", "args.flo:", "args.code:"):
        assert part in str(raised.value)


@pytest.mark.parametrize("data", [[], "flow.yaml", None])
def test_args_that_are_no_mapping_are_refused(data: Any):
    with pytest.raises(AppInvalid):
        parse_args(data)


def test_an_unquoted_off_is_what_it_says_although_yaml_makes_it_false():
    assert parse_args({"flow": "f", **yaml.safe_load("code: off")}).code == "off"


def test_allowed_hosts_are_kept_in_one_spelling():
    assert parse_args({"flow": "f", "allow_hosts": ["EXAMPLE.com.", "[::1]:8080"]}).allow_hosts == (
        "example.com",
        "[::1]:8080",
    )


def test_serve_turns_a_configs_args_into_app_args_because_the_builder_says_so():
    """Serve reads the annotation of the builder's only parameter; as text it would pass a bare dict."""
    [parameter] = inspect.signature(agentflow_serve.app).parameters.values()
    assert parameter.annotation is AppArgs


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"auth": "keys", "store": "memory:"}, "a store that outlives the process"),
        ({"auth": "keys", "open_to_network": True}, "leave it out"),
        ({"auth": "key"}, "args.auth"),
        ({"auth": None}, "args.auth"),
    ],
)
def test_who_may_call_is_said_without_contradiction(wrong: dict[str, Any], says: str):
    with pytest.raises(AppInvalid, match=says):
        parse_args({"flow": "flow.yaml", **wrong})
    assert parse_args({"flow": "flow.yaml"}).auth == "none"
