"""What Ray Serve runs, as thin shells: the model's replica, and the ingress that routes in process."""

import asyncio
import logging
import os
from typing import Any

import numpy as np
import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from complexity.errors import InvalidInput
from complexity.sample import Sample
from router.artifact import load_artifact
from router.cache import DecisionCache
from router.route import Router
from serving.api import Service, create_app
from serving.batcher import Batcher, BatchLimits
from serving.intake import pixels_of
from serving.model import Answer, Ask, Look, ModelInfo, ModelOverloaded, ModelTimeout, ModelUnavailable, Refusal
from serving.settings import Settings

logger = logging.getLogger(__name__)


class M3Replica:
    """Holds the model; answers asks in batches, in one worker thread."""

    def __init__(self, settings: Settings):
        import torch

        from serving.engine import Engine
        from serving.m3 import load

        torch.set_num_threads(settings.threads or os.cpu_count() or 1)  # Ray sets OMP_NUM_THREADS=1
        m3 = load(settings.model, device=_device(settings.device))
        self._engine = Engine(m3, settings.feature_memory_mb * 2**20)
        self._engine.warm_up()
        limits = BatchLimits(settings.max_batch_size, settings.max_batch_tokens, settings.max_batch_wait_ms)
        self._batcher: Batcher[Ask, Answer] = Batcher(self._engine.answer, lambda ask: ask.tokens, limits)
        self._looks: Batcher[Look, np.ndarray] = Batcher(self._engine.look, lambda look: 1, limits)

    async def info(self) -> ModelInfo:
        return self._engine.info

    async def answer(self, ask: Ask) -> Answer | Refusal:
        try:
            return await self._batcher.submit(ask)
        except InvalidInput as error:
            return Refusal(str(error), error.param)

    async def look(self, look: Look) -> np.ndarray:
        return await self._looks.submit(look)


class RayModel:
    """The model behind a deployment handle; Ray's failures become the service's own."""

    def __init__(self, handle: DeploymentHandle, timeout_s: float):
        self._info = handle.info  # cached: each new handle brings its own metrics pusher
        self._answer = handle.answer
        self._look = handle.look
        self._timeout_s = timeout_s

    async def info(self) -> ModelInfo:
        known: ModelInfo = await _translated(self._info.remote())
        return known

    async def answer(self, ask: Ask) -> Answer:
        try:
            async with asyncio.timeout(self._timeout_s):
                reply: Answer | Refusal = await _translated(self._answer.remote(ask))
        except TimeoutError:
            raise ModelTimeout(f"no answer within {self._timeout_s:g} s") from None
        if isinstance(reply, Refusal):
            raise InvalidInput(reply.message, reply.param)
        return reply

    async def look(self, sample: Sample) -> np.ndarray:
        """What the tower sees of a sample's picture, in numbers (G,); the replica keeps its visual tokens."""
        look = Look(await asyncio.to_thread(pixels_of, sample), sample.image_sha256)
        async with asyncio.timeout(self._timeout_s):
            seen: np.ndarray = await _translated(self._look.remote(look))
        return seen


@serve.ingress()
class Ingress:
    """Speaks HTTP, decodes the picture and decides its granularity in process; one hop to the model."""

    async def __init__(self, settings: Settings, handle: DeploymentHandle):  # type: ignore[misc]  # Ray awaits it
        model = RayModel(handle, settings.answer_timeout_s)
        info = await model.info()
        artifact = load_artifact(settings.artifact, model=info.model_id, ladder=info.ladder)
        cache = DecisionCache(settings.redis_url, settings.cache_ttl_s, settings.cache_entries)
        router = Router(artifact, cache, settings.price, settings.second_look, model.look)
        self._service = Service(router, model, info, settings)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._service)


async def _translated(reply: Any) -> Any:
    """Await a handle's reply, turning Ray's failures into the service's own."""
    try:
        return await reply
    except BackPressureError:
        raise ModelOverloaded("too many requests wait for the model; try again") from None
    except RayTaskError:  # the replica is there, and its code broke
        raise
    except (RayError, RayServeException) as error:
        logger.warning("the model can't be reached: %s", type(error).__name__)
        raise ModelUnavailable("the model is restarting or gone; try again") from None


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "cuda" if ray.get_runtime_context().get_accelerator_ids().get("GPU") else "cpu"
