"""RELIABILITY S10: no flow and no request sends this server to an address that it may not call."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpcore
import pytest
from pydantic import ValidationError

from agentflow.ir import ModelRef, OperationSpec
from flow_runtime.errors import EgressRefused, ModelFailed, OperationFailed, OperationTimeout
from flow_runtime.hub_models import HubModels
from flow_runtime.operations import OperationCall, OperationResources, OperationSettings, bind_operation
from flow_runtime.operations.egress import Egress, is_public
from flow_runtime.operations.http_client import HttpClient
from flow_runtime.operations.http_request import build_request
from llmhub_runtime import LLMHub, parse_runtime_config
from support.certificates import server_context
from support.cost import cheaply
from support.flows import ScriptedModels, run_flow, small_flow
from support.http_calls import always, ask, fetch
from support.http_stub import Request, answer, http_stub, saying
from support.waiting import until

NO_ROLES = parse_runtime_config({"project": "t", "env": "t", "providers": {"openai": {}}, "roles": {}})

PUBLIC = "93.184.216.34"
SECRET = "canary-4711"


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_an_address_of_the_open_internet_is_public(address: str):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "not an address",
    ],
)
def test_a_private_reserved_or_disguised_address_is_not_public(address: str):
    assert not is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "127.0.0.1.",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020.0.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "017700000001",
        "0",
        "localhost",
        "localhost.",
        "LOCALHOST",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_spelling_of_the_own_machine_is_called(scheme: str, host: str):
    async with http_stub(saying(answer())) as stub:
        with pytest.raises(OperationFailed) as caught:
            await fetch({"url": f"{scheme}://{host}:{stub.port}/"})
        assert stub.connections == 0
    refused = isinstance(caught.value, EgressRefused)
    assert refused or "cannot be resolved" in str(caught.value) or "can be called" in str(caught.value)
    assert not refused or "allow_hosts" in str(caught.value)


async def test_plain_http_is_refused_before_anything_is_resolved():
    async def resolve(host: str, port: int) -> tuple[str, ...]:
        raise AssertionError("resolved")

    with pytest.raises(EgressRefused, match=r"add example\.com:80 to allow_hosts") as caught:
        await fetch({"url": "http://example.com/"}, resolve=resolve)
    assert (caught.value.host, caught.value.port, caught.value.op) == ("example.com", 80, "http.get")


@pytest.mark.parametrize("url", ["ftp://example.com/x", "file:///etc/passwd", "gopher://example.com/"])
async def test_other_schemes_are_refused(url: str):
    with pytest.raises(OperationFailed):
        await fetch({"url": url}, allow_hosts=("example.com",))


async def test_one_private_address_among_public_ones_is_enough_to_refuse():
    with pytest.raises(EgressRefused, match="not public"):
        await fetch({"url": "https://mixed.test/"}, resolve=always(PUBLIC, "10.0.0.1"))


async def test_allow_hosts_means_that_host_on_that_port():
    async with http_stub(saying(answer(b"hello"))) as stub:
        url = f"http://internal.test:{stub.port}/"
        near = always("127.0.0.1")
        assert await fetch({"url": url}, resolve=near, allow_hosts=(f"INTERNAL.test.:{stub.port}",)) == "hello"
        assert stub.requests[0].headers["host"] == f"internal.test:{stub.port}"
        for entry in (
            "internal.test",
            "internal.test:1",
            f"other.test:{stub.port}",
            f"127.0.0.1:{stub.port}",
        ):
            with pytest.raises(EgressRefused):
                await fetch({"url": url}, resolve=near, allow_hosts=(entry,))


async def test_a_host_without_a_port_stands_for_the_default_ports():
    egress = Egress(("internal.test", "[::1]:8080"), always("10.0.0.1"))
    assert egress.is_named("internal.test", 80)
    assert egress.is_named("Internal.Test.", 443)
    assert not egress.is_named("internal.test", 8080)
    assert egress.is_named("[0:0::1]", 8080)


@pytest.mark.parametrize("entry", ["", "http://a.test", "a.test/x", "a.test:0", "a.test:65536", "*", "a b", "::1"])
def test_an_entry_of_allow_hosts_is_checked_when_it_is_read(entry: str):
    with pytest.raises(ValidationError, match="host"):
        OperationSettings(allow_hosts=(entry,))


class RecordingNetwork(httpcore.AsyncNetworkBackend):
    """Answers every connection with an empty page, and keeps which addresses were asked for."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.addresses.append(host)
        return httpcore.AsyncMockStream([b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"])


async def test_a_name_that_changes_its_address_is_resolved_once_and_connected_to_what_was_checked():
    answers = itertools.cycle([(PUBLIC,), ("127.0.0.1",)])

    async def rebinding(host: str, port: int) -> tuple[str, ...]:
        return next(answers)

    network = RecordingNetwork()
    client = HttpClient(OperationSettings(), Egress((), rebinding), network=network)
    request = build_request("GET", {"url": "https://rebind.test/"}, largest_body=0)
    try:
        assert (await client.send(request)).status == 204
        with pytest.raises(EgressRefused):
            await client.send(request)
        assert (await client.send(request)).status == 204
    finally:
        await client.aclose()
    assert network.addresses == [PUBLIC, PUBLIC]


async def test_the_next_address_is_tried_when_one_does_not_answer():
    async with http_stub(saying(answer(b"ok"))) as stub:
        host = f"internal.test:{stub.port}"
        addresses = always("127.0.0.2", "127.0.0.1")
        assert await fetch({"url": f"http://{host}/"}, resolve=addresses, allow_hosts=(host,)) == "ok"


async def test_tls_checks_the_name_and_not_the_pinned_address(tmp_path: Path):
    tls, authority = server_context(tmp_path, "internal.test")
    asked_for: list[str] = []

    def note_name(connection: ssl.SSLObject, name: str, context: ssl.SSLContext) -> None:
        asked_for.append(name)

    tls.sni_callback = note_name
    near = always("127.0.0.1")
    async with http_stub(saying(answer(b"safe")), tls=tls) as stub:
        settings = {"allow_hosts": (f"internal.test:{stub.port}", f"other.test:{stub.port}"), "resolve": near}
        url = f"https://internal.test:{stub.port}/"
        assert await fetch({"url": url}, http_ca_file=authority, **settings) == "safe"
        assert asked_for == ["internal.test"]
        with pytest.raises(OperationFailed, match=r"(?i)hostname mismatch"):
            await fetch({"url": f"https://other.test:{stub.port}/"}, http_ca_file=authority, **settings)
        with pytest.raises(OperationFailed, match=r"(?i)certificate"):
            await fetch({"url": url}, **settings)
        assert len(stub.requests) == 1


async def test_a_missing_ca_file_is_named(tmp_path: Path):
    with pytest.raises(OperationFailed, match=r"http_ca_file.*absent\.pem"):
        await fetch({"url": "https://example.com/"}, http_ca_file=tmp_path / "absent.pem")


async def test_a_redirect_is_not_followed():
    async with http_stub(saying(answer(b"secret"))) as other:
        location = f"http://127.0.0.1:{other.port}/"
        async with http_stub(saying(answer(status="302 Found", Location=location))) as stub:
            with pytest.raises(OperationFailed, match="302; redirects are not followed") as caught:
                await ask(stub)
        assert other.connections == 0
    assert caught.value.status == 302


async def test_a_server_that_drips_bytes_is_left_at_the_timeout():
    async def drip(request: Request, writer: asyncio.StreamWriter) -> None:
        for byte in itertools.cycle(b"HTTP/1.1 200 OK\r\nX-Header: "):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.01)

    async with http_stub(drip) as stub:
        with pytest.raises(OperationTimeout, match=r"within 0\.2 s") as caught:
            await ask(stub, args={"timeout_ms": 200})
        await until(lambda: stub.hung_up, within_s=30, what="the end of the connection")
    assert (caught.value.op, caught.value.timeout_s) == ("http.get", 0.2)


async def test_the_tightest_of_the_time_limits_counts():
    async def never(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with http_stub(never) as stub:
        for limits in (
            {"http_timeout_s": 0.1},
            {"deadline_s": 0.1},
            {"args": {"timeout_ms": 100}, "deadline_s": 30.0},
            {"args": {"timeout_ms": 100.0}, "http_timeout_s": 30.0},
        ):
            with pytest.raises(OperationTimeout, match=r"0\.1 s"):
                await ask(stub, **limits)


async def test_a_slow_resolver_is_bounded_too():
    async def never(host: str, port: int) -> tuple[str, ...]:
        await asyncio.sleep(60)
        return ()

    with pytest.raises(OperationFailed, match=r"did not accept a connection within 0\.1 s"):
        await fetch({"url": "https://slow.test/"}, resolve=never, http_connect_timeout_s=0.1)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "one\r\nX-B: two"},
        {"X-A": "one\nX-B: two"},
        {"X-A": "null\0"},
        {"X-A": "\u2028"},
        {"X-A\r\nX-B": "two"},
        {"X A": "one"},
        {"": "one"},
        {"X:A": "one"},
        {"X-A": None},
        {"X-A": True},
        {"X-A": ["one"]},
        {"Host": "internal"},
        {"content-length": "3"},
        {"Transfer-Encoding": "chunked"},
        {"Connection": "upgrade"},
        {"Upgrade": "h2c"},
        {"Proxy-Authorization": "x"},
        {"Accept-Encoding": "gzip"},
        ["X-A"],
        "X-A: one",
    ],
)
async def test_headers_that_could_change_the_request_are_refused(headers: Any):
    async with http_stub(saying(answer())) as stub:
        with pytest.raises(OperationFailed, match="header"):
            await ask(stub, args={"headers": headers})
        assert stub.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "https://user:password@example.com/",
        "https://user@example.com/",
        "https://example.com@evil.test/",
        "https://example.com\\@evil.test/",
        "https://example.com/a\r\nX: y",
        "https://example.com/\0",
        "https://example.com/users/../admin",
        "https://example.com/users/%2e%2E/admin",
        "https://example.com/./x",
        "//example.com/x",
        "/x",
        "example.com",
        "https://",
        "https:///x",
        "https://example.com:99999/",
        "https://example.com:0/",
        "https://example.com:port/",
        " https://example.com/",
        "https://exa mple.com/",
        "https://[::1/",
        "",
        7,
        None,
    ],
)
async def test_a_url_that_is_not_plainly_one_is_refused(url: Any):
    async def resolve(host: str, port: int) -> tuple[str, ...]:
        raise AssertionError(f"resolved {host}")

    with pytest.raises(OperationFailed):
        await fetch({"url": url}, resolve=resolve, allow_hosts=("example.com", "evil.test"))


