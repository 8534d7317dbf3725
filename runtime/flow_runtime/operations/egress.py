"""Where a flow's requests may go: public addresses by https, and what the server's `allow_hosts` names.

A host is resolved once, every address is checked, and the connection goes to a checked address itself: no
second look-up could answer otherwise. That is done when a connection is made, so one that is reused has been
checked too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from flow_runtime.errors import EgressRefused, OperationFailed
from flow_runtime.operations.hosts import AllowedHost, normal_host
from flow_runtime.operations.resources import Resolver

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""How a network without IPv4 reaches it; what counts is the address inside."""


class Egress:
    """The rules of one server."""

    def __init__(self, allow_hosts: Iterable[str], resolve: Resolver) -> None:
        self._allowed = tuple(AllowedHost.parse(text) for text in allow_hosts)
        self._resolve = resolve

    def is_named(self, host: str, port: int) -> bool:
        """Whether `allow_hosts` names this host and port."""
        host = normal_host(host)
        return any(entry.names(host, port) for entry in self._allowed)

    def admit_scheme(self, scheme: str, host: str, port: int) -> None:
        """Raises EgressRefused for anything but https, and http to a host that is named."""
        if scheme not in ("http", "https"):
            raise EgressRefused(f"a url starts with https:// or http://, not {scheme}://", host=host, port=port)
        if scheme == "http" and not self.is_named(host, port):
            raise _refused(f"plain http to {_shown(host, port)} is refused", host, port)

    async def addresses(self, host: str, port: int) -> tuple[str, ...]:
        """The addresses to connect to, all of them allowed. Raises EgressRefused, OperationFailed."""
        try:
            found = await self._resolve(host, port)
        except (OSError, UnicodeError) as exc:
            raise OperationFailed(f"the host {host} cannot be resolved") from exc
        if not found:
            raise OperationFailed(f"the host {host} has no address")
        if not self.is_named(host, port) and not all(is_public(address) for address in found):
            # one address among several is enough: a mixture is what an attack looks like
            raise _refused(f"{_shown(host, port)} has an address that is not public", host, port)
        return found


def is_public(text: str) -> bool:
    """Whether an address belongs to the open internet."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return _is_global(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if address.sixtofour is not None and not _is_global(address.sixtofour):
            return False
    return _is_global(address)


def _is_global(address: Address) -> bool:
    # reserved: among others all of ::/8, with the addresses that only wrap one of IPv4
    return address.is_global and not (
        address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or address.is_loopback
        or address.is_link_local
        or (isinstance(address, ipaddress.IPv6Address) and address.is_site_local)
    )


def _refused(reason: str, host: str, port: int) -> EgressRefused:
    entry = AllowedHost(normal_host(host), port)
    text = f"{reason}; if flows may call it, add {entry} to allow_hosts in the serve config"
    return EgressRefused(text, host=host, port=port)


def _shown(host: str, port: int) -> str:
    return str(AllowedHost(normal_host(host), port))
