"""How far an operator may spread."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class OrchestrationConfig(BaseModel):
    """Limits of every operator that runs others (source: agent-runtime, OrchestrationConfig).

    A child is an operator, an agent or a job that another one starts. `max_child_jobs` counts them for each parent,
    `max_depth` the levels below the first one. `timeout_seconds` bounds each child, less where the deadline or the
    budget's runtime ends before. With `inherit_budgets` what a child takes also counts against its parents' limits.
    Without `propagate_cancellation` children that run when their parent is cancelled come to their own end, and it
    waits for them. `max_parallel` children of a parent run at a time, one without `parallel_execution`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_child_jobs: Annotated[int, Field(ge=1)] = 10
    max_depth: Annotated[int, Field(ge=1)] = 5
    timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 300.0
    inherit_budgets: bool = True
    propagate_cancellation: bool = True
    parallel_execution: bool = True
    max_parallel: Annotated[int, Field(ge=1)] = 5

    @property
    def at_a_time(self) -> int:
        """How many children of one parent may run at the same time."""
        return self.max_parallel if self.parallel_execution else 1
