"""The Ray Serve application: `serving.app:build`, which ray_app.yaml names.

No `from __future__ import annotations` in this file: Ray reads the builder's annotation, and would hand it a dict.
"""

from ray.serve import Application

from serving.replica import Ingress, M3Replica
from serving.settings import Settings


def build(settings: Settings) -> Application:
    """An ingress that routes in process, and the model behind it."""
    return Ingress.bind(settings, M3Replica.bind(settings))
