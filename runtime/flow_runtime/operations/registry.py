"""Finds operations by name and loads the module of those that a flow names, and of no others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from agentflow.agent_use import AGENT_ARGS
from agentflow.errors import FlowError
from agentflow.ir import ModelRef, OperationSpec
from agentflow.operations import OPERATIONS
from flow_runtime.errors import OperationFailed, OperationTimeout, OperationUnknown
from flow_runtime.installed import NotInstalled, load
from flow_runtime.models import Models
from flow_runtime.operations.base import BoundOperation, OperationBinding, OperationCall, OperationFactory
from flow_runtime.operations.resources import OperationResources
from flow_runtime.operations.settings import OperationSettings
from runtime_core.errors import AgentflowError

if TYPE_CHECKING:
    from flow_runtime.agent_tools import AgentTools

ENTRY_POINT_GROUP = "agentflow.operations"

_MODULES: Mapping[str, str] = MappingProxyType(
    {
        "transform.filter": "flow_runtime.operations.transform",
        "transform.map": "flow_runtime.operations.transform",
        "transform.reduce": "flow_runtime.operations.transform",
        "io.format_response": "flow_runtime.operations.io",
        "http.get": "flow_runtime.operations.http",
        "http.post": "flow_runtime.operations.http",
        "features.read": "flow_runtime.operations.features",
        "features.write": "flow_runtime.operations.features",
        "features.vector_search": "flow_runtime.operations.features",
        "hopsworks.read_features": "flow_runtime.operations.features",
        "hopsworks.write_features": "flow_runtime.operations.features",
        "hopsworks.vector_search": "flow_runtime.operations.features",
        "hopsworks.get_model": "flow_runtime.operations.features",
        "slot.call": "flow_runtime.operations.slots",
        "action.require": "flow_runtime.operations.action",
        **dict.fromkeys(AGENT_ARGS, "flow_runtime.operations.agent"),
    }
)
"""Where ours are; each module has a table FACTORIES by operation name."""


def bind_operation(
    spec: OperationSpec,
    *,
    names: Collection[str],
    settings: OperationSettings,
    resources: OperationResources,
    models: Models | None = None,
    model: str | ModelRef | None = None,
    tools: AgentTools | None = None,
) -> BoundOperation:
    """A node's operation, ready to run. `names` are those that its placeholders may use.

    Raises OperationUnknown, FeatureStoreInvalid, CodeRefused, or what compiling its arguments raises (ExpressionError,
    PlaceholderError).
    """
    binding = OperationBinding(
        op=spec.op,
        args=spec.args,
        names=frozenset(names),
        settings=settings,
        resources=resources,
        models=models,
        model=model,
        tools=tools,
    )
    if (module := _MODULES.get(spec.op)) is not None:
        return import_module(module).FACTORIES[spec.op](binding)
    return _Foreign(spec.op, _installed(spec.op)(binding))


def _installed(op: str) -> OperationFactory:
    if op in OPERATIONS:  # the language's own names cannot be taken
        raise OperationUnknown(f"operation '{op}' is not available in this version", op=op)
    try:
        return load(ENTRY_POINT_GROUP, op, what="operation")
    except NotInstalled as exc:
        raise OperationUnknown(str(exc), op=op) from exc


class _Foreign:
    """An operation that is not ours: whatever it raises becomes an error of ours."""

    def __init__(self, op: str, operation: BoundOperation) -> None:
        self._op = op
        self._operation = operation

    async def run(self, values: Mapping[str, Any], call: OperationCall) -> Any:
        try:
            return await self._operation.run(values, call)
        except (AgentflowError, FlowError):
            raise
        except TimeoutError as exc:
            raise OperationTimeout(f"{self._op} took too long", op=self._op) from exc
        except Exception as exc:
            raise OperationFailed(f"{self._op} raised {type(exc).__name__}: {exc}", op=self._op) from exc
