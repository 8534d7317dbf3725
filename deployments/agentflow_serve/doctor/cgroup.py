"""What the control groups of a process leave it: a container's limits, which the machine's own numbers hide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

UNLIMITED = 1 << 60
"""The first version writes a number near 2^63 where there is no limit."""


@dataclass(frozen=True, slots=True)
class Limits:
    """None where there is no limit. `memory_bytes` is what is left of it."""

    cpus: float | None = None
    memory_bytes: int | None = None


def limits(membership: str, root: Path) -> Limits:
    """The tightest limits on the way up from the process's groups.

    `membership` is the text of /proc/self/cgroup, `root` is where the groups are mounted. Inside a container
    the path in it may be the host's; then only the root, which is the container's own group, is there.
    """
    cpus: list[float] = []
    memory: list[int] = []
    for line in membership.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        for folder in _upwards(root, controllers, path):
            if (cpu := _cpus(folder)) is not None:
                cpus.append(cpu)
            if (left := _memory(folder)) is not None:
                memory.append(left)
    return Limits(min(cpus, default=None), min(memory, default=None))


def _upwards(root: Path, controllers: str, path: str) -> Iterator[Path]:
    top = root / controllers if controllers else root
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for length in range(len(parts), -1, -1):
        yield top.joinpath(*parts[:length])


def _cpus(group: Path) -> float | None:
    quota, _, period = (_text(group / "cpu.max") or "max").partition(" ")
    if quota == "max":
        quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
    if not quota.isdigit() or not period.isdigit():
        return None
    return int(quota) / int(period)


def _memory(group: Path) -> int | None:
    for limit, usage, inactive in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        allowed, used = _text(group / limit), _text(group / usage)
        if allowed.isdigit() and used.isdigit() and int(allowed) < UNLIMITED:
            statistics = dict(line.split(" ", 1) for line in _text(group / "memory.stat").splitlines() if " " in line)
            # Cached files that nobody uses are given back before memory runs out.
            return max(0, int(allowed) - int(used) + int(statistics.get(inactive, 0)))
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
