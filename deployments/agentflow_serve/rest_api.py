"""The Serve REST API of a Ray cluster, by which KubeRay deploys too."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from agentflow_serve.errors import DeployFailed, public_sentence
from agentflow_serve.topology import Topology, deployed_topology, differences

APPLICATIONS = "/api/serve/applications/"
POLL_S = 0.5
FAILED = ("DEPLOY_FAILED", "UNHEALTHY")


class ServeApi:
    """A cluster at `address`, such as http://head:8265. The token goes into a header and nowhere else."""

    def __init__(self, address: str, token: str | None, *, timeout_s: float = 60.0) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        base = address if "://" in address else f"http://{address}"
        self._client = httpx.Client(base_url=base, headers=headers, timeout=timeout_s, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def applications(self) -> dict[str, dict[str, Any]]:
        """What the cluster says of each application. Raises DeployFailed."""
        return self._ask("GET").json().get("applications") or {}

    def deploy(self, config: Mapping[str, Any]) -> None:
        """Make the cluster serve exactly this config; it returns when it is accepted. Raises DeployFailed."""
        self._ask("PUT", json=dict(config))

    def _ask(self, method: str, **body: Any) -> httpx.Response:
        where = str(self._client.base_url)
        try:
            response = self._client.request(method, APPLICATIONS, **body)
        except httpx.HTTPError as exc:
            raise DeployFailed(f"no Serve REST API answers at {where}: {exc or type(exc).__name__}") from exc
        if response.status_code in (401, 403):
            raise DeployFailed(
                f"{where} wants a token ({response.status_code}): "
                "set RAY_AUTH_TOKEN, or name its file with --token-file"
            )
        if response.is_error:
            raise DeployFailed(f"{where} refused it ({response.status_code}): {_last_line(response.text)}")
        return response


def wait_until_running(
    api: ServeApi,
    names: list[str],
    *,
    timeout_s: float,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Poll until these applications run. Raises DeployFailed.

    `say` hears how far it is, once for each change.
    """
    give_up, shown = time.monotonic() + timeout_s, ""
    while True:
        found = api.applications()
        for name in names:
            if (app := found.get(name, {})).get("status") in FAILED:
                raise DeployFailed(f"'{name}' did not start: {reason(app)}")
        if all(found.get(name, {}).get("status") == "RUNNING" for name in names):
            return
        deployments = [each for name in names for each in (found.get(name, {}).get("deployments") or {}).values()]
        healthy = sum(each.get("status") == "HEALTHY" for each in deployments)
        text = f"{healthy} of {len(deployments)} deployments ready" if deployments else "building the app ..."
        if text != shown:
            say(text)
            shown = text
        if time.monotonic() > give_up:
            raise DeployFailed(f"not ready after {timeout_s:g} s: {text}")
        sleep(POLL_S)


def wait_for_topology(
    api: ServeApi, name: str, expected: Topology, *, timeout_s: float, sleep: Callable[[float], None] = time.sleep
) -> tuple[str, ...]:
    """Poll until the deployed graph is the expected one; what is still different when the time is over."""
    give_up = time.monotonic() + timeout_s
    while (wrong := differences(expected, deployed_topology(api.applications().get(name, {})))) and (
        time.monotonic() < give_up
    ):
        sleep(POLL_S)
    return wrong


def reason(app: Mapping[str, Any]) -> str:
    """The last line of what the application, or the first failed deployment of it, has to say."""
    deployments = (app.get("deployments") or {}).values()
    said = [
        str(app.get("message") or ""),
        *(str(each.get("message") or "") for each in deployments if each.get("status") in FAILED),
    ]
    return _last_line("\n".join(said))


def _last_line(text: str) -> str:
    """What an error says at its end, where Python prints its message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return public_sentence(lines[-1]) if lines else "no reason given; look at the cluster's logs"


def read_token(environ: Mapping[str, str], file: Path | None) -> str | None:
    """The token as Ray itself finds it; `file` comes first. Raises DeployFailed for a file that cannot be read."""
    if file is None and environ.get("RAY_AUTH_TOKEN"):
        return environ["RAY_AUTH_TOKEN"].strip()
    named = file or (Path(environ["RAY_AUTH_TOKEN_PATH"]) if environ.get("RAY_AUTH_TOKEN_PATH") else None)
    path = named or Path(environ.get("HOME", "/")) / ".ray" / "auth_token"
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError as exc:
        if named is None:
            return None
        raise DeployFailed(f"the token cannot be read from {path}: {exc.strerror}") from exc
