"""Whether a port can be listened on."""

from __future__ import annotations

import errno
import socket

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
"""Where Serve listens when nobody says."""


def port_problem(host: str, port: int) -> str | None:
    """Why nobody can listen there now, as a sentence; None when it is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                return f"port {port} on {host} is in use: stop what listens there, or choose another"
            return f"cannot listen on {host}, port {port}: {exc.strerror}; choose another host or port"
    return None
