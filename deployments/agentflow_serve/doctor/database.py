"""Reads the facts about a run store on PostgreSQL: the address, and whether the server lets us in."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from agentflow_serve.doctor.facts import Store
from runtime_core.errors import StoreError

ASK_S = 2.0


def read_server(url: str) -> Store:
    """Asks the server for nothing but an answer. Raises StoreUrlError."""
    from runtime_core.stores.postgres import PostgresDatabase, PostgresOptions, location_of

    patience = PostgresOptions(connect_timeout_s=ASK_S, command_timeout_s=ASK_S, patience_s=ASK_S)

    async def ask() -> str | None:
        try:
            async with PostgresDatabase(url, options=patience):
                return None
        except StoreError as error:
            return str(error)

    server = location_of(url)
    return Store(url, server=server, refusal=asyncio.run(ask()), shows_password=urlsplit(url).password is not None)
