"""The M3 model: everything about it, and nothing of Ray, HTTP or Redis."""

from serving.m3.decode import Generation
from serving.m3.formats import multiple_choice, short_answer
from serving.m3.generate import GenerateRequest
from serving.m3.inputs import InputRow
from serving.m3.m3 import M3, M3_TINY, load
from serving.m3.model import Encoded
from serving.m3.pool import ladder_of, pool
from serving.m3.rows import NewRow, Said
from serving.m3.sampling import Sampling
from serving.m3.score import Score, ScoreRequest

__all__ = [
    "M3",
    "M3_TINY",
    "Encoded",
    "GenerateRequest",
    "Generation",
    "InputRow",
    "NewRow",
    "Said",
    "Sampling",
    "Score",
    "ScoreRequest",
    "ladder_of",
    "load",
    "multiple_choice",
    "pool",
    "short_answer",
]
