"""Samples in, predictions out: features and probabilities of one or many, off the event loop, come what may."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from functools import partial
from typing import TypeVar

import numpy as np

from complexity.errors import ArtifactError, InvalidInput
from complexity.sample import Sample
from router.artifact import Artifact
from router.explain import Explanation, explain
from router.policy import Decision

DESCRIBERS = 4  # threads that describe a batch's pictures at once; the pool's others are for other requests

Look = Callable[[Sample], Awaitable[np.ndarray]]
Span = Callable[[str], AbstractContextManager[object]]  # what is done inside is measured under a name
Found = TypeVar("Found")
Tried = np.ndarray | BaseException  # of a sample: numbers, or what keeps it from having any

log = logging.getLogger(__name__)

_NOTHING = nullcontext()


def untraced(name: str) -> AbstractContextManager[object]:
    """A span that nobody measures."""
    return _NOTHING


class SamplePredictor:
    """Asks an artifact about samples; whatever fails but the sample itself is logged once per cause.

    Args:
        artifact: whose predictor and familiarity are asked.
        look: asks the model for its tower's features of a sample's picture (G,); for an artifact that decides there.
        threads: where is computed; None takes the event loop's own pool.
        span: measures "features" and "predict", in the threads where they happen.

    Raises:
        ArtifactError: the artifact decides by the tower and there is no asking it.
    """

    def __init__(self, artifact: Artifact, look: Look | None, threads: Executor | None, span: Span = untraced):
        if artifact.place == "tower" and look is None:
            raise ArtifactError("the artifact decides by what the model's tower sees, and that can't be asked here")
        self.artifact = artifact
        self.look = look if artifact.place == "tower" else None
        self._threads = threads
        self._span = span
        self._told: set[str] = set()  # causes already logged

    async def predict(self, samples: Sequence[Sample]) -> list[np.ndarray | InvalidInput | None]:
        """P(right) at each rung and whether the sample is familiar, (S + 1,) each, by one call of the predictor.

        Returns:
            InvalidInput for a sample whose picture isn't acceptable; None for one whose prediction fails.
        """
        if not samples:
            return []
        found: Sequence[Tried]
        try:
            if len(samples) == 1 and self.look is None:  # a trip to another thread less
                found = await self.aside(lambda: self._compute(samples, self._features(samples)))
            else:
                described = await self._describe(samples)
                found = await self.aside(lambda: self._compute(samples, described))
        except Exception as error:  # whatever breaks here, the samples can still be answered at the finest scale
            found = [error] * len(samples)
        return [self._settled(each) for each in found]

    async def explain(self, sample: Sample, decision: Decision) -> Explanation | None:
        """What a decision was made of; None where the prediction fails now.

        Raises:
            InvalidInput: the sample's bytes are not an acceptable picture.
        """
        try:
            (features,) = await self._describe([sample])
            if isinstance(features, BaseException):
                raise features
            return await self.aside(partial(explain, self.artifact, decision, features, sample.question))
        except InvalidInput:
            raise
        except Exception as error:  # an explanation is no reason to fail a request
            self._note(error)
            return None

    async def aside(self, work: Callable[[], Found]) -> Found:
        """Compute in another thread than the event loop's, in the caller's context: its spans are the parents there."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, work)

    def plausible(self, predicted: np.ndarray) -> bool:
        """(S + 1,): P(right) at each rung, and 1 for a familiar sample or 0 for a strange one."""
        return predicted.shape == (len(self.artifact.ladder) + 1,) and bool(((predicted >= 0) & (predicted <= 1)).all())

    async def _describe(self, samples: Sequence[Sample]) -> list[Tried]:
        """The features of each sample's picture: the pixels' or, where the artifact decides there, the tower's."""
        if self.look is not None:
            with self._span("features"):
                return await asyncio.gather(*map(self.look, samples), return_exceptions=True)
        parts = min(DESCRIBERS, len(samples))
        found = await asyncio.gather(*(self.aside(partial(self._features, samples[i::parts])) for i in range(parts)))
        return [found[i % parts][i // parts] for i in range(len(samples))]

    def _features(self, samples: Sequence[Sample]) -> list[Tried]:
        """The features of each sample's picture (F,)."""
        found: list[Tried] = []
        with self._span("features"):
            for sample in samples:
                try:
                    found.append(sample.image_features)
                except Exception as error:
                    found.append(error)
        return found

    def _compute(self, samples: Sequence[Sample], described: Sequence[Tried]) -> list[Tried]:
        found = list(described)
        good = {i: each for i, each in enumerate(described) if isinstance(each, np.ndarray)}
        if not good:
            return found
        questions = [samples[i].question for i in good]
        try:
            with self._span("predict"):
                features = np.stack(list(good.values()))
                probabilities = self.artifact.predictor.predict_proba(features, questions)
                known = self.artifact.familiarity.knows(features, questions)
                predicted = np.column_stack([probabilities, known]).astype(np.float32)
        except Exception as error:
            if len(samples) == 1:
                return [error]
            # Which of them breaks it isn't known, and the others can be predicted.
            return [self._compute([one], [look])[0] for one, look in zip(samples, described, strict=True)]
        for i, row in zip(good, predicted, strict=True):
            found[i] = row
        return found

    def _settled(self, tried: Tried) -> np.ndarray | InvalidInput | None:
        if isinstance(tried, np.ndarray):
            if self.plausible(tried):
                return tried
            tried = ValueError(f"the predictor gave {tried}")
        if isinstance(tried, InvalidInput):
            return tried
        self._note(tried)
        return None

    def _note(self, error: BaseException) -> None:
        cause = type(error).__name__
        if cause not in self._told:
            self._told.add(cause)
            log.error("prediction failed; taking %d tokens", self.artifact.ladder[-1], exc_info=error)
