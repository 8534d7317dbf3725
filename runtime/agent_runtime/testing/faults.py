"""Any store with faults, to prove that its callers survive them."""

from __future__ import annotations

import inspect
from random import Random
from typing import Any, TypeVar, cast

from runtime_core.errors import StoreUnavailableError
from runtime_core.stores.faults import Faults

T = TypeVar("T")


def faulty(store: T, rng: Random, *, rate: float = 0.01) -> T:
    """The store, except that this share of its calls raises, half of them after the store has done the work."""
    return cast(T, _Faulty(store, Faults(rng, rate)))


class _Faulty:
    def __init__(self, store: object, faults: Faults) -> None:
        self._store = store
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*args: Any, **named: Any) -> Any:
            lose_answer = self._faults.draw()
            answer = await found(*args, **named)
            if lose_answer:
                raise StoreUnavailableError("Injected fault: executed, then timed out.", outcome_unknown=True)
            return answer

        return call
