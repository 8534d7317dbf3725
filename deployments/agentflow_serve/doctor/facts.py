"""What is known of this machine and of a serve config: a snapshot, so that judging it is pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Lookup = Literal["found", "unknown", "no answer"]


@dataclass(frozen=True, slots=True)
class Library:
    """One requirement. `installed` is its version, None where it is missing; `extra` is the extra that asks for it."""

    name: str
    asked: str
    installed: str | None
    extra: str | None = None


@dataclass(frozen=True, slots=True)
class Volume:
    """A file system, seen from `path`. `free_inodes` is None where it does not count them."""

    path: str
    free_bytes: int
    total_bytes: int
    free_inodes: int | None = None
    writable: bool = True


@dataclass(frozen=True, slots=True)
class Cluster:
    """The Ray cluster that `ray start` has recorded on this machine, and whether it answers."""

    address: str
    answers: bool
    file: str


@dataclass(frozen=True, slots=True)
class Machine:
    """`cpus` and `memory_bytes` (free) respect control groups; `memory_bytes` is None where nobody says.

    `environ` is every environment variable: it holds keys, so a check names variables and shows no value.
    `open_files` is the limit that Ray ends up with, which raises the soft one itself. `haproxy` says where HAProxy
    comes from, None when there is none.
    """

    python: str
    python_asked: str | None
    libraries: tuple[Library, ...]
    cpus: float
    gpus: int
    memory_bytes: int | None
    temp: Volume
    shared_memory: Volume | None
    open_files: int | None
    haproxy: str | None = None
    cluster: Cluster | None = None
    environ: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


@dataclass(frozen=True, slots=True)
class Demand:
    """What the replicas of an app ask for when it starts. `memory_bytes` is what they reserve."""

    replicas: int = 0
    cpus: float = 0.0
    gpus: float = 0.0
    memory_bytes: int = 0

    def __add__(self, other: Demand) -> Demand:
        return Demand(
            self.replicas + other.replicas,
            self.cpus + other.cpus,
            self.gpus + other.gpus,
            self.memory_bytes + other.memory_bytes,
        )


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider that a flow calls: the variable of its key, the host of its own address if it has one."""

    name: str
    key: str | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True)
class Store:
    """`problem` is what the address itself has wrong; the rest is about the SQLite file that it names.

    Or about the `server` that it names, its `refusal` to answer us, and whether we are a role that `sees_all` rows,
    whatever the tables' policies say.
    """

    url: str
    problem: str | None = None
    path: str | None = None
    folder_exists: bool = True
    writable: bool = True
    is_sqlite: bool = True
    filesystem: str | None = None
    server: str | None = None
    refusal: str | None = None
    shows_password: bool = False
    sees_all: bool = False


@dataclass(frozen=True, slots=True)
class App:
    """An application of a serve config. `problem` is why the rest is not known; `ours` is whether it is our app."""

    name: str
    ours: bool = True
    problem: str | None = None
    nodes: int = 0
    roles: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    demand: Demand = Demand()
    providers: tuple[Provider, ...] = ()
    store: Store | None = None
    asks_for_keys: bool = False
    open_to_network: bool = False


@dataclass(frozen=True, slots=True)
class Port:
    """Where the proxy will listen, and why it cannot."""

    host: str
    port: int
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """A serve config. `lookups` has every host name that is neither loopback nor a number."""

    apps: tuple[App, ...]
    port: Port
    lookups: Mapping[str, Lookup] = field(default_factory=dict[str, Lookup])
