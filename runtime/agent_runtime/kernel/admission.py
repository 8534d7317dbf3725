"""What a request becomes: a job, below its parent where it has one, with limits that are never looser."""

from __future__ import annotations

from typing import Any

from pydantic import JsonValue, ValidationError

from agent_runtime.errors import LimitReached, OrchestrationError
from agent_runtime.jobs.manager import JobManager
from agent_runtime.jobs.records import JobRecord, JobSpec
from agent_runtime.jobs.store import JobFilter
from agent_runtime.kernel.request import ExecutionRequest
from agent_runtime.kernel.run import Run
from agent_runtime.orchestration.config import OrchestrationConfig
from agent_runtime.policy.named import NamedPolicies
from runtime_core.context import BudgetSpec, PolicyRef

OURS = "kernel"
"""Where a job's metadata holds what the kernel needs to do it again."""

Parent = Run | JobRecord
"""A parent's run if it is in this process, else its job."""


class Admission:
    """Holds children to an OrchestrationConfig, and runs to the policies that there are."""

    def __init__(self, config: OrchestrationConfig, jobs: JobManager, policies: NamedPolicies) -> None:
        self._config = config
        self._jobs = jobs
        self._policies = policies

    async def under(self, request: ExecutionRequest, run: Run | None) -> Parent | None:
        """The parent of a request, which has one child more now; `run` is the parent's, if it is here.

        Raises LimitReached where it may have no more children, or none at all, and JobNotFoundError.
        """
        if request.parent_job_id is None:
            return None
        most, deepest = self._config.max_child_jobs, self._config.max_depth
        parent = run or await self._jobs.for_scope(request.scope_id).get(request.parent_job_id)
        children = await self._children(request) if run is None else run.children
        if children >= most:
            message = f"Job {request.parent_job_id} has {children} children, and max_child_jobs is {most}: raise it."
            raise LimitReached(message, limit="max_child_jobs", allowed=most)
        if (depth := depth_below(parent)) > deepest:
            message = f"A child of job {request.parent_job_id} would be at level {depth}, and max_depth is {deepest}."
            raise LimitReached(message, limit="max_depth", allowed=deepest)
        if run is not None:
            run.children += 1
        return parent

    def spec(self, request: ExecutionRequest, run_id: str, parent: Parent | None) -> JobSpec:
        """Raises OrchestrationError for a policy that is not there, or that is not the parent's."""
        budgets = self._budgets(request, parent)
        limits = (request.timeout_seconds, budgets and budgets.max_runtime_seconds)
        timeout_s = min((limit for limit in limits if limit is not None), default=None)
        if timeout_s is None and parent is not None:
            timeout_s = self._config.timeout_seconds
        ours: dict[str, JsonValue] = {
            "request": request.model_dump(mode="json", exclude_defaults=True),
            "depth": depth_below(parent),
        }
        return JobSpec(
            scope_id=request.scope_id,
            principal_id=request.principal_id,
            session_id=request.session_id,
            run_id=run_id,
            parent_job_id=request.parent_job_id if self._config.propagate_cancellation else None,
            idempotency_key=request.idempotency_key,
            request_hash=request.request_hash() if request.idempotency_key is not None else None,
            deadline=request.deadline,
            timeout_seconds=timeout_s,
            budgets=budgets,
            policy_ref=self._policy(request, parent),
            versions=request.versions,
            metadata={**request.metadata, OURS: ours},
            tags=request.tags,
        )

    def _policy(self, request: ExecutionRequest, parent: Parent | None) -> PolicyRef | None:
        """The one that the request selects, in the version of now; a child has its parent's and no other."""
        wanted = self._policies.exact(request.policy_ref)
        above = parent.context.execution.policy_ref if isinstance(parent, Run) else parent and parent.policy_ref
        if above is not None and wanted not in (None, above):
            raise OrchestrationError(
                f"Job {request.parent_job_id} is under the policy {above.name!r}, and what it starts is under no other."
            )
        return self._policies.exact(above) or wanted

    async def _children(self, request: ExecutionRequest) -> int:
        which = JobFilter(parent_job_id=request.parent_job_id)
        page = await self._jobs.for_scope(request.scope_id).list(which, limit=self._config.max_child_jobs)
        return len(page.jobs)

    def _budgets(self, request: ExecutionRequest, parent: Parent | None) -> BudgetSpec | None:
        """The request's own, or less where its parent has less left."""
        if parent is None or not self._config.inherit_budgets:
            return request.budgets
        left = parent.context.meter.rest() if isinstance(parent, Run) else parent.budgets
        return left if request.budgets is None else request.budgets.within(left)


def let_go(parent: Parent | None) -> None:
    """A child that `under` counted did not come to be."""
    if isinstance(parent, Run):
        parent.children -= 1


def depth_below(parent: Parent | None) -> int:
    """The level of a child of this parent; 0 without one."""
    if parent is None:
        return 0
    if isinstance(parent, Run):
        return parent.depth + 1
    ours = parent.metadata.get(OURS)
    depth = ours.get("depth") if isinstance(ours, dict) else None
    return depth + 1 if isinstance(depth, int) else 1


def request_of(job: JobRecord) -> ExecutionRequest:
    """What a job was asked to do. Raises OrchestrationError for a job that no kernel made."""
    ours: Any = job.metadata.get(OURS)
    try:
        return ExecutionRequest.model_validate(ours["request"])
    except (KeyError, TypeError, ValidationError) as exc:
        raise OrchestrationError("its record does not say what it was asked to do") from exc
