"""Questions that arrive together are one question to the store; nobody's leaving or failing is another's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from flow_runtime.errors import OperationFailed
from flow_runtime.feature_store.batcher import Batcher
from support.waiting import until


class Doubler:
    """Answers with the double; 13 has no answer, and a batch with 0 fails as a whole. Waits while it is held."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.free = asyncio.Event()
        self.free.set()

    async def __call__(self, questions: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(questions))
        await self.free.wait()
        if 0 in questions:
            raise OperationFailed("zero")
        return [OperationFailed("thirteen") if each == 13 else each * 2 for each in questions]


async def test_what_arrives_in_one_turn_and_while_a_batch_is_answered_is_a_batch():
    doubler = Doubler()
    batcher: Batcher[int, int] = Batcher(doubler, largest=100)
    doubler.free.clear()
    first = [asyncio.create_task(batcher.ask(number)) for number in range(1, 6)]
    await until(lambda: doubler.batches == [[1, 2, 3, 4, 5]])
    second = [asyncio.create_task(batcher.ask(number)) for number in range(20, 140)]
    await asyncio.sleep(0)
    doubler.free.set()
    assert await asyncio.gather(*first) == [2, 4, 6, 8, 10]
    assert await asyncio.gather(*second) == [number * 2 for number in range(20, 140)]
    assert [len(batch) for batch in doubler.batches] == [5, 100, 20]
    assert await batcher.ask(3) == 6


async def test_a_question_that_is_cancelled_or_fails_leaves_the_others_alone():
    doubler = Doubler()
    batcher: Batcher[int, int] = Batcher(doubler)
    doubler.free.clear()
    tasks = [asyncio.create_task(batcher.ask(number)) for number in (1, 2, 13)]
    await until(lambda: bool(doubler.batches))
    waiting = asyncio.create_task(batcher.ask(4))
    left = asyncio.create_task(batcher.ask(5))
    await asyncio.sleep(0)
    tasks[0].cancel()
    left.cancel()
    doubler.free.set()
    results = await asyncio.gather(*tasks, waiting, left, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError) and isinstance(results[4], asyncio.CancelledError)
    assert (results[1], str(results[2]), results[3]) == (4, "thirteen", 8)
    assert doubler.batches == [[1, 2, 13], [4]], "nobody waits for the answer to 5"


async def test_a_batch_that_fails_fails_for_those_in_it_and_the_next_goes_on():
    batcher: Batcher[int, int] = Batcher(Doubler())
    results = await asyncio.gather(batcher.ask(0), batcher.ask(1), return_exceptions=True)
    assert [str(result) for result in results] == ["zero", "zero"]
    assert await batcher.ask(1) == 2


async def test_closing_ends_every_question_with_a_sentence():
    doubler = Doubler()
    doubler.free.clear()
    batcher: Batcher[int, int] = Batcher(doubler)
    tasks = [asyncio.create_task(batcher.ask(1))]
    await until(lambda: bool(doubler.batches))
    tasks.append(asyncio.create_task(batcher.ask(2)))
    await asyncio.sleep(0)
    await batcher.aclose()
    for task in tasks:
        with pytest.raises(OperationFailed, match="closing"):
            await task
