"""Who keeps a run store in order: the app's shared actor; without one its predictors, or kserve agents, in turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from agent_runtime.ledger.transactions import prepare_ledger
from agent_runtime.ledger.upkeep import EVERY_S, Upkeep
from agentflow_serve.run_store import RunStore
from runtime_core.errors import StoreError
from runtime_core.ids import RandomIds

logger = logging.getLogger(__name__)


class Keeping(NamedTuple):
    """Which store, and for how many seconds calls stay in it after they ended; None is for ever."""

    store: str
    keep_s: float | None


@asynccontextmanager
async def kept_in_order(keeping: Keeping) -> AsyncGenerator[None]:
    """While the block runs, through a database of its own."""
    async with AsyncExitStack() as stack:
        upkeep = asyncio.create_task(keep_in_order(RunStore(stack, keeping.store), keeping))
        try:
            yield
        finally:
            upkeep.cancel()
            await asyncio.wait([upkeep])


async def keep_in_order(store: RunStore, keeping: Keeping) -> None:
    """Until it is cancelled; after an error it begins again."""
    owner = RandomIds().new("upk")
    while True:
        try:
            database = await store.database()
            await prepare_ledger(database)
            await Upkeep(database, owner=owner, keep_s=keeping.keep_s).run()
        except StoreError as exc:
            logger.warning("The run store could not be opened to keep it in order: %s", exc)
        except Exception:
            logger.exception("the run store was not kept in order, for a reason that nobody foresaw")
        await asyncio.sleep(EVERY_S)
