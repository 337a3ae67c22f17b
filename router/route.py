"""A sample in, a decision out: cache, features, prediction, policy."""

import asyncio
import logging
import time

import numpy as np

from complexity.errors import InvalidInput, OffLadder
from complexity.image_features import image_features
from complexity.sample import Sample
from router.artifact import Artifact
from router.cache import DecisionCache, cache_key
from router.policy import Decision, Why, check_price, choose

log = logging.getLogger(__name__)


class Router:
    """Decides for each sample how many visual tokens it gets.

    What fails beside the sample itself never fails the request: without the cache it predicts, without a prediction
    it takes the finest scale.

    Args:
        artifact: the trained router.
        cache: where probabilities are remembered.
        price: probability of a right answer per visual token; None takes the artifact's own.
    """

    def __init__(self, artifact: Artifact, cache: DecisionCache, price: float | None = None):
        self.artifact = artifact
        self.price = artifact.price if price is None else price
        check_price(self.price)
        self._cache = cache
        self._flying: dict[str, asyncio.Task[np.ndarray | None]] = {}  # one prediction serves all who wait for it
        self._told: set[str] = set()  # causes already logged

    async def route(self, sample: Sample) -> Decision:
        """Choose a scale for a sample.

        Raises:
            InvalidInput: the sample's bytes are not an acceptable picture.
        """
        start = time.perf_counter()
        key = cache_key(self.artifact.digest, sample.image_sha256, sample.question_sha256)
        remembered = await self._cache.get(key)
        if remembered is not None and self._plausible(remembered):
            return self._decide(remembered, "cached", start)
        probabilities = await self._predict_once(key, sample)
        return self._decide(probabilities, "fallback" if probabilities is None else "predicted", start)

    def forced(self, tokens: int) -> Decision:
        """The decision when the caller named the number of tokens.

        Raises:
            OffLadder: it isn't a rung of the ladder.
        """
        if tokens not in self.artifact.ladder:
            raise OffLadder(tokens, self.artifact.ladder)
        return Decision(tokens, self.artifact.ladder, None, "forced", self.price, self.artifact.digest, 0.0)

    def _decide(self, probabilities: np.ndarray | None, why: Why, start: float) -> Decision:
        ladder = self.artifact.ladder
        tokens = ladder[-1] if probabilities is None else int(choose(probabilities, ladder, self.price))
        return Decision(
            tokens=tokens,
            ladder=ladder,
            probabilities=None if probabilities is None else tuple(float(p) for p in probabilities),
            why=why,
            price=self.price,
            artifact=self.artifact.digest,
            latency_ms=(time.perf_counter() - start) * 1000,
        )

    async def _predict_once(self, key: str, sample: Sample) -> np.ndarray | None:
        """Predict and remember, once for all requests that ask the same at the same time; None when it fails."""
        task = self._flying.get(key)
        if task is None:
            task = asyncio.create_task(self._predict(key, sample))
            self._flying[key] = task
            task.add_done_callback(lambda done: self._land(key, done))
        return await asyncio.shield(task)  # a request that goes away doesn't take the others' prediction along

    def _land(self, key: str, done: asyncio.Task[np.ndarray | None]) -> None:
        self._flying.pop(key, None)
        if not done.cancelled():
            done.exception()  # looked at: a picture refused after its requests went away is no news

    async def _predict(self, key: str, sample: Sample) -> np.ndarray | None:
        try:
            probabilities = await asyncio.to_thread(self._compute, sample)
            if not self._plausible(probabilities):
                raise ValueError(f"the predictor gave {probabilities}")
        except InvalidInput:
            raise
        except Exception as error:  # whatever breaks here, the sample can still be answered at the finest scale
            cause = type(error).__name__
            if cause not in self._told:
                self._told.add(cause)
                log.exception("prediction failed; taking %d tokens", self.artifact.ladder[-1])
            return None
        await self._cache.put(key, probabilities)
        return probabilities

    def _compute(self, sample: Sample) -> np.ndarray:
        features = image_features(sample.picture)
        return self.artifact.predictor.predict_proba(features[None], [sample.question])[0].astype(np.float32)

    def _plausible(self, probabilities: np.ndarray) -> bool:
        return probabilities.shape == (len(self.artifact.ladder),) and bool(
            ((probabilities >= 0) & (probabilities <= 1)).all()
        )
