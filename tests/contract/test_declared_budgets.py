"""Budgets that a document declares, on every database: kept in step with it, whoever else sets budgets beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent_runtime import Budget, EventFilter, Ledger
from agent_runtime.ledger.declared import Declared, declare_budgets, disputes
from agent_runtime.ledger.writers import SqlLedgerWriter
from runtime_core.clock import ManualClock
from runtime_core.errors import StoreUnavailableError
from runtime_core.ids import RandomIds
from runtime_core.stores import Database, open_database
from support.stores import fresh_store_url

CLOCK = ManualClock(datetime(2026, 1, 31, tzinfo=UTC))
ACME = Budget(scope_id="acme", max_tokens_total=10)
ANN = Budget(scope_id="acme", principal_id="ann", max_requests_daily=3)
OTHER = Budget(scope_id="other", role="main", max_tokens_total=5)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return await fresh_store_url(request.param, request, tmp_path)


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with open_database(url, node_id="node-1") as database:
        yield database


async def declare(database: Database, *budgets: Budget, source: str = "desk") -> Declared:
    return await declare_budgets(database, source, budgets, clock=CLOCK, ids=RandomIds())


async def stored(database: Database) -> list[Budget]:
    ledger = Ledger(SqlLedgerWriter(database), clock=CLOCK)
    return [*await ledger.budgets("acme"), *await ledger.budgets("other")]


async def test_the_store_follows_the_document(database: Database):
    assert await declare(database, ACME, OTHER) == Declared(set=(ACME.account, OTHER.account))
    assert await declare(database, ACME, OTHER) == Declared()
    wider = ACME.model_copy(update={"max_tokens_total": 20})
    assert await declare(database, wider, ANN) == Declared((ACME.account, ANN.account), (OTHER.account,))
    assert await stored(database) == [wider, ANN]
    assert await declare(database) == Declared(removed=(ACME.account, ANN.account))
    assert await stored(database) == []


async def test_what_others_have_set_stays(database: Database):
    ledger = Ledger(SqlLedgerWriter(database), clock=CLOCK)
    await ledger.set_budget(ANN)
    await declare(database, ACME)
    by_hand = ACME.model_copy(update={"max_tokens_total": 99})
    await ledger.set_budget(by_hand)
    assert await declare(database, ACME) == Declared()
    assert await stored(database) == [by_hand, ANN]
    await declare(database)
    assert await stored(database) == [by_hand, ANN]


async def test_a_budget_that_somebody_removed_is_declared_again(database: Database):
    await declare(database, ACME)
    await Ledger(SqlLedgerWriter(database), clock=CLOCK).remove_budget(ACME)
    assert await declare(database, ACME) == Declared(set=(ACME.account,))


async def test_two_documents_do_not_undo_each_other(database: Database):
    await declare(database, ACME, OTHER)
    await declare(database, ANN, source="shop")
    assert await declare(database, ACME) == Declared(removed=(OTHER.account,))
    assert await stored(database) == [ACME, ANN]


async def test_a_budget_that_two_documents_declare_stays_until_neither_does(database: Database):
    await declare(database, ACME, ANN)
    await declare(database, ACME, source="shop")
    assert await declare(database) == Declared(removed=(ANN.account,))
    assert await stored(database) == [ACME]
    assert await declare(database, source="shop") == Declared(removed=(ACME.account,))
    assert await stored(database) == []


async def test_two_documents_that_disagree_are_told_so_until_they_agree(
    database: Database, caplog: pytest.LogCaptureFixture
):
    wider = ACME.model_copy(update={"max_tokens_total": 20})
    await declare(database, ACME, ANN, OTHER)
    await declare(database, ACME, source="store")
    assert caplog.messages == []
    await declare(database, wider, ANN, source="shop")
    assert await stored(database) == [wider, ANN, OTHER]
    assert [each.partition(":")[0] for each in caplog.messages] == [
        "desk and shop declare different budgets for the scope of acme",
        "shop and store declare different budgets for the scope of acme",
    ]
    assert [each.sources for each in await disputes(database, "acme")] == [("desk", "shop"), ("shop", "store")]
    assert await disputes(database, "other") == []
    for source in ("desk", "store"):
        await declare(database, wider, source=source)
    assert await disputes(database, "acme") == []


async def test_what_is_declared_holds_although_nobody_can_see_whether_it_is_disputed(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    await declare(database, ACME)

    async def away(_: object) -> None:
        raise StoreUnavailableError("The store is away.")

    with monkeypatch.context() as then:
        then.setattr(database, "read", away)
        assert await declare(database, ACME, ANN) == Declared(set=(ANN.account,))
    assert await stored(database) == [ACME, ANN]
    assert caplog.messages == ["it is not known whether budgets of desk are disputed"]


async def test_starters_at_once_declare_one_after_the_other(url: str, database: Database):
    async with open_database(url, node_id="node-1") as second:
        apart = database if url == "memory:" else second
        said = await asyncio.gather(*(declare(each, ACME, ANN, OTHER) for each in (database, apart) * 4))
    assert sorted(len(each.set) for each in said) == [0] * 7 + [3]
    assert await stored(database) == [ACME, ANN, OTHER]
    ledger = Ledger(SqlLedgerWriter(database), clock=CLOCK)
    assert len((await ledger.list_events("acme", EventFilter(type="budget_set"))).events) == 2
