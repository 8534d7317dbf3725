"""A simulated model per test, and clients that close themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import openai
import pytest

from llmhub_runtime.sim import SimServer


@pytest.fixture
async def sim() -> AsyncIterator[SimServer]:
    async with SimServer() as server:
        yield server
    assert asyncio.all_tasks() == {asyncio.current_task()}, "the server left tasks behind"


@pytest.fixture
async def client(sim: SimServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="any", base_url=sim.openai_base, max_retries=0, timeout=20) as found:
        yield found


@pytest.fixture
async def http(sim: SimServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sim.base_url, timeout=20, trust_env=False) as found:
        yield found
