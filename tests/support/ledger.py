"""A shared actor that a test can make slow, or die at a failpoint."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from agentflow_serve.ledger_sessions import Place, SessionMethod, SessionTerms
from agentflow_serve.session_ledger import IDLE_EXIT_S, NAMESPACE, SessionLedger, actor_name
from runtime_core.stores.failpoints import arm


class ArmedLedger(SessionLedger):
    """The app's actor; after a restart it is as any other."""

    pause_s = 0.0

    async def kill_at(self, failpoint: str) -> None:
        arm(failpoint, lambda: os.kill(os.getpid(), signal.SIGKILL))

    async def be_slow(self, seconds: float) -> None:
        self.pause_s = seconds

    async def session(self, terms: SessionTerms, method: SessionMethod, place: Place, *args: Any) -> Any:
        await asyncio.sleep(self.pause_s)
        return await super().session(terms, method, place, *args)

    async def pid(self) -> int:
        return os.getpid()


def armed_ledger(app_name: str) -> Any:
    """The handle of the app's actor, which must not have been started yet."""
    import ray

    here = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(here)  # Ray's workers do not have the folder of the tests
    try:
        actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=3)(ArmedLedger)
        return actor.options(name=actor_name(app_name), namespace=NAMESPACE, lifetime="detached").remote(IDLE_EXIT_S)
    finally:
        ray.cloudpickle.unregister_pickle_by_value(here)
