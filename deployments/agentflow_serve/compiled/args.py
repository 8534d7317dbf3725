"""What a compiled flow is told about the place where it runs."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from agentflow_serve.args import AppArgs
from agentflow_serve.errors import AppInvalid

VARIABLE = "AGENTFLOW_"
_CALLS_TTL = "calls_ttl_s"
_LISTS = frozenset({"allow_hosts", "slot_modules"})
_READ = ("llmhub", "store", "code", "allow_hosts", "feature_store", "embedder", "slot_modules")
_READ += ("budgets", "policy", "auth", _CALLS_TTL)


class AgentArgs(AppArgs):
    """The arguments of a served flow without the flow, which the class is. All nodes run in one process.

    kserve's own server has no edge of ours: `auth: keys` holds for Ray Serve only.
    """

    flow: None = None  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
    placement: Literal["inline"] = "inline"  # pyright: ignore[reportIncompatibleVariableOverride]


def args_from(environment: Mapping[str, str]) -> AgentArgs:
    """The arguments in variables such as AGENTFLOW_LLMHUB; AGENTFLOW_ALLOW_HOSTS is a list with commas.

    AGENTFLOW_CALLS_TTL_S may be `null`, for ever, as in a serve config.

    Raises AppInvalid that names every variable that is wrong.
    """
    given: dict[str, Any] = {}
    for name in _READ:
        if value := environment.get(VARIABLE + name.upper()):
            given[name] = [part.strip() for part in value.split(",")] if name in _LISTS else value
    if given.get(_CALLS_TTL) == "null":
        given[_CALLS_TTL] = None
    try:
        return AgentArgs.model_validate(given)
    except ValidationError as exc:
        problems = "; ".join(f"{VARIABLE}{str(each['loc'][0]).upper()}: {each['msg']}" for each in exc.errors())
        raise AppInvalid(f"the agent's variables are wrong: {problems}") from exc
