"""An engine in a thread of its own, for callers on an event loop, which it never blocks."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator

import numpy as np

from complexity.errors import M3Error
from serving.engine import Engine
from serving.model import Answer, Ask, Look, ModelInfo, Piece

STALLED_S = 60.0  # a turn is a batch of pictures or prompts and a token of every answer

log = logging.getLogger(__name__)

Told = Piece | Answer | np.ndarray | Exception


class EngineStalled(M3Error):
    """The engine doesn't get on; its replica should be replaced."""


class AsyncEngine:
    """Runs `Engine.turn` while there is work; use it on one event loop."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._wake = threading.Event()
        self._closed = False
        self._turning_since_s: float | None = None  # on time.monotonic()'s clock; None: there is nothing to do
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    async def info(self) -> ModelInfo:
        return self._engine.info

    async def stream(self, ask: Ask) -> AsyncIterator[Piece | Answer]:
        """Pieces of the answer while it is written, where the ask wants them, and last the whole answer.

        Raises:
            InvalidInput: the model can't take the ask, such as a question beyond its context.
        """
        async for told in self._told(ask):
            assert isinstance(told, Piece | Answer)
            yield told

    async def answer(self, ask: Ask) -> Answer:
        """The whole answer; raises as `stream` does."""
        async for told in self._told(ask):
            if isinstance(told, Answer):
                return told
        raise AssertionError("an answer comes last")

    async def look(self, look: Look) -> np.ndarray:
        """What the tower sees of a picture, in numbers: (G,)."""
        async for told in self._told(look):
            if isinstance(told, np.ndarray):
                return told
        raise AssertionError("what was seen comes last")

    def check(self) -> None:
        """Raises EngineStalled when a turn takes longer than any should, or nobody turns any more."""
        since_s = self._turning_since_s
        if since_s is not None and time.monotonic() - since_s > STALLED_S:
            raise EngineStalled(f"the engine's turn has taken more than {STALLED_S:g} s")
        if not self._thread.is_alive() and not self._closed:
            raise EngineStalled("the engine's thread has ended")

    async def close(self) -> None:
        """Stop after the turn under way; answers that aren't complete are never told."""
        self._closed = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join)

    async def _told(self, asked: Ask | Look) -> AsyncIterator[Told]:
        """What the engine tells of a request. A caller that stops listening, or is cancelled, takes it back."""
        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[Told] = asyncio.Queue()

        def tell(told: Told) -> None:
            try:
                loop.call_soon_threadsafe(heard.put_nowait, told)
            except RuntimeError:  # the loop has been closed: nobody listens any more
                job.gone = True

        job = self._engine.submit(asked, tell)
        self._wake.set()
        try:
            while True:
                told = await heard.get()
                if isinstance(told, Exception):
                    raise told
                yield told
                if not isinstance(told, Piece):
                    return
        finally:
            job.gone = True
            self._wake.set()

    def _run(self) -> None:
        while not self._closed:
            self._turning_since_s = time.monotonic()
            try:
                busy = self._engine.turn()
            except Exception:  # a fault of the engine itself: others may go on
                log.exception("a turn of the engine failed")
                busy = False
            if not busy:
                self._turning_since_s = None
                self._wake.wait()
                self._wake.clear()
