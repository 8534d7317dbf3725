"""Running one operation by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_runtime import ActionManager, InMemoryActionStore
from agentflow.ir import OperationSpec
from flow_runtime.models import Models
from flow_runtime.operations import (
    BoundOperation,
    OperationCall,
    OperationResources,
    OperationSettings,
    bind_operation,
)
from flow_runtime.scripted_models import ScriptedModels


def bound(
    op: str,
    args: Mapping[str, Any],
    *names: str,
    models: Models | None = None,
    model: str | None = None,
    **settings: Any,
) -> BoundOperation:
    """An operation whose placeholders may use `names`, `context` and `prompt_output`."""
    return bind_operation(
        OperationSpec(op=op, args=dict(args)),
        names={*names, "context", "prompt_output"},
        settings=OperationSettings(**settings),
        resources=OperationResources(actions=ActionManager(InMemoryActionStore())),
        models=models or ScriptedModels({}),
        model=model,
    )


async def run_operation(
    op: str, args: Mapping[str, Any], *, context: Mapping[str, Any] | None = None, **inputs: Any
) -> Any:
    """The operation's value, for these inputs of its node."""
    fields = dict(context or {})
    operation = bound(op, args, *inputs)
    return await operation.run({**inputs, "context": fields}, OperationCall("node", fields))
