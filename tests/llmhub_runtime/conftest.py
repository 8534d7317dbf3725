"""One scripted provider for the whole folder; after every test nothing may be left open on it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from support.scripted_provider import ScriptedProvider, running_provider, wait_until


@pytest.fixture(scope="session")
def _server() -> Iterator[ScriptedProvider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(_server: ScriptedProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedProvider]:
    """The server, with an empty script. Checks that the test closed its clients and threads."""
    monkeypatch.setenv("TEST_MODEL_KEY", "sk-test-key")
    _server.reset()
    yield _server
    wait_until(lambda: _server.open_connections == 0)
    assert "llmhub-sync" not in {thread.name for thread in threading.enumerate()}