@pytest.mark.parametrize("host", ["xn--", "xn--0.test", "xn--t$.test", "xn--" + "a" * 80 + ".test"])
async def test_a_host_that_is_no_name_cannot_be_called(host: str):
    with pytest.raises(OperationFailed):
        await fetch({"url": f"https://{host}/"})


@pytest.mark.parametrize(
    "respond",
    [
        saying(answer(SECRET.encode(), status="500 Oops")),
        saying(answer(status="302 Found", Location="https://elsewhere.test/canary-4711")),
        saying(b"canary-4711 is no HTTP\r\n\r\n"),
        saying(answer(b"{canary-4711", Content_Type="application/json")),
        saying(answer(b"x" * 2000)),
    ],
)
async def test_no_message_shows_a_secret_of_the_request_or_the_answer(respond: Any):
    async with http_stub(respond) as stub:
        with pytest.raises(OperationFailed) as caught:
            await ask(
                stub,
                path=f"/{SECRET}?key={SECRET}",
                args={"headers": {"Authorization": f"Bearer {SECRET}"}, "body": SECRET},
                http_max_response_bytes=1000,
            )
    assert SECRET not in str(caught.value)
    assert f"http://127.0.0.1:{stub.port}" in str(caught.value)
    for headers in ({"Authorization": f"{SECRET}\n"}, {"Authorization": [SECRET]}):
        with pytest.raises(OperationFailed) as refused:
            await fetch({"url": "https://example.com/", "headers": headers})
        assert SECRET not in str(refused.value)


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch):
    async with http_stub(saying(answer(b"proxied"))) as proxy, http_stub(saying(answer(b"direct"))) as stub:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{proxy.port}")
        assert await ask(stub) == "direct"
        assert proxy.connections == 0


