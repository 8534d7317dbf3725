"""The store of API keys, on every database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentflow_serve.auth.keys import ApiKey, digest_of, key_text
from agentflow_serve.auth.store import ApiKeys
from runtime_core.errors import IdentityError, StoreConflictError, StoreError
from runtime_core.stores import open_database
from support.stores import fresh_store_url

FIRST = key_text(bytes(32))


def key(number: int, *, scope_id: str = "tenant-1", **more: object) -> ApiKey:
    known = {"key_id": f"key-{number}", "scope_id": scope_id, "principal_id": "ada", "created_at": float(number)}
    return ApiKey.model_validate(known | more)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def keys(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ApiKeys]:
    async with open_database(await fresh_store_url(request.param, request, tmp_path)) as database:
        found = ApiKeys(database)
        await found.prepare()
        await found.prepare()
        yield found


async def test_a_key_is_found_by_its_digest_and_listed_by_its_scope(keys: ApiKeys):
    full = key(1, name="Ada's laptop", flows=("desk", "ünïcode"), expires_at=9.5)
    await keys.add(full, digest=digest_of(FIRST))
    await keys.add(key(2, scope_id="tenant-2"), digest="b" * 64)
    await keys.add(key(3), digest="c" * 64)
    assert await keys.find(digest_of(FIRST)) == full
    assert await keys.find(FIRST) is None and await keys.find("") is None
    assert [each.key_id for each in await keys.list()] == ["key-3", "key-2", "key-1"]
    assert await keys.list(scope_id="tenant-1", limit=1) == [key(3)]
    with pytest.raises(IdentityError):
        await keys.list(scope_id="")


async def test_a_revoked_key_stays_revoked_since_the_first_time(keys: ApiKeys):
    await keys.add(key(1), digest="a" * 64)
    for now in (5.0, 6.0):
        assert await keys.revoke("key-1", now=now) == key(1, revoked_at=5.0)
    assert await keys.find("a" * 64) == key(1, revoked_at=5.0)
    assert await keys.revoke("key-2", now=5.0) is None


@pytest.mark.parametrize("again", [(key(1), "b" * 64), (key(1, scope_id="other"), "b" * 64), (key(2), "a" * 64)])
async def test_no_two_keys_share_an_id_or_a_digest(keys: ApiKeys, again: tuple[ApiKey, str]):
    await keys.add(key(1), digest="a" * 64)
    with pytest.raises(StoreError) as raised:
        await keys.add(again[0], digest=again[1])
    assert isinstance(raised.value, StoreConflictError)
    assert await keys.list() == [key(1)]
