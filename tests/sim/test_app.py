"""The application by itself: other ASGI servers, inner failures, errors that travel."""

from __future__ import annotations

import pickle
from pathlib import Path

import httpx
import pytest

from llmhub_runtime.sim import (
    SimBadRequest,
    SimControlError,
    SimError,
    SimScriptError,
    SimStartError,
    create_app,
    parse_script,
)

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def test_the_application_runs_in_any_asgi_server() -> None:
    app = create_app(clock=lambda: 1_700_000_000.0)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sim") as http:
        answer = (await http.post("/v1/chat/completions", json=BODY)).json()
        assert answer["created"] == 1_700_000_000
        assert (await http.post("/v1/chat/completions", json=BODY | {"stream": True})).text.endswith("[DONE]\n\n")


async def test_without_a_transport_a_reset_is_an_error_of_the_application() -> None:
    app = create_app(parse_script({"rules": [{"reply": {"fault": {"kind": "reset"}}}]}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sim") as http:
        with pytest.raises(ConnectionAbortedError):
            await http.post("/v1/chat/completions", json=BODY)
    assert app.log.entries()[0].outcome == "aborted"


async def test_the_lifespan_closes_the_log_file(tmp_path: Path) -> None:
    app = create_app(log_path=tmp_path / "log")
    incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> dict[str, str]:
        return incoming.pop(0)

    async def send(message: dict[str, str]) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_failure_of_our_own_is_a_500_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("llmhub_runtime.sim.exchange.complete", broken)
    app = create_app()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sim") as http:
        answer = await http.post("/v1/chat/completions", json=BODY)
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert app.log.entries()[0].decided == "internal_error"


@pytest.mark.parametrize(
    "error",
    [
        SimError("m"),
        SimBadRequest("m", status=413, param="p"),
        SimScriptError("m", source="s"),
        SimStartError("m", returncode=3),
        SimControlError("m", status=422),
    ],
)
def test_errors_survive_pickling(error: SimError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))
