"""The M3 model: everything about it, and nothing of Ray, HTTP or Redis."""

from serving.m3.generate import GenerateRequest, Generation
from serving.m3.m3 import M3, M3_TINY, load
from serving.m3.model import Encoded
from serving.m3.pool import ladder_of, pool
from serving.m3.score import Score, ScoreRequest

__all__ = [
    "M3",
    "M3_TINY",
    "Encoded",
    "GenerateRequest",
    "Generation",
    "Score",
    "ScoreRequest",
    "ladder_of",
    "load",
    "pool",
]
