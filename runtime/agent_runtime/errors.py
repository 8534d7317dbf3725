"""What can go wrong in the runtime around a model call.

    AgentRuntimeError (an AgentflowError)         `code` is stable and machine-readable
    |- ScopeMismatchError                         a manager of one scope was given another scope's record
    |- JobError                                   `job_id`
    |  |- JobNotFoundError                        no such job in this scope
    |  |- JobStateError                           the job's state does not allow it; `status` says which it is
    |  `- JobConflictError                        the idempotency key belongs to another request
    |- ActionError                                `action_id`
    |  |- ActionNotFoundError                     no such action in this scope, or no action of that token
    |  |- ActionConflictError                     it was resolved or cancelled before
    |  |- ActionExpiredError                      its time was up
    |  `- ActionPendingError (a TimeoutError)     nobody resolved it while the caller waited
    |- PluginError                                `plugin`
    |  |- PluginRefusedError                      not on the allow list, or on the deny list
    |  |- PluginDependencyError                   something that it needs is absent, of another version, or in a circle
    |  `- PluginInvalidError                      it does not load, or is no plugin
    |- ExecutionError                             `job_id`; how a run of the kernel ended, where it gave no result
    |  |- ExecutionFailedError                    `failure` is the stored code
    |  |- ExecutionCancelledError
    |  `- ExecutionTimedOutError (a TimeoutError)
    `- OrchestrationError                         operators that do not fit together
       |- GraphInvalid                            an ExecutionGraph cannot run; `problems` are sentences
       `- LimitReached                            an OrchestrationConfig does not allow so many children or levels

    CallRefused (of llm_client)                   a guard said no; nothing was sent
    |- PolicyDenied                               a rule said no, or an approval was not given
    `- BudgetExceededError                        a limit is reached

Every class takes its message first and its facts as optional keywords, and survives pickling with them.
"""

from __future__ import annotations

from typing import ClassVar

from llm_client.errors import CallRefused
from runtime_core.errors import AgentflowError


class AgentRuntimeError(AgentflowError):
    code: ClassVar[str] = "agent_runtime"


class ScopeMismatchError(AgentRuntimeError):
    """`scope_id` was asked for where `bound_to` is the only scope."""

    code: ClassVar[str] = "scope_mismatch"

    def __init__(self, message: str, *, scope_id: str | None = None, bound_to: str | None = None) -> None:
        super().__init__(message)
        self.scope_id = scope_id
        self.bound_to = bound_to


class JobError(AgentRuntimeError):
    code: ClassVar[str] = "job_error"

    def __init__(self, message: str, *, job_id: str | None = None) -> None:
        super().__init__(message)
        self.job_id = job_id


class JobNotFoundError(JobError):
    code: ClassVar[str] = "job_not_found"


class JobStateError(JobError):
    """`status` is the job's; `event` is what was asked of it; `owner` has it, where another worker was the reason."""

    code: ClassVar[str] = "job_state"

    def __init__(
        self,
        message: str,
        *,
        job_id: str | None = None,
        status: str | None = None,
        event: str | None = None,
        owner: str | None = None,
    ) -> None:
        super().__init__(message, job_id=job_id)
        self.status = status
        self.event = event
        self.owner = owner


class JobConflictError(JobError):
    code: ClassVar[str] = "idempotency_conflict"


class ActionError(AgentRuntimeError):
    code: ClassVar[str] = "action_error"

    def __init__(self, message: str, *, action_id: str | None = None) -> None:
        super().__init__(message)
        self.action_id = action_id


class ActionNotFoundError(ActionError):
    code: ClassVar[str] = "action_not_found"


class ActionConflictError(ActionError):
    """`status` is the action's."""

    code: ClassVar[str] = "action_conflict"

    def __init__(self, message: str, *, action_id: str | None = None, status: str | None = None) -> None:
        super().__init__(message, action_id=action_id)
        self.status = status


class ActionExpiredError(ActionError):
    code: ClassVar[str] = "action_expired"


class ActionPendingError(ActionError, TimeoutError):
    code: ClassVar[str] = "action_pending"


class PluginError(AgentRuntimeError):
    code: ClassVar[str] = "plugin_error"

    def __init__(self, message: str, *, plugin: str | None = None) -> None:
        super().__init__(message)
        self.plugin = plugin


class PluginRefusedError(PluginError):
    code: ClassVar[str] = "plugin_refused"


class PluginDependencyError(PluginError):
    """`needs` is the requirement that is not met."""

    code: ClassVar[str] = "plugin_dependency"

    def __init__(self, message: str, *, plugin: str | None = None, needs: str | None = None) -> None:
        super().__init__(message, plugin=plugin)
        self.needs = needs


class PluginInvalidError(PluginError):
    code: ClassVar[str] = "plugin_invalid"


class ExecutionError(AgentRuntimeError):
    code: ClassVar[str] = "execution"

    def __init__(self, message: str, *, job_id: str | None = None) -> None:
        super().__init__(message)
        self.job_id = job_id


class ExecutionFailedError(ExecutionError):
    code: ClassVar[str] = "execution_failed"

    def __init__(self, message: str, *, job_id: str | None = None, failure: str | None = None) -> None:
        super().__init__(message, job_id=job_id)
        self.failure = failure


class ExecutionCancelledError(ExecutionError):
    code: ClassVar[str] = "cancelled"


class ExecutionTimedOutError(ExecutionError, TimeoutError):
    code: ClassVar[str] = "timed_out"


class OrchestrationError(AgentRuntimeError):
    code: ClassVar[str] = "orchestration"


class GraphInvalid(OrchestrationError):
    code: ClassVar[str] = "graph_invalid"

    def __init__(self, message: str, *, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class LimitReached(OrchestrationError):
    """`limit` is the field of OrchestrationConfig, `allowed` its value."""

    code: ClassVar[str] = "limit_reached"

    def __init__(self, message: str, *, limit: str | None = None, allowed: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        self.allowed = allowed


class PolicyDenied(CallRefused):
    """`rule` is the rule that said no; `action_id` the approval that was asked for, where one was."""

    code: ClassVar[str] = "policy_denied"

    def __init__(
        self,
        message: str,
        *,
        scope_id: str | None = None,
        reason: str | None = None,
        retry_after: float | None = None,
        rule: str | None = None,
        action_id: str | None = None,
    ) -> None:
        super().__init__(message, scope_id=scope_id, reason=reason, retry_after=retry_after)
        self.rule = rule
        self.action_id = action_id


class BudgetExceededError(CallRefused):
    """`limit` names the limit that is reached, such as `max_tokens_daily`; `window` is its last word.

    `retry_after` is in seconds, None where waiting does not help. `status` is what it means over HTTP. `run_id` is the
    run whose budget it is, None where it is that of somebody above; the limit is `allowed`, and would have to be larger
    by `missing`, both in dollars, seconds or a count.
    """

    code: ClassVar[str] = "budget_exceeded"

    def __init__(
        self,
        message: str,
        *,
        scope_id: str | None = None,
        reason: str | None = None,
        retry_after: float | None = None,
        limit: str | None = None,
        window: str | None = None,
        run_id: str | None = None,
        allowed: float | None = None,
        missing: float | None = None,
    ) -> None:
        super().__init__(message, scope_id=scope_id, reason=reason, retry_after=retry_after)
        self.limit = limit
        self.window = window
        self.run_id = run_id
        self.allowed = allowed
        self.missing = missing

    @property
    def status(self) -> int:
        """429 for a window that ends, 402 for everything that only a larger budget cures."""
        return 402 if self.retry_after is None else 429
