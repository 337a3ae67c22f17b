"""What Ray Serve runs, as thin shells: the model's replica, and the ingress that routes in process."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
from fastapi import FastAPI
from pydantic import ValidationError
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from complexity.errors import ArtifactError, InvalidInput, M3Error
from complexity.sample import Sample
from router.artifact import load_artifact
from router.cache import DecisionCache
from router.route import Router
from serving.api import Service, create_app
from serving.intake import pixels_of
from serving.model import Answer, Ask, Look, ModelInfo, ModelOverloaded, ModelTimeout, ModelUnavailable, Piece, Refusal
from serving.settings import Knob, Settings

logger = logging.getLogger(__name__)


class M3Replica:
    """Holds the engine."""

    def __init__(self, settings: Settings):
        import torch

        from serving.async_engine import AsyncEngine
        from serving.engine import Engine, Limits
        from serving.m3 import load

        torch.set_num_threads(settings.threads or os.cpu_count() or 1)  # Ray sets OMP_NUM_THREADS=1
        limits = Limits(
            settings.max_answers,
            settings.max_table_tokens,
            settings.max_prompt_tokens,
            settings.max_pictures,
            settings.feature_memory_mb * 2**20,
        )
        m3 = load(settings.model, device=_device(settings.device))
        if settings.engine == "vllm":
            from serving.vllm_engine import VllmM3

            m3 = VllmM3(m3, **settings.vllm)
        engine = Engine(m3, limits)
        engine.warm_up()
        self._engine = AsyncEngine(engine)

    async def info(self) -> ModelInfo:
        return await self._engine.info()

    async def answer(self, ask: Ask) -> Answer | Refusal:
        try:
            return await self._engine.answer(ask)
        except InvalidInput as error:
            return Refusal(str(error), error.param)

    async def stream(self, ask: Ask) -> AsyncIterator[Piece | Answer | Refusal]:
        try:
            async for told in self._engine.stream(ask):
                yield told
        except InvalidInput as error:
            yield Refusal(str(error), error.param)

    async def look(self, look: Look) -> np.ndarray:
        return await self._engine.look(look)


class RayModel:
    """The model behind deployment handles; Ray's failures become the service's own.

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
        told: list[ModelInfo] = [await _translated(handle.info.remote()) for _, handle in self._pools]
        if self._pools[-1][0] < told[0].ladder[-1]:
            raise ArtifactError(f"no pool takes {told[0].ladder[-1]} tokens, the model's finest scale")
        return told[0]

    async def answer(self, ask: Ask) -> Answer:
        try:
            async with asyncio.timeout(self._timeout_s):
                reply: Answer | Refusal = await _translated(self._near(ask).answer.remote(ask))
        except TimeoutError:
            raise ModelTimeout(f"no answer within {self._timeout_s:g} s") from None
        if isinstance(reply, Refusal):
            raise InvalidInput(reply.message, reply.param)
        return reply

    async def stream(self, ask: Ask) -> AsyncIterator[Piece | Answer]:
        told: Any = self._near(ask, stream=True).stream.remote(ask)
        deadline_s = time.monotonic() + self._timeout_s
        try:
            while True:  # no asyncio.timeout around it: the server may go on with a stream in another task
                reply: Piece | Answer | Refusal = await asyncio.wait_for(
                    _translated(anext(told)), deadline_s - time.monotonic()
                )
                if isinstance(reply, Refusal):
                    raise InvalidInput(reply.message, reply.param)
                yield reply
                if isinstance(reply, Answer):
                    return
        except TimeoutError:
            raise ModelTimeout(f"no whole answer within {self._timeout_s:g} s") from None
        finally:
            told.cancel()  # frees its place where it isn't complete

    async def look(self, sample: Sample) -> np.ndarray:
        """What the tower sees of a sample's picture, in numbers (G,); the replica keeps its visual tokens."""
        look = Look(await asyncio.to_thread(pixels_of, sample), sample.image_sha256)
        async with asyncio.timeout(self._timeout_s):
            seen: np.ndarray = await _translated(self._near(look).look.remote(look))
        return seen

    def _near(self, asked: Ask | Look, stream: bool = False) -> DeploymentHandle:
        """The pool for so many tokens; the replica in it that has the picture is found by the session."""
        tokens = asked.tokens if isinstance(asked, Ask) else 0
        handle = next(handle for most, handle in self._pools if tokens <= most)
        return handle.options(session_id=asked.picture, stream=stream)


@serve.ingress()
class Ingress:
    """Speaks HTTP, decodes the picture and decides its granularity in process; one hop to the model."""

    async def __init__(self, settings: Settings, pools: dict[int, DeploymentHandle]):  # type: ignore[misc]  # Ray awaits it
        self._settings = settings
        self._model = RayModel(pools, settings.answer_timeout_s)
        self._info = await self._model.info()
        self._cache = DecisionCache(settings.redis_url, settings.cache_ttl_s, settings.cache_entries)
        self._service = Service(self._router(settings.artifact, settings.price), self._model, self._info, settings)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._service)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Change the router of a running service: `artifact`, `price`, or both; what isn't named is as in `args`.

        A change that can't be made is logged, and the router that is there stays: a replica that raised here would be
        taken down.
        """
        try:
            knob = Knob.model_validate(user_config)
            artifact = knob.artifact or self._settings.artifact
            price = self._settings.price if knob.price is None else knob.price
            router = await asyncio.to_thread(self._router, artifact, price)
        except (M3Error, ValidationError) as error:
            logger.error("user_config refused, the router stays as it was: %s", error)
            return
        self._service.router = router

    def _router(self, artifact: Path, price: float | None) -> Router:
        loaded = load_artifact(artifact, model=self._info.model_id, ladder=self._info.ladder)
        return Router(loaded, self._cache, price, self._settings.second_look, self._model.look)


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
