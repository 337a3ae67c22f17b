"""vLLM behind the engine says what the engine says by itself; `make test-vllm` builds the environment for this."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

pytest.importorskip("vllm")

from serving.async_engine import AsyncEngine
from serving.engine import Engine
from serving.m3 import NewRow, load
from serving.model import Answer, Ask, Picture, Piece, Pixels, Turn
from serving.vllm_engine import VllmM3
from training_data.drawn.corpus import draw_item


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


def test_log_probabilities_and_alternatives_are_the_engines_own(vllm, asks):
    """Also where the sampling has another temperature: they are the model's."""
    wished = [replace(ask, logprobs=count) for ask, count in zip(asks[:4], (0, 1, 5, 20), strict=True)]
    ours, theirs = answers(Engine(load()), wished), answers(vllm, wished)
    for wish, mine, other in zip(wished, ours, theirs, strict=True):
        assert [each.raw for each in other.logprobs] == [each.raw for each in mine.logprobs]
        assert [len(each.top) for each in other.logprobs] == [wish.logprobs] * len(mine.logprobs)
        for one, same in zip(mine.logprobs, other.logprobs, strict=True):
            assert same.logprob == pytest.approx(one.logprob, abs=1e-2)
            assert [each[1] for each in same.top] == pytest.approx([each[1] for each in one.top], abs=0.1)
    (hot,) = answers(vllm, [replace(asks[0], temperature=0.1, logprobs=2)])
    (cold,) = answers(vllm, [replace(asks[0], logprobs=2)])
    assert hot.logprobs[0].top[0][1] == pytest.approx(cold.logprobs[0].top[0][1], abs=1e-3)


def test_conversations_and_several_pictures_are_read_alike(vllm, asks):
    """m3-tiny leaves them out, so its prompts are made here as a model would that reads them."""
    m3 = load()
    encoded = m3.encode([draw_item("test", 0, index, 1).picture.image for index in range(2)])
    history = (Turn("What is written on the sign?", "EXIT", 1),)
    prepared = m3.prepare("What colour is the background?", encoded, 36, 12, "Be brief.", history)
    said = []
    for rows in (m3.rows(), vllm._m3.rows()):
        rows.join([NewRow("owner", prepared.embeds, 12)])
        ids: list[int] = []
        while not ids or (ids[-1] not in m3.stops and len(ids) < 12):
            ids += [each.token for each in rows.say()]
            rows.advance()
        rows.leave({"owner"})
        said.append(ids)
    assert said[0] == said[1] and prepared.visual_tokens == 72
