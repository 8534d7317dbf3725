"""A small client for the /sim endpoints of a running simulated model."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from llmhub_runtime.sim.errors import SimControlError
from llmhub_runtime.sim.log import LogEntry
from llmhub_runtime.sim.script import Script, parse_script

if TYPE_CHECKING:
    import httpx


class SimControl:
    """Synchronous. Every method raises SimControlError when the server refuses or cannot be reached.

    A server in the same event loop cannot answer a blocking client: use SimServer's own methods there.
    """

    def __init__(self, base_url: str, *, timeout_s: float = 10.0) -> None:
        import httpx

        # Nothing of the environment's proxy settings: the server is near. To read the world's certificates is most of
        # what a client costs to make, and plain HTTP needs none.
        tls = base_url.startswith("https:")
        self._client = httpx.Client(base_url=base_url, timeout=timeout_s, trust_env=False, verify=tls)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def health(self) -> dict[str, Any]:
        return self._call("GET", "/sim/health").json()

    def set_script(self, script: Script | dict[str, Any]) -> None:
        """Use another script; its counters start at zero. Raises SimScriptError for a bad document."""
        self._call("PUT", "/sim/script", parse_script(script).model_dump(mode="json"))

    def applied(self) -> tuple[int, ...]:
        """How often each rule of the script has decided a request."""
        return tuple(self._call("GET", "/sim/script").json()["applied"])

    def reset(self) -> None:
        """Back to the default answers and an empty log."""
        self._call("DELETE", "/sim/script")
        self._call("DELETE", "/sim/log")

    def log(self, *, since: int = 0) -> list[LogEntry]:
        """Entries with a `seq` above `since`, oldest first."""
        entries = self._call("GET", f"/sim/log?since={since}").json()
        return [LogEntry.model_validate(entry) for entry in entries]

    def _call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        import httpx

        try:
            response = self._client.request(method, path, json=body)
        except httpx.HTTPError as exc:
            raise SimControlError(f"Cannot reach the simulated model at {self._client.base_url}: {exc}.") from exc
        if response.is_success:
            return response
        raise SimControlError(
            f"The simulated model refused {method} {path}: {response.text}", status=response.status_code
        )
