"""Operations that run agents: every agent is somebody, and nothing of it comes from a request but its words."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, cast

from agentflow.agent_use import AGENT_KEYS, BUDGET_KEYS, LIMIT_KEYS, LISTS, agent_operation, agents_in, role_in
from agentflow.checks.scope import Findings, Scope, at_node, listed
from agentflow.findings import PathStep
from agentflow.ir import OperationSpec

_ARGS: tuple[PathStep, ...] = ("transform", "spec", "args")
_COUNTS = ("max_turns", "max_tokens")


def check_agents(scope: Scope) -> Findings:
    """Findings about the agents, limits and budgets of agent.* operations."""
    for name, node in scope.flow.nodes.items():
        spec = agent_operation(node)
        if spec is None:
            continue
        for at, problem in _problems(spec):
            yield at_node("bad-argument", f"{'.'.join(map(str, at))} {problem}", node=name, at=(*_ARGS, *at))
        for at, agent in agents_in(spec):
            role = role_in(agent)
            if role and "${" not in role and scope.roles is not None and role not in scope.roles:
                message, hint = f"llmhub has no role '{role}'", f"its roles: {listed(scope.roles)}"
                yield at_node("unknown-role", message, hint, node=name, at=(*_ARGS, *at))


def _problems(spec: OperationSpec) -> Iterator[tuple[tuple[PathStep, ...], str]]:
    for argument in LISTS & spec.args.keys():
        if not isinstance(spec.args[argument], list) or not spec.args[argument]:
            yield (argument,), "must be a list of agents, with at least one"
    for at, agent in agents_in(spec):
        if at[0] not in LISTS or len(at) > 1:
            for problem in _agent(agent):
                yield at, problem
    for argument, keys in (("limits", LIMIT_KEYS), ("budgets", BUDGET_KEYS)):
        value = spec.args.get(argument)
        if value is None:
            continue
        if not isinstance(value, Mapping):
            yield (argument,), "must be a mapping"
            continue
        given = cast("Mapping[str, Any]", value)
        yield from (((argument,), problem) for problem in _unknown(given, keys))
        for key, entry in given.items():
            if key in keys and not _fits(key, entry):
                yield (argument, key), "must be a positive number, or true or false where it is a choice"
    if not _is_count(spec.args.get("max_rounds", 1)):
        yield ("max_rounds",), "must be a whole number from 1 on"
    if spec.args.get("on_error", "fail") not in ("fail", "collect"):
        yield ("on_error",), "must be fail or collect"
    if not isinstance(spec.args.get("parallel", False), bool):
        yield ("parallel",), "must be true or false"


def _agent(agent: Any) -> Iterator[str]:
    if not role_in(agent) or "${" in (role_in(agent) or ""):
        yield "must be the name of a role, or a mapping with a role; a request cannot choose it"
    if not isinstance(agent, Mapping):
        return
    given = cast("Mapping[str, Any]", agent)
    yield from _unknown(given, AGENT_KEYS)
    for key in _COUNTS:
        if key in given and not _is_count(given[key]):
            yield f"has a {key} that is no whole number from 1 on"
    temperature = given.get("temperature", 0)
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature <= 2:
        yield "has a temperature that is no number from 0 to 2"
    for key in ("name", "system"):
        if not isinstance(given.get(key, ""), str):
            yield f"has a {key} that is no text"
    if not _are_names(given.get("tools", [])):
        yield "has tools that are no list of names of installed tools"


def _are_names(tools: Any) -> bool:
    if not isinstance(tools, list):
        return False
    return all(isinstance(tool, str) and "${" not in tool for tool in cast("list[Any]", tools))


def _unknown(given: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    for key in given:
        if key not in known:
            nearest = get_close_matches(str(key), known, n=1)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"it may have: {listed(sorted(known))}"
            yield f"has no key '{key}'; {hint}"


def _fits(key: str, value: Any) -> bool:
    if key == "parallel_execution":
        return isinstance(value, bool)
    if key in ("timeout_seconds", "max_runtime_seconds", "max_cost"):
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
    return _is_count(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
