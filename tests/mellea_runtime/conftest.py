"""mellea logs to the terminal at level INFO; a test that means to see it asks for it."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELLEA_LOGS_LEVEL", "ERROR")
