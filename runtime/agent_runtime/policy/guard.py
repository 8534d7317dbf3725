"""The policy at the doors of layer 0: before every attempt at a model, and before every call of an agent's tool."""

from __future__ import annotations

from agent_runtime.errors import PolicyDenied
from agent_runtime.policy.decide import Caller, PolicyResult, Subject
from agent_runtime.policy.engine import PolicyEngine
from llm_client.agent.middleware.chain import Next, ToolInvocation
from llm_client.guard import Admission, Lease, NoLease
from llm_client.spec import EmbeddingSpec, RequestSpec
from runtime_core.call_log.records import Attempt


class PolicyGuard:
    """A Guard of llm_client: a model that is not allowed is not asked. Compose it with others by GuardChain."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine

    async def begin(self, attempt: Attempt, request: RequestSpec | EmbeddingSpec) -> Lease:
        """Raises PolicyDenied; returns only when an approval that a rule wants was granted."""
        result = await self._engine.check_model(
            attempt.model, attempt, provider=attempt.provider, input_chars=_chars(request)
        )
        demand(result, attempt, f"The model {attempt.model}")
        return NoLease(Admission(max_tokens=result.max_output_tokens))


class PolicyMiddleware:
    """A Middleware of llm_client's agents: a tool that is not allowed is not called, and the model is told why."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine

    async def __call__(self, call: ToolInvocation, next: Next) -> str:
        """Raises PolicyDenied."""
        context = call.context
        subject = Caller(context.tenant_id, context.user_id, context.run_id, context.job_id)
        name = call.tool.name
        demand(await self._engine.check_tool(name, subject, arguments=call.arguments), subject, f"The tool {name}")
        return await next(call)


def demand(result: PolicyResult, subject: Subject, what: str) -> None:
    """Raises PolicyDenied if the result is no."""
    if not result.allowed:
        raise PolicyDenied(
            f"{what} was refused by policy: {result.reason}.",
            scope_id=subject.scope_id,
            reason=result.effect.name.lower(),
            rule=result.rule,
            action_id=result.action_id,
        )


def _chars(request: RequestSpec | EmbeddingSpec) -> int:
    """The text of the request, as far as it is text."""
    if isinstance(request, EmbeddingSpec):
        return sum(map(len, request.inputs))
    contents = (message.get("content") for message in request.messages)
    return sum(len(content) if isinstance(content, str) else len(str(content)) for content in contents if content)
