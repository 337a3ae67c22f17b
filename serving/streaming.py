"""Streamed answers as server-sent events, in OpenAI's shape."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence

from serving import replies
from serving.failures import failure_of
from serving.model import Answer, Piece
from serving.wire import AnsweredDecision

logger = logging.getLogger(__name__)

Chunk = Callable[..., replies.ChatCompletionChunk]
Told = tuple[int, Piece | Answer]  # which of the answers, and what it goes on with


async def merged(streams: Sequence[AsyncIterator[Piece | Answer]]) -> AsyncIterator[Told]:
    """What several answers tell, as it comes; the first that fails ends them all."""
    if len(streams) == 1:
        async for told in streams[0]:
            yield 0, told
        return
    heard: asyncio.Queue[Told | Exception | None] = asyncio.Queue()

    async def listen(index: int) -> None:
        try:
            async for told in streams[index]:
                heard.put_nowait((index, told))
            heard.put_nowait(None)
        except Exception as error:  # told to whom reads, below
            heard.put_nowait(error)

    listening = [asyncio.create_task(listen(index)) for index in range(len(streams))]
    try:
        running = len(streams)
        while running:
            item = await heard.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                running -= 1
            else:
                yield item
    finally:
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)


async def peeked(told: AsyncIterator[Told]) -> AsyncIterator[Told]:
    """The same stream once its first item is there: what fails before that is still an HTTP error."""
    first = await anext(told)

    async def whole() -> AsyncIterator[Told]:
        yield first
        async for more in told:
            yield more

    return whole()


async def events(
    told: AsyncIterator[Told],
    chunk: Chunk,
    decided: Callable[[tuple[Answer, ...]], AnsweredDecision],
    failed: Callable[[], None],
    count: int,
    include_usage: bool,
) -> AsyncIterator[bytes]:
    """Server-sent events of a stream; an error after the first is an event too, and the last.

    Args:
        chunk: makes a chunk of its choices and other fields.
        decided: the decision as it goes into the last chunk that has a choice.
        failed: called when an error ends the stream.
        count: of answers.
    """
    sent, listed = [""] * count, [0] * count  # text and log-probabilities
    answers: dict[int, Answer] = {}
    for index in range(count):
        yield _event(chunk(choices=[_choice(index, role="assistant", content="")]))
    try:
        async for index, each in told:
            text = each.text.removeprefix(sent[index]) if isinstance(each, Answer) else each.text
            logprobs = each.logprobs[listed[index] :] if isinstance(each, Answer) and each.logprobs else each.logprobs
            sent[index] += text
            listed[index] += len(logprobs or ())
            if text or logprobs:
                choice = _choice(index, content=text)
                choice.logprobs = replies.logprobs_of(logprobs)
                yield _event(chunk(choices=[choice]))
            if isinstance(each, Answer):
                answers[index] = each
                end = replies.ChunkChoice(index=index, delta=replies.Delta(), finish_reason=each.finish_reason)
                if len(answers) < count:
                    yield _event(chunk(choices=[end]))
                    continue
                whole = tuple(answers[i] for i in range(count))
                yield _event(chunk(choices=[end], m3=decided(whole)))
                if include_usage:
                    yield _event(chunk(choices=[], usage=replies.usage_of(whole)))
    except Exception as error:
        failed()
        failure = failure_of(error)
        if failure.status == 500:
            logger.exception("a streamed answer failed")
        yield b"data: " + json.dumps({"error": failure.detail.model_dump()}).encode() + b"\n\n"
        return
    yield b"data: [DONE]\n\n"


def _choice(index: int, **delta: str) -> replies.ChunkChoice:
    return replies.ChunkChoice(index=index, delta=replies.Delta.model_validate(delta))


def _event(chunk: replies.ChatCompletionChunk) -> bytes:
    return b"data: " + chunk.model_dump_json(exclude_none=True).encode() + b"\n\n"
