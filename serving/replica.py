"""What Ray Serve runs, as thin shells: the model's replica, and the ingress that routes in process."""

import asyncio
import logging
import os
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from complexity.errors import InvalidInput
from router.artifact import load_artifact
from router.cache import DecisionCache
from router.route import Router
from serving.api import Service, create_app
from serving.batcher import Batcher, BatchLimits
from serving.model import Answer, Ask, ModelInfo, ModelOverloaded, ModelTimeout, ModelUnavailable, Refusal
from serving.settings import Settings

logger = logging.getLogger(__name__)


class M3Replica:
    """Holds the model; answers asks in batches, in one worker thread."""

    def __init__(self, settings: Settings):
        import torch

        from serving.engine import Engine
        from serving.m3 import load

        torch.set_num_threads(settings.threads or os.cpu_count() or 1)  # Ray sets OMP_NUM_THREADS=1
        self._engine = Engine(load(settings.model, device=_device(settings.device)))
        self._engine.warm_up()
        limits = BatchLimits(settings.max_batch_size, settings.max_batch_tokens, settings.max_batch_wait_ms)
        self._batcher: Batcher[Ask, Answer] = Batcher(self._engine.answer, lambda ask: ask.tokens, limits)

    async def info(self) -> ModelInfo:
        return self._engine.info

    async def answer(self, ask: Ask) -> Answer | Refusal:
        try:
            return await self._batcher.submit(ask)
        except InvalidInput as error:
            return Refusal(str(error), error.param)


class RayModel:
    """The model behind a deployment handle; Ray's failures become the service's own."""

    def __init__(self, handle: DeploymentHandle, timeout_s: float):
        self._info = handle.info  # cached: each new handle brings its own metrics pusher
        self._answer = handle.answer
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


@serve.ingress()
class Ingress:
    """Speaks HTTP, decodes the picture and decides its granularity in process; one hop to the model."""

    async def __init__(self, settings: Settings, handle: DeploymentHandle):  # type: ignore[misc]  # Ray awaits it
        model = RayModel(handle, settings.answer_timeout_s)
        info = await model.info()
        artifact = load_artifact(settings.artifact, model=info.model_id, ladder=info.ladder)
        cache = DecisionCache(settings.redis_url, settings.cache_ttl_s, settings.cache_entries)
        self._service = Service(Router(artifact, cache, settings.price, settings.second_look), model, info, settings)

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
