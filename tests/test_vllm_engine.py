"""vLLM behind the engine says what the engine says by itself; `make test-vllm` builds the environment for this."""

import asyncio
import random
from collections.abc import Iterator

import pytest

pytest.importorskip("vllm")

from serving.async_engine import AsyncEngine
from serving.engine import Engine
from serving.m3 import load
from serving.model import Answer, Ask, Picture, Piece, Pixels
from serving.vllm_engine import VllmM3
from training_data.corpus import draw_item


@pytest.fixture(scope="module")
def vllm() -> Iterator[Engine]:
    yield Engine(VllmM3(load(), enforce_eager=True, max_model_len=1024, gpu_memory_utilization=0.2))


@pytest.fixture(scope="module")
def asks() -> list[Ask]:
    """Of all scales, mixed."""
    drawn, found = random.Random(0), []
    for index in range(12):
        item = draw_item("test", 0, index, 3)
        picture = item.picture.image
        pixels = Pixels(*picture.size, picture.tobytes())
        for question in item.questions:
            shown = (Picture(pixels, item.item_id),)
            found.append(Ask(shown, question.text, drawn.choice([1, 9, 36, 144, 576]), 12))
    return found


def answers(engine: Engine, asks: list[Ask]) -> list[Answer]:
    heard: list[list[object]] = [[] for _ in asks]
    for ask, told in zip(asks, heard, strict=True):
        engine.submit(ask, told.append)
    while engine.turn():
        pass
    return [told[-1] for told in heard]  # type: ignore[misc]


def test_answers_at_mixed_scales_are_the_engines_own(vllm, asks):
    ours, theirs = answers(Engine(load()), asks), answers(vllm, asks)
    assert [told.text for told in theirs] == [told.text for told in ours]
    assert [told.completion_tokens for told in theirs] == [told.completion_tokens for told in ours]
    assert [told.visual_tokens for told in theirs] == [ask.tokens for ask in asks]
    assert [told.mean_logprob for told in theirs] == pytest.approx([told.mean_logprob for told in ours], abs=1e-3)


def test_streams_stop_and_leave(vllm, asks):
    """Pieces add up; a caller that goes frees its row."""

    async def scenario() -> tuple[list[object], int]:
        engine = AsyncEngine(vllm)
        ask = asks[0]
        streamed = Ask(ask.pictures, ask.question, 144, 12, stream=True)
        told = [each async for each in engine.stream(streamed)]
        stream = engine.stream(streamed)
        await anext(stream)
        await stream.aclose()
        while len(vllm._rows):
            await asyncio.sleep(0.01)
        left = len(vllm._rows)
        await engine.close()
        return told, left

    told, left = asyncio.run(scenario())
    *pieces, answer = told
    assert isinstance(answer, Answer) and all(isinstance(piece, Piece) for piece in pieces)
    assert "".join(piece.text for piece in pieces) == answer.text and left == 0  # type: ignore[union-attr]


def test_chance_follows_its_seed(vllm, asks):
    ask = asks[0]
    wild = [Ask(ask.pictures, ask.question, 1, 12, temperature=2.0, seed=seed) for seed in (1, 1, 2, 3, 4)]
    first, again, *others = (told.text for told in answers(vllm, wild))
    assert first == again and any(other != first for other in others)
