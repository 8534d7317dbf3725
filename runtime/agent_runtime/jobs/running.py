"""The work that runs for jobs in this process: how a job that ends stops it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

Stop = Callable[[str], object]
JobKey = tuple[str, str]


class RunningWork:
    """Whoever works for a job leaves a way to stop, under (scope_id, job_id)."""

    def __init__(self) -> None:
        self._stops: defaultdict[JobKey, dict[object, Stop]] = defaultdict(dict)

    def add(self, key: JobKey, stop: Stop) -> Callable[[], None]:
        """`stop` is called with the reason when the job is ended; what is returned takes it back."""
        mark = object()
        self._stops[key][mark] = stop

        def take_back() -> None:
            self._stops[key].pop(mark, None)
            if not self._stops[key]:
                del self._stops[key]

        return take_back

    def stop(self, key: JobKey, reason: str) -> None:
        """Stop all work for the job. It is told once."""
        for stop in self._stops.pop(key, {}).values():
            stop(reason)
