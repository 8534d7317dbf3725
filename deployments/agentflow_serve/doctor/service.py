"""Whether what a serve config says can work: its flows, their models, keys, addresses, store and port."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agentflow_serve.auth.exposure import exposure_problem, is_loopback
from agentflow_serve.doctor.checks import Check, fail, ok, warn
from agentflow_serve.doctor.facts import App, Config, Lookup, Port, Provider, Store
from agentflow_serve.doctor.surroundings import PROXIES

NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs"})
NETWORK |= {f"fuse.{name}" for name in ("sshfs", "glusterfs", "ceph-fuse", "s3fs", "gcsfuse", "rclone", "juicefs")}
"""File systems on which SQLite's write-ahead log, which is shared memory, does not hold what it promises."""


def check_port(port: Port, *, asked: bool) -> Check:
    """`asked`: a config names the port; else it is the default, and another can be chosen."""
    if port.problem is None:
        return ok("port", f"port {port.port} on {port.host} is free")
    hint = "stop what listens there, or change http_options in the config"
    return fail("port", port.problem, hint) if asked else warn("port", port.problem, "agentflow serve --port")


def check_service(config: Config, environ: Mapping[str, str]) -> Iterator[Check]:
    for app in config.apps:
        name = f"app.{app.name}"
        if not app.ours:
            yield ok(name, f"'{app.name}' is no app of agentflow-serve; it was not looked at")
        elif app.problem is not None:
            yield fail(name, f"'{app.name}': {app.problem}", "correct it; `agentflow validate` shows all findings")
        else:
            yield from _app(name, app, config.lookups, environ)
            yield _callers(f"{name}.auth", app, config.port.host)


def _app(name: str, app: App, lookups: Mapping[str, Lookup], environ: Mapping[str, str]) -> Iterator[Check]:
    roles = f", its roles resolve: {', '.join(app.roles)}" if app.roles else ""
    yield ok(name, f"'{app.name}': the flow is valid, {app.nodes} nodes{roles}")
    if app.modules:
        yield ok(f"{name}.code", f"'{app.name}' runs installed code, which was not imported: {', '.join(app.modules)}")
    for provider in app.providers:
        if provider.key is not None:
            yield _key(name, provider, provider.key, environ)
        if provider.host is not None:
            yield _host(name, provider, provider.host, lookups.get(provider.host), environ)
    if app.store is not None:
        yield _store(f"{name}.store", app.store)
        if app.store.sees_all:
            yield warn(
                f"{name}.store.role",
                f"the store's role is a superuser or has BYPASSRLS, so {app.store.server} cannot keep tenants apart",
                "use an ordinary role; it may own the tables (docs/threats.md)",
            )


def _callers(name: str, app: App, host: str) -> Check:
    """Whether it is meant who may call."""
    if app.asks_for_keys:
        return ok(name, f"'{app.name}' asks for API keys; `agentflow keys` makes them")
    if problem := exposure_problem(host, auth="none", open_to_network=app.open_to_network):
        return fail(name, f"'{app.name}': {problem}", "agentflow keys new makes a key in the store of the config")
    if is_loopback(host):
        return ok(name, f"'{app.name}' asks nobody for a key, and listens on this machine only")
    return warn(
        name, f"'{app.name}' asks nobody for a key on {host}, as its config says", "put something in front that does"
    )


def _key(name: str, provider: Provider, variable: str, environ: Mapping[str, str]) -> Check:
    name = f"{name}.key.{provider.name}"
    if environ.get(variable, "").strip():
        return ok(name, f"{variable} is set (provider {provider.name}); nobody was called with it")
    return fail(
        name,
        f"{variable} is not set (provider {provider.name})",
        f"export {variable} where the replicas start; on Kubernetes from a Secret",
    )


def _host(name: str, provider: Provider, host: str, lookup: Lookup | None, environ: Mapping[str, str]) -> Check:
    name = f"{name}.host.{provider.name}"
    if lookup is None or lookup == "found":
        how = "needs no lookup" if lookup is None else "is known"
        return ok(name, f"{host} {how} (provider {provider.name}); it was not called")
    through_proxy = any(environ.get(each) for variable in PROXIES for each in (variable, variable.upper()))
    message = f"{host} (provider {provider.name}): " + (
        "no such name" if lookup == "unknown" else "the name servers did not answer in time"
    )
    if lookup == "unknown" and not through_proxy:
        return fail(
            name, message, f"correct providers.{provider.name}.api_base in the llmhub.yaml, or the name servers"
        )
    return warn(name, message, "the HTTP proxy may know it" if through_proxy else "look at the name servers")


def _store(name: str, store: Store) -> Check:
    if store.problem is not None:
        return fail(name, store.problem, "correct `store:` under args")
    if store.server is not None:
        return _server(name, store.server, store)
    if store.path is None:
        return warn(name, f"the store {store.url} ends with its process", "use sqlite:///FILE to keep it")
    if not store.folder_exists:
        return fail(name, f"the folder of the store {store.path} does not exist", "make it: mkdir -p")
    if not store.writable:
        return fail(name, f"the store {store.path} cannot be written", "give the user of the replicas the right to")
    if not store.is_sqlite:
        return fail(name, f"the store {store.path} is there and no SQLite file", "choose another file")
    if store.filesystem in NETWORK:
        return fail(
            name,
            f"the store {store.path} is on a network file system ({store.filesystem}), where SQLite loses data",
            "put it on a disk of this machine",
        )
    return ok(name, f"the store {store.path} can be written")


def _server(name: str, server: str, store: Store) -> Check:
    if store.refusal is not None:
        return fail(name, store.refusal, "start the server, or correct `store:` under args")
    if store.shows_password:
        return warn(
            name,
            f"the store {server} answers, but its password stands in the config, which Ray shows",
            "leave it out and set PGPASSWORD where the replicas start; on Kubernetes from a Secret",
        )
    return ok(name, f"the store {server} answers")
