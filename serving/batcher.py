"""A queue in front of one worker thread: requests that arrive while it works are answered together."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Request = TypeVar("Request")
Reply = TypeVar("Reply")


@dataclass(frozen=True)
class BatchLimits:
    """How much is worked on together."""

    size: int  # requests
    weight: int  # requests times the heaviest of them, since rows are padded to the longest; one request always fits
    wait_ms: float = 0.0  # how long the oldest request waits for company while the worker is idle


@dataclass(frozen=True)
class _Waiting(Generic[Request, Reply]):
    request: Request
    weight: int
    since_s: float  # the event loop's clock
    reply: asyncio.Future[Reply]


class Batcher(Generic[Request, Reply]):
    """Gathers requests into batches, in order of arrival, and runs `work` on them in one thread.

    The event loop is never blocked by `work`. A batch that fails is tried again one request at a time, so that a
    request only ever sees its own error. A request whose caller has gone is dropped before it costs anything.
    """

    def __init__(
        self, work: Callable[[list[Request]], Sequence[Reply]], weigh: Callable[[Request], int], limits: BatchLimits
    ):
        self._work = work
        self._weigh = weigh
        self._limits = limits
        self._queue: deque[_Waiting[Request, Reply]] = deque()
        self._arrival = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batch")
        self._runner: asyncio.Task[None] | None = None

    async def submit(self, request: Request) -> Reply:
        """Queue one request and wait for its reply, or for the error that `work` raised for it."""
        loop = asyncio.get_running_loop()
        if self._runner is None:
            self._runner = loop.create_task(self._run())
        waiting: _Waiting[Request, Reply] = _Waiting(request, self._weigh(request), loop.time(), loop.create_future())
        self._queue.append(waiting)
        self._arrival.set()
        return await waiting.reply

    async def close(self) -> None:
        """Cancel what waits; a batch in flight ends in its thread, unheard."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)
        _cancel(self._queue)
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        while True:
            await self._wait_for_company()
            batch = self._take()
            try:
                await self._answer(batch)
            finally:
                _cancel(batch)  # does nothing to those that were answered

    async def _wait_for_company(self) -> None:
        """Return when a batch is full, or when the oldest request has waited long enough."""
        while not self._queue:
            self._arrival.clear()
            await self._arrival.wait()
        deadline_s = self._queue[0].since_s + self._limits.wait_ms / 1000
        while not self._full() and (left_s := deadline_s - asyncio.get_running_loop().time()) > 0:
            self._arrival.clear()
            try:
                await asyncio.wait_for(self._arrival.wait(), left_s)
            except TimeoutError:
                return

    def _full(self) -> bool:
        heaviest = max(waiting.weight for waiting in self._queue)
        return len(self._queue) >= self._limits.size or len(self._queue) * heaviest >= self._limits.weight

    def _take(self) -> list[_Waiting[Request, Reply]]:
        """The longest run from the front that fits; strictly in order, so that nothing heavy starves."""
        batch: list[_Waiting[Request, Reply]] = []
        heaviest = 0
        while self._queue and len(batch) < self._limits.size:
            if self._queue[0].reply.done():  # its caller has gone
                self._queue.popleft()
                continue
            heaviest = max(heaviest, self._queue[0].weight)
            if batch and (len(batch) + 1) * heaviest > self._limits.weight:
                break
            batch.append(self._queue.popleft())
        return batch

    async def _answer(self, batch: list[_Waiting[Request, Reply]]) -> None:
        if not batch:
            return
        loop = asyncio.get_running_loop()
        requests = [waiting.request for waiting in batch]
        try:
            replies = await loop.run_in_executor(self._thread, self._work, requests)
            if len(replies) != len(requests):
                raise RuntimeError(f"{len(replies)} replies to {len(requests)} requests")
        except Exception as error:
            if len(batch) == 1:
                if not batch[0].reply.done():
                    batch[0].reply.set_exception(error)
                return
            for waiting in batch:
                if not waiting.reply.done():
                    await self._answer([waiting])
            return
        for waiting, reply in zip(batch, replies, strict=True):
            if not waiting.reply.done():
                waiting.reply.set_result(reply)


def _cancel(waiting: Sequence[_Waiting[Request, Reply]] | deque[_Waiting[Request, Reply]]) -> None:
    for one in waiting:
        one.reply.cancel()
