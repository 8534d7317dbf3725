"""Host names in one form, and the entries of `allow_hosts`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

DEFAULT_PORTS = frozenset({80, 443})

_ENTRY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")


def normal_host(host: str) -> str:
    """One spelling for each host: lower case, no final dot, addresses in short form without brackets."""
    host = host.lower().removesuffix(".")
    try:
        return ipaddress.ip_address(host.strip("[]")).compressed
    except ValueError:
        return host


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """One entry of `allow_hosts`; without a port it stands for the ports 80 and 443."""

    host: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> AllowedHost:
        """Raises ValueError for anything but `host`, `host:port`, `[ipv6]` or `[ipv6]:port`."""
        match = _ENTRY.fullmatch(text)
        port = int(match["port"]) if match and match["port"] else None
        if match is None or (port is not None and not 0 < port < 65_536):
            raise ValueError(f"'{text}' is not a host or host:port, such as api.example.com or localhost:8080")
        return cls(normal_host(match["host"]), port)

    def names(self, host: str, port: int) -> bool:
        """Whether this entry stands for that host (in its normal form) and port."""
        return self.host == host and (port in DEFAULT_PORTS if self.port is None else port == self.port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"
