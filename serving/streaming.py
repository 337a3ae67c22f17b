"""A streamed answer as server-sent events, in OpenAI's shape."""

import json
import logging
from collections.abc import AsyncIterator, Callable

from serving import openai
from serving.failures import failure_of
from serving.model import Answer, Piece

logger = logging.getLogger(__name__)

Chunk = Callable[..., openai.ChatCompletionChunk]


async def peeked(told: AsyncIterator[Piece | Answer]) -> AsyncIterator[Piece | Answer]:
    """The same stream once its first item is there: what fails before that is still an HTTP error."""
    first = await anext(told)

    async def whole() -> AsyncIterator[Piece | Answer]:
        yield first
        if isinstance(first, Piece):
            async for more in told:
                yield more

    return whole()


async def events(
    told: AsyncIterator[Piece | Answer],
    chunk: Chunk,
    decided: Callable[[Answer], openai.AnsweredDecision],
    include_usage: bool,
) -> AsyncIterator[bytes]:
    """Server-sent events of a stream; an error after the first is an event too, and the last.

    Args:
        chunk: makes a chunk of its choices and other fields.
        decided: the decision as it goes into the last chunk that has a choice.
    """
    sent = ""
    yield _event(chunk(choices=[openai.ChunkChoice(delta=openai.Delta(role="assistant", content=""))]))
    try:
        async for each in told:
            text = each.text.removeprefix(sent) if isinstance(each, Answer) else each.text
            sent += text
            if text:
                yield _event(chunk(choices=[openai.ChunkChoice(delta=openai.Delta(content=text))]))
            if isinstance(each, Answer):
                end = openai.ChunkChoice(delta=openai.Delta(), finish_reason=each.finish_reason)
                yield _event(chunk(choices=[end], m3=decided(each)))
                if include_usage:
                    yield _event(chunk(choices=[], usage=openai.usage_of(each)))
    except Exception as error:
        failure = failure_of(error)
        if failure.status == 500:
            logger.exception("a streamed answer failed")
        yield b"data: " + json.dumps({"error": failure.detail.model_dump()}).encode() + b"\n\n"
        return
    yield b"data: [DONE]\n\n"


def _event(chunk: openai.ChatCompletionChunk) -> bytes:
    return b"data: " + chunk.model_dump_json(exclude_none=True).encode() + b"\n\n"