async def test_cookies_are_not_kept_between_calls():
    async with http_stub(saying(answer(b"ok", Set_Cookie="session=of-another-tenant; Path=/"))) as stub:
        spec = OperationSpec(op="http.get", args={"url": f"http://127.0.0.1:{stub.port}/"})
        resources = OperationResources()
        settings = OperationSettings(allow_hosts=(f"127.0.0.1:{stub.port}",))
        bound = bind_operation(spec, names={"context"}, settings=settings, resources=resources)
        for _ in range(2):
            await bound.run({"context": {}}, OperationCall("n", {}))
        await resources.aclose()
        assert stub.connections == 1
        assert all("cookie" not in request.headers for request in stub.requests)


INTERNAL = [
    "127.0.0.1",
    "10.0.0.1",
    "169.254.169.254",
    "192.168.1.1",
    "100.100.100.200",
    "::1",
    "::ffff:169.254.169.254",
    "fd00:ec2::254",
    "64:ff9b::a9fe:a9fe",
]


@pytest.mark.parametrize("address", INTERNAL)
async def test_a_public_name_for_an_internal_address_is_not_called(address: str):
    """As 127.0.0.1.nip.io would answer; the resolver is asked once and its answer refused."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> tuple[str, ...]:
        asked.append(host)
        return (address,)

    with pytest.raises(EgressRefused, match="not public"):
        await cheaply_refused({"url": "https://metadata.nip.test/latest"}, resolve=resolve)
    assert set(asked) == {"metadata.nip.test"}


async def cheaply_refused(args: dict[str, Any], **settings: Any) -> None:
    """The first call reads the certificate authorities, which is not the price of a refusal."""

    async def call() -> None:
        with pytest.raises(OperationFailed) as caught:
            await fetch(args, **settings)
        refusals.append(caught.value)

    refusals: list[OperationFailed] = []
    await cheaply(call)
    raise refusals[-1]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "cat.png",
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://example.com/cat.png",
        "gopher://127.0.0.1/x",
        "javascript:alert(1)",
        "data:text/html;base64,aGk=",
        "data:image/png,raw",
        "data:image/png;base64,not base64",
        "https://user:password@example.com/cat.png",
        "https://example.com\\@internal/cat.png",
        "https://example.com/a b",
        "https://example.com/a\r\nHost: internal",
        "https://example.com/\u202ecat",
        "https://",
        "https://example.com/" + "x" * 9000,
    ],
)
async def test_an_image_that_is_no_plain_url_never_reaches_the_model(value: str):
    flow = small_flow(
        """
        look:
          inputs: [{name: photo, type: string}]
          outputs: [{name: answer, type: string}]
          prompt: {template: look, role: main, images: ['${photo}']}
        """,
        ["_input.photo -> look.photo", "look.answer -> _output"],
        requires=["photo"],
    )
    models = ScriptedModels({"main": ["a cat"]})
    report = await cheaply(lambda: run_flow(flow, {"photo": value}, models=models))
    assert report.error is not None and report.error.code == "node_failed"
    assert "the image ${photo} is not a URL that may go to a model" in report.error.message
    assert models.calls == []


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:{port}/v1",
        "http://2130706433:{port}/v1",
        "http://0x7f.1:{port}/v1",
        "http://localhost:{port}/v1",
        "http://[::ffff:127.0.0.1]:{port}/v1",
        "http://allowed.test@127.0.0.1:{port}/v1",
        "http://169.254.169.254/latest",
        "https://evil.test/v1",
        "file:///etc/passwd",
        "http://allowed.test\\@127.0.0.1:{port}/",
    ],
)
async def test_a_flows_own_model_is_not_called_at_an_address_that_the_server_does_not_name(endpoint: str):
    async with http_stub(saying(answer(b"{}"))) as stub, LLMHub(config_obj=NO_ROLES) as hub:
        models = HubModels(hub, allow_hosts=["allowed.test"])
        model = ModelRef(provider="openai", name="m", endpoint=endpoint.format(port=stub.port))
        with pytest.raises(ModelFailed) as raised:
            await models.chat(model, [{"role": "user", "content": "hi"}], {})
        assert stub.connections == 0
    assert "Traceback" not in str(raised.value)
