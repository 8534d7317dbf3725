"""Shared by every test: Hypothesis profiles, and the servers that the first test to ask starts."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from support import postgres, redis

pytest.register_assert_rewrite("agent_runtime.testing")

settings.register_profile(
    "ci", deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("ci"), max_examples=2000, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.PostgresServer]:
    """Shared: a test that stops it starts one of its own."""
    with postgres.postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[redis.RedisServer]:
    """Shared: a test that stops or empties it starts one of its own."""
    with redis.redis_server() as server:
        yield server
