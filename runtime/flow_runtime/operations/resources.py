"""What operations of a process share: clients with connections, made when first used."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

from flow_runtime.errors import OperationFailed
from runtime_core.clock import Clock, SystemClock
from runtime_core.ids import IdSource, RandomIds

if TYPE_CHECKING:
    from agent_runtime.actions.manager import ActionManager

Resolver = Callable[[str, int], Awaitable[tuple[str, ...]]]


class Closable(Protocol):
    async def aclose(self) -> None: ...


Client = TypeVar("Client", bound=Closable)


async def resolve_by_system(host: str, port: int) -> tuple[str, ...]:
    """The addresses of a host as the system's resolver gives them. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


class OperationResources:
    """The shared clients of one process, one set for each event loop. Whoever makes it closes it."""

    def __init__(
        self,
        *,
        resolve: Resolver = resolve_by_system,
        clock: Clock | None = None,
        ids: IdSource | None = None,
        actions: ActionManager | None = None,
    ) -> None:
        self.resolve = resolve
        self.clock: Clock = clock or SystemClock()
        self.ids: IdSource = ids or RandomIds()
        self._actions = actions
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, Any]] = WeakKeyDictionary()

    @property
    def actions(self) -> ActionManager:
        """What asks people. Raises OperationFailed where nobody could answer."""
        if self._actions is None:
            raise OperationFailed("nobody can be asked here: this process has no store of actions")
        return self._actions

    def shared(self, key: Hashable, make: Callable[[], Client]) -> Client:
        """The running loop's client of that key, made now if this is its first use."""
        clients = self._clients.setdefault(asyncio.get_running_loop(), {})
        if key not in clients:
            clients[key] = make()
        return clients[key]

    async def aclose(self) -> None:
        """Close the clients of the running loop; what is used afterwards is made anew."""
        for client in self._clients.pop(asyncio.get_running_loop(), {}).values():
            await client.aclose()
