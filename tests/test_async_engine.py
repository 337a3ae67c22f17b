"""The engine on an event loop: free while the model works, and rid of whom nobody waits for."""

import asyncio
import threading
import time

import pytest
from doubles import FakeM3, LocalModel

from complexity.errors import InvalidInput
from serving.model import Answer, Ask, Picture, Piece, Pixels


def ask(question: str = "What?", tokens: int = 1, most: int = 8, stream: bool = False) -> Ask:
    return Ask((Picture(Pixels(1, 1, bytes(3)), "picture"),), question, tokens, most, stream=stream)


def test_the_event_loop_is_free_while_the_model_works():
    """It ticks on during a slow prompt, which is read in another thread."""

    async def scenario():
        model = LocalModel(m3)
        answer = asyncio.create_task(model.answer(ask()))
        ticks = 0
        while not answer.done():
            await asyncio.sleep(0.005)
            ticks += 1
        await model.close()
        return ticks, answer.result()

    m3 = FakeM3(slow_s=0.3)
    ticks, answer = asyncio.run(scenario())
    assert answer.text == "0,0,0 What?" and ticks >= 10
    assert threading.get_ident() not in m3.threads and len(m3.threads) == 1


def test_an_answer_is_streamed_while_it_is_written():
    async def scenario():
        model = LocalModel(FakeM3())
        told = [each async for each in model.stream(ask("one two three", stream=True))]
        await model.close()
        return told

    *pieces, answer = asyncio.run(scenario())
    assert all(isinstance(piece, Piece) for piece in pieces) and isinstance(answer, Answer)
    assert "".join(piece.text for piece in pieces) == answer.text == "0,0,0 one two three"


@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_a_caller_that_leaves_frees_its_place(how: str):
    """A cancelled task, or a stream that is closed after its first piece."""

    async def scenario():
        model = LocalModel(FakeM3())
        rows = model._engine._rows
        long = ask("word " * 10_000_000, most=10_000_000, stream=True)
        if how == "cancelled":
            task = asyncio.create_task(model.answer(long))
            while not len(rows):
                await asyncio.sleep(0.001)
            task.cancel()
        else:
            stream = model.stream(long)
            await anext(stream)
            await stream.aclose()
        deadline_s = time.monotonic() + 60
        while len(rows) and time.monotonic() < deadline_s:
            await asyncio.sleep(0.001)
        left = len(rows)
        await model.close()
        return left

    assert asyncio.run(scenario()) == 0


def test_errors_reach_their_caller_alone():
    async def scenario():
        model = LocalModel(FakeM3())
        asks = (ask("refuse"), ask("fine"), ask("break"))
        told = await asyncio.gather(*map(model.answer, asks), return_exceptions=True)
        await model.close()
        return told

    refused, fine, broken = asyncio.run(scenario())
    assert isinstance(refused, InvalidInput) and isinstance(broken, RuntimeError) and fine.text == "0,0,0 fine"


def test_closing_ends_the_thread():
    async def scenario():
        model = LocalModel(FakeM3())
        await model.answer(ask())
        await model.close()
        return model._thread.is_alive()

    assert asyncio.run(scenario()) is False
