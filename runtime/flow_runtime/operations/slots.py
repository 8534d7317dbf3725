"""slot.call: a `@generative` function of an installed program, answered by the node's model."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from agentflow.ir import ModelRef
from agentflow.placeholders import compile_args
from flow_runtime.context import copy_json
from flow_runtime.errors import CodeRefused, ModelFailed, OperationFailed, OutputInvalid
from flow_runtime.models import Models
from flow_runtime.models_engine import ModelsEngine
from flow_runtime.operations.base import OperationBinding, OperationCall, OperationFactory
from flow_runtime.operations.settings import ANY_MODULE
from mellea_runtime.errors import SlotFailed, SlotNotFound, SlotRefused
from mellea_runtime.slots import SlotCaller, find_slot

_JSON: TypeAdapter[Any] = TypeAdapter(Any)


class SlotCall:
    """Bound once: the slot is looked up, and its module imported, when the node starts.

    Raises CodeRefused for a module that this server does not allow, OperationFailed for a slot that is not there.
    """

    def __init__(self, binding: OperationBinding) -> None:
        allowed = binding.settings.slot_modules
        module, name = binding.args["module"], binding.args["slot"]
        try:
            slot = find_slot(module, name, allowed=None if ANY_MODULE in allowed else allowed)
        except SlotRefused as exc:
            raise CodeRefused(f"{exc}; add it to slot_modules in the serve config") from exc
        except SlotNotFound as exc:
            raise OperationFailed(str(exc), op=binding.op) from exc
        self._op = binding.op
        self._caller = SlotCaller(slot, label=f"{module}:{name}")
        self._args = compile_args(dict(binding.args.get("args") or {}), binding.names)
        self._models, self._model = _model(binding)

    async def run(self, values: Mapping[str, Any], call: OperationCall) -> Any:
        arguments = copy_json(self._args.resolve(values))
        try:
            made = await self._caller.call(ModelsEngine(self._models, self._model), arguments)
        except SlotFailed as exc:
            if exc.invalid:
                raise OutputInvalid(str(exc)) from exc
            raise OperationFailed(str(exc), op=self._op) from exc
        try:
            return _JSON.dump_python(made, mode="json")
        except PydanticSerializationError as exc:
            raise OutputInvalid(f"what the slot gave back is no JSON: {exc}") from exc


def _model(binding: OperationBinding) -> tuple[Models, str | ModelRef]:
    model = binding.args.get("role") or binding.model
    if binding.models is None or model is None:
        raise ModelFailed("slot.call has no model: name an llmhub.yaml that says which model answers it")
    return binding.models, model


FACTORIES: Mapping[str, OperationFactory] = MappingProxyType({"slot.call": SlotCall})
