"""An error as it is kept with a job."""

from __future__ import annotations

from agent_runtime.jobs.records import JobFailure

MOST_CHARS = 2000


def failure_of(error: str | BaseException | JobFailure) -> JobFailure:
    """`code` is the error's own where it has one, else the name of its class."""
    if isinstance(error, JobFailure):
        return error
    if isinstance(error, str):
        return JobFailure(code="failed", message=error[:MOST_CHARS])
    code = getattr(error, "code", None)
    name = type(error).__name__
    return JobFailure(code=code if isinstance(code, str) else name, message=(str(error) or name)[:MOST_CHARS])
