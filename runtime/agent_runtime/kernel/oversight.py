"""The policy of a kernel at the doors of its operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_runtime.policy.engine import PolicyEngine
from agent_runtime.policy.guard import demand
from agent_runtime.policy.named import NamedPolicies
from llm_client.providers.protocol import Target
from llm_client.spec import RequestSpec
from runtime_core.context import ExecutionContext


class PolicyOverseer:
    """Asks every engine, and the policy that the run has selected; all of them have to agree.

    A model is known by its name, or by its role if nobody says it.
    """

    def __init__(self, engines: Sequence[PolicyEngine], named: NamedPolicies) -> None:
        self._engines = tuple(engines)
        self._named = named

    async def admit_model(self, spec: RequestSpec, target: Target | None, execution: ExecutionContext) -> int | None:
        """Raises PolicyDenied."""
        name = (spec.role or "default") if target is None else target.model
        provider = None if target is None else target.provider
        chars = sum(len(str(message.get("content") or "")) for message in spec.messages)
        bounds: list[int] = []
        for engine in self._of(execution):
            result = await engine.check_model(name, execution, provider=provider, input_chars=chars)
            demand(result, execution, f"The model {name}")
            if result.max_output_tokens is not None:
                bounds.append(result.max_output_tokens)
        return min(bounds, default=None)

    async def admit_tool(self, name: str, arguments: Mapping[str, Any], execution: ExecutionContext) -> None:
        """Raises PolicyDenied."""
        for engine in self._of(execution):
            demand(await engine.check_tool(name, execution, arguments=arguments), execution, f"The tool {name}")

    def _of(self, execution: ExecutionContext) -> tuple[PolicyEngine, ...]:
        if execution.policy_ref is None:
            return self._engines
        return (*self._engines, self._named.engine(execution.policy_ref))
