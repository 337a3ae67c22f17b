"""The micro-batcher: grouping, order, limits, isolation of errors, and a free event loop."""

import asyncio
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from serving.batcher import Batcher, BatchLimits


class Doubler:
    """Work that doubles numbers; remembers its batches and threads; refuses negative numbers; can be held up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.started = threading.Event()
        self.free = threading.Event()
        self.free.set()

    def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        self.threads.add(threading.get_ident())
        self.started.set()
        assert self.free.wait(60)
        if any(number < 0 for number in numbers):
            raise ValueError(f"negative: {numbers}")
        return [2 * number for number in numbers]

    async def busy(self) -> None:
        """Wait until it works."""
        while not self.started.is_set():
            await asyncio.sleep(0.001)


async def queued(coroutine: Coroutine[Any, Any, int]) -> asyncio.Task[int]:
    """Start a submission and let it reach the queue."""
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    return task


def batcher(work: Doubler, size: int = 8, weight: int = 10**9, wait_ms: float = 0.0) -> Batcher[int, int]:
    return Batcher(work, abs, BatchLimits(size, weight, wait_ms))


def test_every_request_gets_its_own_reply():
    async def scenario():
        return await asyncio.gather(*(doubling.submit(number) for number in range(50)))

    doubling = batcher(Doubler())
    assert asyncio.run(scenario()) == [2 * number for number in range(50)]


def test_requests_that_arrive_together_share_a_batch_up_to_its_size():
    async def scenario():
        await asyncio.gather(*(doubling.submit(number) for number in range(10)))

    work = Doubler()
    doubling = batcher(work, size=4)
    asyncio.run(scenario())
    assert work.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_requests_that_arrive_during_work_make_the_next_batch():
    async def scenario():
        first = await queued(doubling.submit(1))
        await work.busy()
        later = [await queued(doubling.submit(number)) for number in (2, 3, 4)]
        work.free.set()  # the event loop is free to do this while the worker works, or this would hang
        await asyncio.gather(first, *later)

    work = Doubler()
    work.free.clear()
    doubling = batcher(work)
    asyncio.run(scenario())
    assert work.batches == [[1], [2, 3, 4]]


def test_all_work_is_done_in_one_thread_that_is_not_the_callers():
    async def scenario():
        await asyncio.gather(*(doubling.submit(number) for number in range(10)))

    work = Doubler()
    doubling = batcher(work, size=2)
    asyncio.run(scenario())
    assert len(work.threads) == 1 and threading.get_ident() not in work.threads


def test_a_batch_is_bounded_by_its_padded_weight_and_nothing_heavy_starves():
    async def scenario():
        await asyncio.gather(*(doubling.submit(number) for number in (10, 10, 100, 10, 10)))

    work = Doubler()
    doubling = batcher(work, weight=200)
    asyncio.run(scenario())
    assert work.batches == [[10, 10], [100, 10], [10]]


def test_a_request_heavier_than_the_limit_goes_alone():
    async def scenario():
        return await asyncio.gather(*(doubling.submit(number) for number in (500, 1)))

    work = Doubler()
    doubling = batcher(work, weight=10)
    assert asyncio.run(scenario()) == [1000, 2]
    assert work.batches == [[500], [1]]


def test_a_lone_request_waits_no_longer_than_the_limit_for_company():
    async def scenario():
        started = time.perf_counter()
        await doubling.submit(1)
        return time.perf_counter() - started

    doubling = batcher(Doubler(), wait_ms=50)
    assert 0.045 <= asyncio.run(scenario()) < 30


def test_company_that_comes_in_time_shares_the_batch_and_a_full_batch_does_not_wait():
    async def scenario():
        first = await queued(doubling.submit(1))
        await asyncio.sleep(0.01)
        await asyncio.gather(first, doubling.submit(2))

    work = Doubler()
    doubling = batcher(work, size=2, wait_ms=600_000)
    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert work.batches == [[1, 2]]


def test_one_bad_request_fails_alone():
    async def scenario():
        return await asyncio.gather(*(doubling.submit(number) for number in (1, -5, 3)), return_exceptions=True)

    doubling = batcher(Doubler())
    first, bad, last = asyncio.run(scenario())
    assert (first, last) == (2, 6)
    assert isinstance(bad, ValueError) and str(bad) == "negative: [-5]"


def test_the_batcher_works_on_after_an_error():
    async def scenario():
        with pytest.raises(ValueError, match="negative"):
            await doubling.submit(-1)
        return await doubling.submit(4)

    doubling = batcher(Doubler())
    assert asyncio.run(scenario()) == 8


def test_a_request_whose_caller_has_gone_is_not_worked_on():
    async def scenario():
        first = await queued(doubling.submit(1))
        await work.busy()
        gone = await queued(doubling.submit(2))
        last = await queued(doubling.submit(3))
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        work.free.set()
        await asyncio.gather(first, last)

    work = Doubler()
    work.free.clear()
    doubling = batcher(work)
    asyncio.run(scenario())
    assert work.batches == [[1], [3]]


def test_too_few_replies_are_an_error_and_not_a_hang():
    async def scenario():
        await Batcher(lambda numbers: [], abs, BatchLimits(8, 8)).submit(1)

    with pytest.raises(RuntimeError, match="0 replies to 1 requests"):
        asyncio.run(asyncio.wait_for(scenario(), 10))


def test_closing_cancels_what_waits_and_what_is_worked_on():
    async def scenario():
        working = await queued(doubling.submit(1))
        await work.busy()
        waiting = await queued(doubling.submit(2))
        await doubling.close()
        work.free.set()
        return await asyncio.gather(working, waiting, return_exceptions=True)

    work = Doubler()
    work.free.clear()
    doubling = batcher(work, size=1)
    assert all(isinstance(reply, asyncio.CancelledError) for reply in asyncio.run(scenario()))
