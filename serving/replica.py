"""What Ray Serve runs, as thin shells: the model's replica, and the ingress that routes in process."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
from fastapi import FastAPI
from pydantic import ValidationError
from ray import serve
from ray.serve.handle import DeploymentHandle

from complexity.errors import InvalidInput, M3Error
from router.artifact import load_artifact
from router.cache import DecisionCache
from router.drift import Drift
from router.rollout import Canary, Rollout, Shadow
from router.route import Router
from serving.accounts import Accounts
from serving.api import create_app
from serving.feedback import FeedbackStore, Records
from serving.fetch import PictureFetcher
from serving.journal import Journal
from serving.metrics import Metrics, keep_telling
from serving.model import Answer, Ask, Look, ModelInfo, ModelTimeout, Piece, Refusal
from serving.rates import RateLimiter
from serving.ray_model import RayModel
from serving.request_log import log_requests
from serving.service import Service
from serving.settings import Knob, Settings
from serving.tracing import open_tracer

logger = logging.getLogger(__name__)


class M3Replica:
    """Holds the engine."""

    def __init__(self, settings: Settings):
        import torch

        from serving.async_engine import AsyncEngine
        from serving.engine import Engine, Limits
        from serving.m3 import load

        log_with_serve()
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
        metrics = Metrics()
        telling = keep_telling(lambda: metrics.working(engine.waiting, engine.running))
        self._telling = asyncio.get_running_loop().create_task(telling)

    async def check_health(self) -> None:
        """Raises when the engine has stood still for too long over its work; Ray then replaces the replica."""
        self._engine.check()

    async def info(self) -> ModelInfo:
        return await self._engine.info()

    async def answer(self, ask: Ask) -> Answer | Refusal:
        try:
            return await self._engine.answer(ask)
        except (InvalidInput, ModelTimeout) as error:
            return refusal_of(error)

    async def stream(self, ask: Ask) -> AsyncIterator[Piece | Answer | Refusal]:
        try:
            async for told in self._engine.stream(ask):
                yield told
        except (InvalidInput, ModelTimeout) as error:
            yield refusal_of(error)

    async def look(self, look: Look) -> np.ndarray:
        return await self._engine.look(look)


@serve.ingress()
class Ingress:
    """Speaks HTTP, decodes the picture and decides its granularity in process; one hop to the model."""

    async def __init__(self, settings: Settings, pools: dict[int, DeploymentHandle]):  # type: ignore[misc]  # Ray awaits it
        self._settings = settings
        log_with_serve()
        if settings.access_log is not None:
            log_requests(settings.access_log)
        self._model = RayModel(pools, settings.answer_timeout_s)
        self._info = await self._model.info()
        self._cache = DecisionCache(settings.redis_url, settings.cache_ttl_s, settings.cache_entries)
        feedback = None
        if settings.feedback_dir is not None:
            feedback = FeedbackStore(Records(settings.redis_url), Journal(settings.feedback_dir))
        self._accounts = Accounts(self._info, Metrics(), feedback, settings.second_look)
        limited = any(key.tokens_per_minute is not None for key in settings.api_keys)
        self._tracer = open_tracer(settings.tracing)
        self._rollout = await asyncio.to_thread(self._made, Knob.model_validate({}))
        self._service = Service(
            self._rollout,
            self._model,
            self._info,
            settings,
            fetcher=_fetcher(settings),
            limiter=RateLimiter(settings.redis_url) if limited else None,
            accounts=self._accounts,
            tracer=self._tracer,
        )
        self._telling = asyncio.create_task(keep_telling(lambda: self._accounts.tell(self._cache.stats)))

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._service, names_requests=False)  # Ray does

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Change what decides in a running service: artifact, price, shadow, canary; what isn't named is as in `args`.

        A change that can't be made is logged, and what is there stays: a replica that raised here would be taken down.
        """
        try:
            rollout = await asyncio.to_thread(self._made, Knob.model_validate(user_config))
        except (M3Error, ValidationError) as error:
            logger.error("user_config refused, the router stays as it was: %s", error)
            return
        before, self._rollout, self._service.router = self._rollout, rollout, rollout
        await before.close()

    def _made(self, knob: Knob) -> Rollout:
        """What decides, by the settings and what has been changed since."""
        settings = self._settings
        serving = self._router(knob.artifact or settings.artifact, settings.price if knob.price is None else knob.price)
        shadow = None if knob.shadow is None else Shadow(self._router(knob.shadow, None), self._accounts.shadowed)
        canary = None if knob.canary is None else Canary(self._router(knob.canary, None), knob.canary_percent)
        rollout = Rollout(serving, shadow, canary)
        self._accounts.drift = None if settings.second_look else _drift(serving)  # first answers have another price
        return rollout

    def _router(self, artifact: Path, price: float | None) -> Router:
        loaded = load_artifact(artifact, model=self._info.model_id, ladder=self._info.ladder)
        second_look, look = self._settings.second_look, self._model.look
        return Router(loaded, self._cache, price, second_look, look, span=self._tracer.span)


def _drift(router: Router) -> Drift | None:
    """What tells traffic from calibration; None at another price, where the artifact knows nothing of the scales."""
    artifact = router.artifact
    if artifact.scale_shares is None or router.price != artifact.price:
        return None
    return Drift(dict(zip(artifact.ladder, artifact.scale_shares, strict=True)))


def _fetcher(settings: Settings) -> PictureFetcher | None:
    if not settings.picture_hosts:
        return None
    return PictureFetcher(settings.picture_hosts, settings.max_picture_bytes, settings.fetch_timeout_s)


def log_with_serve() -> None:
    """Have this process's warnings stand in Ray Serve's log files; nothing else shows them."""
    handlers = logging.getLogger("ray.serve").handlers
    for package in ("complexity", "router", "serving"):
        ours = logging.getLogger(package)
        ours.handlers, ours.propagate = list(handlers), False
        ours.setLevel(logging.WARNING)


def refusal_of(error: InvalidInput | ModelTimeout) -> Refusal:
    """An error as a value that crosses processes."""
    if isinstance(error, InvalidInput):
        return Refusal(str(error), error.param)
    return Refusal(str(error), None, late=True)


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "cuda" if ray.get_runtime_context().get_accelerator_ids().get("GPU") else "cpu"
