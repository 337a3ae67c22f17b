"""The Ray Serve application: `serving.app:build`, which ray_app.yaml names.

No `from __future__ import annotations` in this file: Ray reads the builder's annotation, and would hand it a dict.
"""

from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from serving.replica import Ingress, M3Replica
from serving.settings import Settings

COMMON: dict[str, Any] = {
    "ray_actor_options": {"num_cpus": 0},  # a machine with one core holds everything; `threads` bounds the model
    "max_constructor_retry_count": 1,  # a folder that doesn't load won't load the second time
    "health_check_period_s": 5,
    "health_check_timeout_s": 10,  # three in a row have a replica replaced; its event loop is never busy for long
    "graceful_shutdown_wait_loop_s": 0.1,
    "graceful_shutdown_timeout_s": 5,
}


AFFINITY = RequestRouterConfig.model_validate({"request_router_class": "serving.affinity:PictureAffinity"})


def build(settings: Settings) -> Application:
    """An ingress that routes in process, and the model behind it; ray_app.yaml may override the options."""
    pools = {
        most: serve.deployment(
            name=name,
            # The engine sorts out who goes first, so it should know of many; what doesn't fit is refused with 429.
            max_ongoing_requests=128,
            max_queued_requests=128,  # counts requests on their way to a free replica too: a low number refuses bursts
            request_router_config=AFFINITY,
            **COMMON,
        )(M3Replica).bind(settings)
        for name, most in settings.pools.items()
    }
    ingress = serve.deployment(
        name="Ingress",
        # Above what the model accepts, 128 + 128, so that it is the model's limit that refuses, in OpenAI's shape.
        max_ongoing_requests=384,
        max_queued_requests=384,
        backpressure_config={"status_code": 429, "retry_after_s": 1},
        **COMMON,
    )
    return ingress(Ingress).bind(settings, pools)
