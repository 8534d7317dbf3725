"""A compiled flow as a Serve application: the predictor's replicas run it, behind the KServe protocols."""

from __future__ import annotations

from ray.serve import Application

from agentflow_serve.args import AppArgs
from agentflow_serve.builder import build
from agentflow_serve.compiled.args import AgentArgs
from flow_runtime.compiled.agent import LocalAgent


def application(agent: type[LocalAgent], args: AgentArgs) -> Application:
    """The application of a compiled flow. Replicas import the class from where it was defined.

    Raises what the builder of flow files raises.
    """
    flow = agent.plan().flow.model_dump(mode="json", by_alias=True, exclude_unset=True)
    told = args.model_dump(exclude_unset=True) | {"flow": flow, "placement": "inline"}
    return build(AppArgs.model_validate(told), agent=agent)
