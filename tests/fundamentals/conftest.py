"""For the tests that call models: the simulated model on a port of its own, and a hub whose roles it serves.

It answers over real HTTP, without a key, and always the same to the same question. `sim.set_script` gives it
lines to say. What a hub is, test_11_models.py shows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from llmhub_runtime import LLMHub, parse_runtime_config
from llmhub_runtime.sim import SimServer


@pytest.fixture
async def sim() -> AsyncIterator[SimServer]:
    async with SimServer() as server:
        yield server


@pytest.fixture
async def hub(sim: SimServer) -> AsyncIterator[LLMHub]:
    config = parse_runtime_config(
        {
            "project": "tutorial",
            "env": "test",
            "providers": {"sim": {"api_base": sim.openai_base}},
            "roles": {
                "writer": {"provider": "sim", "model": "big", "mode": "chat"},
                "spare": {"provider": "sim", "model": "small", "mode": "chat"},
            },
        }
    )
    async with LLMHub(config_obj=config) as opened:
        yield opened
