"""`auth: none` stays on loopback, unless a config says twice that it shall not."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Literal

from agentflow_serve.errors import AppInvalid

Auth = Literal["none", "keys"]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def exposure_problem(host: str, *, auth: Auth, open_to_network: bool) -> str | None:
    """Why an app may not listen on `host`, as a sentence; None where it may."""
    if auth != "none" or open_to_network or is_loopback(host):
        return None
    return (
        f"anybody who reaches {host} could call it: give it `auth: keys` under args, "
        "or say `open_to_network: true` beside `auth: none`"
    )


def check_exposure(apps: Mapping[str, Mapping[str, Any]], *, host: str) -> None:
    """Raises AppInvalid that names every app that is open to a network by mistake. `apps` are their args, by name."""
    for name, args in apps.items():
        auth, said = args.get("auth", "none"), bool(args.get("open_to_network", False))
        if problem := exposure_problem(host, auth=auth, open_to_network=said):
            raise AppInvalid(f"'{name}': {problem}")
