"""action.require: a node that waits for a person. Its value is what the person answered."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from agent_runtime.actions.records import ActionSpec, ActionStatus
from agent_runtime.errors import AgentRuntimeError
from agentflow.placeholders import compile_args
from flow_runtime.errors import LedgerUnavailable, OperationFailed, OperationTimeout
from flow_runtime.operations.base import OperationBinding, OperationCall, OperationFactory
from runtime_core.context import ExecutionContext
from runtime_core.errors import StoreError
from runtime_core.ids import check_scope_id

LATER_S = 5.0
"""Whoever waits withdraws a question first; only one of a dead process expires."""


class RequireAction:
    """Opens an action and waits until it is settled. An answer in time is the value; none is a timeout.

    The action belongs to the scope of the run, or to the `scope` that the flow names: a constant, since what a
    request says is data. A payload that is no object is asked about as `{"value": payload}`. Whoever stops waiting
    (the node's own timeout, a request that is gone) withdraws the question; where the process died with whoever waits,
    it expires a moment after the node's time was up.
    """

    def __init__(self, binding: OperationBinding) -> None:
        args = dict(binding.args)
        scope = args.pop("scope", None)
        self._op = binding.op
        self._scope = None if scope is None else check_scope_id(str(scope))
        self._args = compile_args(args, binding.names)
        self._actions = binding.resources.actions

    async def run(self, values: Mapping[str, Any], call: OperationCall) -> Any:
        run = call.run or ExecutionContext()
        left = (call.deadline_s, run.remaining_s(self._actions.clock.now()))
        left_s = min((each for each in left if each is not None), default=None)
        spec = self._spec(self._args.resolve(values), run, left_s)
        try:
            action = await self._actions.for_scope(self._scope or run.scope_id).ask(spec)
        except StoreError as exc:
            raise LedgerUnavailable(f"{self._op} could not ask: {exc}") from exc
        except AgentRuntimeError as exc:
            raise OperationFailed(f"{self._op} could not ask: {exc}", op=self._op) from exc
        if action.status is ActionStatus.EXPIRED:
            text = f"nobody answered the action {action.action_id} in time"
            raise OperationTimeout(text, op=self._op, timeout_s=spec.timeout_seconds)
        if action.status is not ActionStatus.RESOLVED:
            raise OperationFailed(f"the action {action.action_id} was withdrawn", op=self._op)
        return action.resolution

    def _spec(self, args: Mapping[str, Any], run: ExecutionContext, left_s: float | None) -> ActionSpec:
        payload, timeout_s = args.get("payload"), args.get("timeout_seconds")
        if timeout_s is None and left_s is not None:
            timeout_s = left_s + LATER_S
        if not isinstance(payload, Mapping):
            payload = {} if payload is None else {"value": payload}
        try:
            return ActionSpec.model_validate(
                {
                    "type": args["type"],
                    "payload": {**payload},
                    "timeout_seconds": timeout_s,
                    "job_id": None if self._scope not in (None, run.scope_id) else run.job_id,
                }
            )
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_input=False)[0]
            text = f"{self._op} cannot ask for that: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise OperationFailed(text, op=self._op) from exc


FACTORIES: Mapping[str, OperationFactory] = MappingProxyType({"action.require": RequireAction})
