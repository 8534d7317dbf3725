"""Whether there is room for Ray, and for what the flows ask for: CPU, memory, disk, shared memory, files."""

from __future__ import annotations

from collections.abc import Iterator

from agentflow_serve.doctor.checks import Check, fail, ok, size, warn
from agentflow_serve.doctor.facts import Demand, Machine, Volume

MIB, GIB = 1024**2, 1024**3
REPLICA_BYTES = 160 * MIB
"""What a replica that has imported Ray Serve and a model client keeps for itself; measured with Ray 2.60."""
RAY_BYTES = 700 * MIB
"""Roughly what Ray keeps before the first replica: its store of metadata, raylet, agents, controller and proxy."""
OBJECT_STORE_SHARE = 0.3
OBJECT_STORE_CAP = 10**10
"""How much memory Ray takes for objects when nobody says; beyond the cap it takes what shared memory holds."""
NEARLY_FULL = 0.95
"""Ray stops spilling objects to a disk that is fuller."""
MIN_OPEN_FILES = 4096
MIN_INODES = 10_000
MAX_SOCKET_PATH = 107
"""Unix sockets have short names; these are the bytes that Linux gives them."""
SESSION_PATH = len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")


def check_capacity(machine: Machine, demand: Demand | None, *, elsewhere: bool) -> Iterator[Check]:
    """`demand` is what the apps of a config ask for together; `elsewhere`: they will not run on this machine alone."""
    if elsewhere and demand is not None:
        yield ok("demand", f"{_asks(demand)}; the cluster that is joined must have that, not this machine")
        demand = None
    yield _cpus(machine, demand)
    if demand is not None and demand.gpus > 0:
        yield _gpus(machine, demand)
    yield _memory(machine, demand)
    yield _disk(machine.temp)
    yield _sockets(machine.temp)
    if machine.shared_memory is not None:
        yield _shared_memory(machine.shared_memory, machine.memory_bytes)
    if machine.open_files is not None:
        yield _open_files(machine.open_files)


def _asks(demand: Demand) -> str:
    return f"{demand.replicas} replicas ask for {demand.cpus:g} CPUs"


def _cpus(machine: Machine, demand: Demand | None) -> Check:
    whole = int(machine.cpus)  # Ray counts whole ones
    if demand is None:
        return ok("cpus", f"{machine.cpus:g} CPUs") if whole else _no_cpu(machine)
    if round(demand.cpus, 6) > whole:
        return fail(
            "cpus",
            f"{_asks(demand)}, and Ray has {whole} here: what does not fit waits for ever",
            "lower runtime.resources.num_cpus or min_replicas in the flow, or use `placement: inline`",
        )
    return ok("cpus", f"{_asks(demand)} of {whole}")


def _no_cpu(machine: Machine) -> Check:
    return fail("cpus", f"this container has {machine.cpus:g} CPUs; Ray counts whole ones", "give it at least one")


def _gpus(machine: Machine, demand: Demand) -> Check:
    if demand.gpus > machine.gpus:
        return fail(
            "gpus",
            f"the flow asks for {demand.gpus:g} GPUs, and {machine.gpus} are here: what does not fit waits for ever",
            "take num_gpus out of the flow, or run it where they are",
        )
    return ok("gpus", f"{demand.gpus:g} of {machine.gpus} GPUs are asked for")


def _memory(machine: Machine, demand: Demand | None) -> Check:
    free = machine.memory_bytes
    if free is None:
        return ok("memory", "nobody says how much memory is free here; it was not compared")
    replicas = demand.replicas if demand else 0
    needed = RAY_BYTES + max(replicas * REPLICA_BYTES, demand.memory_bytes if demand else 0)
    what = f"Ray and {replicas} replicas take about {size(needed)}" if replicas else f"Ray takes about {size(needed)}"
    if needed > free:
        return warn(
            "memory",
            f"{what}, and {size(free)} are free: Ray ends replicas when memory runs out",
            "give it more memory, fewer replicas, or `placement: inline`",
        )
    return ok("memory", f"{what} of {size(free)} free")


def _disk(volume: Volume) -> Check:
    move = "make room there, or set RAY_TMPDIR to a folder that has some"
    if not volume.writable:
        return fail("disk", f"Ray cannot write to {volume.path}", "set RAY_TMPDIR to a folder that it may write to")
    if volume.free_bytes < 100 * MIB:
        return fail("disk", f"{size(volume.free_bytes)} are free in {volume.path}", move)
    if volume.free_bytes < GIB or volume.free_bytes < (1 - NEARLY_FULL) * volume.total_bytes:
        used = 1 - volume.free_bytes / volume.total_bytes
        return warn("disk", f"{size(volume.free_bytes)} are free in {volume.path}; it is {used:.0%} full", move)
    if volume.free_inodes is not None and volume.free_inodes < MIN_INODES:
        return warn("disk", f"{volume.path} has room for {volume.free_inodes} more files (inodes)", move)
    return ok("disk", f"{size(volume.free_bytes)} are free in {volume.path}")


def _sockets(volume: Volume) -> Check:
    length = len(volume.path.rstrip("/").encode()) + SESSION_PATH
    if length > MAX_SOCKET_PATH:
        return fail(
            "sockets",
            f"{volume.path} is {length - MAX_SOCKET_PATH} bytes too long for the sockets that Ray makes in it",
            "set RAY_TMPDIR to a shorter path",
        )
    return ok("sockets", f"{volume.path} is short enough for Ray's sockets")


def _shared_memory(volume: Volume, memory_bytes: int | None) -> Check:
    wanted = min(OBJECT_STORE_SHARE * (memory_bytes or 0), max(OBJECT_STORE_CAP, NEARLY_FULL * volume.free_bytes))
    if wanted > volume.free_bytes:
        return warn(
            "shared_memory",
            f"{volume.path} has {size(volume.free_bytes)} free, Ray takes {size(wanted)}: its objects go to the disk",
            "docker run --shm-size=2g; on Kubernetes an emptyDir with `medium: Memory` on /dev/shm",
        )
    return ok("shared_memory", f"{size(volume.free_bytes)} are free in {volume.path}")


def _open_files(limit: int) -> Check:
    if limit < MIN_OPEN_FILES:
        return warn("open_files", f"a process may have {limit} files open; connections will fail", "ulimit -n 8192")
    return ok("open_files", f"a process may have {limit} files open")
