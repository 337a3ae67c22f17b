"""The model as the ingress calls it: Ray handles whose failures become the service's own."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
from ray.exceptions import RayError, RayTaskError
from ray.serve import context as serve_context
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from complexity.errors import ArtifactError, InvalidInput
from complexity.sample import Sample
from serving.intake import pixels_of
from serving.model import Answer, Ask, Look, ModelInfo, ModelOverloaded, ModelTimeout, ModelUnavailable, Piece, Refusal

logger = logging.getLogger(__name__)

TRIES = 2  # of a request whose replica goes away under it; more would let one that kills replicas kill them all
LOOK_SHARE = 0.25  # of the time for an answer: a decision without a look takes the finest scale
PAUSE_S = 0.2  # before the second try, in which Ray notices that the replica is gone


class RayModel:
    """The model behind deployment handles.

    Args:
        pools: handles by the most visual tokens that their replicas are asked for.
    """

    def __init__(self, pools: dict[int, DeploymentHandle], timeout_s: float):
        self._pools = sorted(pools.items(), key=lambda pool: pool[0])
        self._timeout_s = timeout_s

    async def info(self) -> ModelInfo:
        """What the model is; only when every pool's replicas answer, and say the same.

        Raises:
            ArtifactError: the pools don't reach the finest scale.
        """
        told: list[ModelInfo] = [await _translated(_called(handle.info)) for _, handle in self._pools]
        if self._pools[-1][0] < told[0].ladder[-1]:
            raise ArtifactError(f"no pool takes {told[0].ladder[-1]} tokens, the model's finest scale")
        return told[0]

    async def answer(self, ask: Ask) -> Answer:
        """A whole answer; a second replica is asked where the first goes away meanwhile."""
        timeout_s = self._timeout_s if ask.deadline_s is None else ask.deadline_s
        try:
            async with asyncio.timeout(timeout_s):
                for left in reversed(range(TRIES)):
                    try:
                        reply: Answer | Refusal = await _translated(_called(self._near(ask).answer, ask))
                        return _accepted(reply)
                    except ModelUnavailable:
                        if not left:
                            raise
                    await asyncio.sleep(PAUSE_S)
        except TimeoutError:
            raise ModelTimeout(f"no answer within {timeout_s:.3g} s") from None
        raise AssertionError("the last try returns or raises")

    async def stream(self, ask: Ask) -> AsyncIterator[Piece | Answer]:
        """Pieces of an answer; a second replica is asked where the first goes away before it said anything."""
        timeout_s = self._timeout_s if ask.deadline_s is None else ask.deadline_s
        deadline_s = time.monotonic() + timeout_s
        for left in reversed(range(TRIES)):
            told = _called(self._near(ask, stream=True).stream, ask)
            begun = False
            try:
                while True:  # no asyncio.timeout around it: the server may go on with a stream in another task
                    wait_s = deadline_s - time.monotonic()
                    each = _accepted(await asyncio.wait_for(_translated(anext(told)), wait_s))
                    begun = True
                    yield each
                    if isinstance(each, Answer):
                        return
            except TimeoutError:
                raise ModelTimeout(f"no whole answer within {timeout_s:.3g} s") from None
            except ModelUnavailable:
                if begun or not left:
                    raise
            finally:
                told.cancel()  # frees its place where it isn't complete
            await asyncio.sleep(PAUSE_S)

    async def look(self, sample: Sample) -> np.ndarray:
        """What the tower sees of a sample's picture, in numbers (G,); the replica keeps its visual tokens."""
        look = Look(await asyncio.to_thread(pixels_of, sample), sample.image_sha256)
        async with asyncio.timeout(LOOK_SHARE * self._timeout_s):
            seen: np.ndarray = await _translated(_called(self._near(look).look, look))
        return seen

    def _near(self, asked: Ask | Look, stream: bool = False) -> DeploymentHandle:
        """The pool for so many tokens; the replica in it that has the picture is found by the session."""
        tokens = asked.tokens if isinstance(asked, Ask) else 0
        handle = next(handle for most, handle in self._pools if tokens <= most)
        return handle.options(session_id=asked.picture, stream=stream)


def _accepted(reply: Any) -> Any:
    """A replica's reply; raises what it says of the caller's mistake, or of a deadline."""
    if isinstance(reply, Refusal):
        raise ModelTimeout(reply.message) if reply.late else InvalidInput(reply.message, reply.param)
    return reply


def _called(method: Any, *args: Any) -> Any:
    """Call a replica's method by a request id of its own.

    Inside an HTTP request Ray gives all calls that request's id, and of two under way with one id it loses one.
    """
    context = serve_context._get_serve_request_context()
    apart = replace(context, _internal_request_id="", cancel_on_parent_request_cancel=False)
    token = serve_context._serve_request_context.set(apart)  # type: ignore[arg-type]  # Ray declares it as None's
    try:
        return method.remote(*args)
    finally:
        serve_context._serve_request_context.reset(token)


async def _translated(reply: Any) -> Any:
    """Await a handle's reply, turning Ray's failures into the service's own."""
    try:
        return await reply
    except asyncio.CancelledError:
        if isinstance(reply, DeploymentResponse):  # whoever asked is gone: its place is freed
            reply.cancel()
        raise
    except BackPressureError:
        raise ModelOverloaded("too many requests wait for the model; try again") from None
    except RayTaskError:  # the replica is there, and its code broke
        raise
    except (RayError, RayServeException) as error:
        logger.warning("the model can't be reached: %s", type(error).__name__)
        raise ModelUnavailable("the model is restarting or gone; try again") from None
