"""One request, one answer: the connections of http operations.

This is httpx's transport layer, httpcore, used by itself: it has no cookies, redirects, proxies from the
environment or decompression that would have to be switched off, and lets us choose the address to connect to.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import httpcore
import httpx

from flow_runtime.errors import OperationFailed
from flow_runtime.operations.egress import Egress
from flow_runtime.operations.http_request import HttpRequest
from flow_runtime.operations.settings import OperationSettings

IDLE_CONNECTION_S = 5.0


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    status: int
    content_type: str
    body: bytes


class HttpClient:
    """The pooled connections of one event loop. Close it with `aclose`. `network` makes the connections."""

    def __init__(
        self,
        settings: OperationSettings,
        egress: Egress,
        *,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._settings = settings
        self._egress = egress
        self._network = _CheckedNetwork(egress, network or _by_anyio())
        self._pool: httpcore.AsyncConnectionPool | None = None
        self._opening = asyncio.Lock()

    async def send(self, request: HttpRequest) -> HttpAnswer:
        """Raises EgressRefused, or OperationFailed when no whole answer came. The caller bounds its time."""
        self._egress.admit_scheme(request.scheme, request.host, request.port)
        pool = self._pool or await self._open()
        url = httpcore.URL(
            scheme=request.scheme.encode("ascii"),
            host=request.host.encode("ascii"),
            port=request.port,
            target=request.target,
        )
        limits: dict[str, Any] = {"timeout": {"connect": self._settings.http_connect_timeout_s}}
        try:
            async with pool.stream(
                request.method,
                url,
                headers=list(request.headers),
                content=request.body if request.body or request.method == "POST" else None,
                extensions=limits,
            ) as response:
                return await self._read(request, response)
        except httpcore.ConnectTimeout as exc:
            limit = self._settings.http_connect_timeout_s
            raise OperationFailed(f"{request.origin} did not accept a connection within {limit:g} s") from exc
        except httpcore.ConnectError as exc:
            raise OperationFailed(f"no connection to {request.origin}: {exc}") from exc
        except (httpcore.NetworkError, httpcore.RemoteProtocolError, OSError) as exc:
            raise OperationFailed(f"{request.origin} broke off, or did not speak HTTP") from exc
        except httpcore.LocalProtocolError:
            # its text quotes headers
            raise OperationFailed(f"the request to {request.origin} is not valid HTTP") from None

    async def aclose(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()

    async def _read(self, request: HttpRequest, response: httpcore.Response) -> HttpAnswer:
        headers = {name.lower(): value for name, value in response.headers}
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (b"", b"identity"):
            raise OperationFailed(f"{request.origin} sent a compressed answer although none was asked for")
        limit = self._settings.http_max_response_bytes
        body = bytearray()
        async with aclosing(response.aiter_stream()) as chunks:  # pyright: ignore[reportArgumentType]
            async for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    raise OperationFailed(f"{request.origin} answered with more than {limit} bytes")
        content_type = headers.get(b"content-type", b"").decode("latin-1")
        return HttpAnswer(status=response.status, content_type=content_type, body=bytes(body))

    async def _open(self) -> httpcore.AsyncConnectionPool:
        async with self._opening:
            if self._pool is None:
                # reading the certificate authorities takes tens of milliseconds
                try:
                    context = await asyncio.to_thread(_tls, self._settings)
                except OSError as exc:
                    path = self._settings.http_ca_file
                    raise OperationFailed(f"the http_ca_file {path} cannot be used: {exc}") from exc
                self._pool = httpcore.AsyncConnectionPool(
                    ssl_context=context,
                    max_connections=self._settings.http_max_connections,
                    keepalive_expiry=IDLE_CONNECTION_S,
                    network_backend=self._network,
                )
            return self._pool


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to addresses that Egress has allowed; TLS still checks the name that was asked for."""

    def __init__(self, egress: Egress, network: httpcore.AsyncNetworkBackend) -> None:
        self._egress = egress
        self._network = network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                return await self._connect(host, port)
        except TimeoutError as exc:
            raise httpcore.ConnectTimeout from exc

    async def _connect(self, host: str, port: int) -> httpcore.AsyncNetworkStream:
        failure: httpcore.ConnectError | None = None
        for address in await self._egress.addresses(host, port):
            try:
                return await self._network.connect_tcp(address, port)
            except httpcore.ConnectError as exc:
                failure = exc
        raise failure or httpcore.ConnectError("no address")


def _by_anyio() -> httpcore.AsyncNetworkBackend:
    return cast(httpcore.AsyncNetworkBackend, httpcore.AnyIOBackend())


def _tls(settings: OperationSettings) -> ssl.SSLContext:
    context = httpx.create_ssl_context(trust_env=False)
    if settings.http_ca_file is not None:
        context.load_verify_locations(settings.http_ca_file)
    return context
