"""Reads the facts about a run store on PostgreSQL: the address, whether the server lets us in, and as whom."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from urllib.parse import urlsplit

from agentflow_serve.doctor.facts import Store
from runtime_core.errors import StoreError
from runtime_core.stores.sql import Op, Rows, Sql

ASK_S = 2.0


def read_server(url: str) -> Store:
    """Asks the server for nothing but our role. Raises StoreUrlError."""
    from runtime_core.stores.postgres import PostgresDatabase, PostgresOptions, location_of

    patience = PostgresOptions(connect_timeout_s=ASK_S, command_timeout_s=ASK_S, patience_s=ASK_S)

    async def ask() -> Store:
        try:
            async with PostgresDatabase(url, options=patience) as database:
                [(sees_all,)] = await database.read(_sees_all)
        except StoreError as error:
            return replace(store, refusal=str(error))
        return replace(store, sees_all=bool(sees_all))

    store = Store(url, server=location_of(url), shows_password=urlsplit(url).password is not None)
    return asyncio.run(ask())


def _sees_all() -> Op[Rows]:
    return (yield Sql("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"))
