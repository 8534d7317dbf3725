"""Ports for servers of the tests."""

from __future__ import annotations

import socket
from random import SystemRandom

FROM, TO = 20_000, 32_768
"""Ray's workers take the ports before; those after are what a connection gets that asks for none."""


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago, and that no other process is given by the system."""
    while True:
        port = SystemRandom().randrange(FROM, TO)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
