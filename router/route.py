"""A sample in, a decision out: cache, features, prediction, policy."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np

from complexity.errors import ArtifactError, InvalidInput, OffLadder
from complexity.image_features import image_features
from complexity.sample import Sample
from router.artifact import Artifact
from router.cache import DecisionCache, cache_key
from router.cascade import FIRST_PRICE
from router.policy import FINEST_ALWAYS, Decision, Why, check_bounds, check_price, choose

log = logging.getLogger(__name__)

Look = Callable[[Sample], Awaitable[np.ndarray]]


class Router:
    """Decides for each sample how many visual tokens it gets.

    What fails beside the sample itself never fails the request: without the cache it predicts, without a prediction
    it takes the finest scale. So it does for a sample unlike those that the predictor learnt from.

    Args:
        artifact: the trained router.
        cache: where probabilities are remembered.
        price: probability of a right answer per unit of the artifact's costs; None takes the artifact's own.
        second_look: whether answers may be given twice (`again`); first answers then take fewer tokens.
        look: asks the model for its tower's features of a sample's picture (G,); for an artifact that decides there.

    Raises:
        ArtifactError: a second look is wanted of an artifact that has learnt none, or it decides by the tower and
            there is no asking it.
    """

    def __init__(
        self,
        artifact: Artifact,
        cache: DecisionCache,
        price: float | None = None,
        second_look: bool = False,
        look: Look | None = None,
    ):
        if artifact.place == "tower" and look is None:
            raise ArtifactError("the artifact decides by what the model's tower sees, and that can't be asked here")
        self._look = look if artifact.place == "tower" else None
        if second_look and artifact.second_look is None:
            raise ArtifactError("the artifact has learnt no second look: its labels didn't say how sure answers were")
        self._second_look = artifact.second_look if second_look else None
        self.artifact = artifact
        self.price = artifact.price if price is None else price
        check_price(self.price)
        self._cache = cache
        self._flying: dict[str, asyncio.Task[np.ndarray | None]] = {}  # one prediction serves all who wait for it
        self._told: set[str] = set()  # causes already logged

    async def route(self, sample: Sample, floor: int | None = None, ceiling: int | None = None) -> Decision:
        """Choose a scale for a sample.

        Args:
            floor, ceiling: fewest and most tokens that may be chosen, rungs of the ladder.

        Raises:
            InvalidInput: the sample's bytes are not an acceptable picture, or the floor is above the ceiling.
            OffLadder: floor or ceiling isn't a rung.
        """
        start = time.perf_counter()
        bounds = floor, ceiling
        check_bounds(self.artifact.ladder, *bounds)
        key = cache_key(self.artifact.digest, sample.image_sha256, sample.question_sha256)
        remembered = await self._cache.get(key)
        if remembered is not None and self._plausible(remembered):
            return self._decide(remembered, "cached", bounds, start)
        predicted = await self._predict_once(key, sample)
        return self._decide(predicted, "fallback" if predicted is None else "predicted", bounds, start)

    def again(self, decision: Decision, mean_logprob: float, ceiling: int | None = None) -> Decision | None:
        """The decision to answer once more with more tokens, now that the first answer's certainty is known.

        Args:
            decision: what was answered by.
            mean_logprob: of the answer, natural log.
            ceiling: most tokens that may be chosen.

        Returns:
            None where the first answer is good enough, or second looks aren't wanted.
        """
        if self._second_look is None or decision.why not in ("predicted", "cached") or decision.probabilities is None:
            return None
        ladder, costs = self.artifact.ladder, self.artifact.costs
        first = ladder.index(decision.tokens)
        before = np.array([decision.probabilities])
        chances = self._second_look.predict(before, np.array([mean_logprob]), first)[0]
        whole = [0.0, *costs[first + 1 :]]
        tokens = int(choose(chances, ladder[first:], self.price, whole, ceiling=ceiling))
        if tokens == decision.tokens:
            return None
        return replace(decision, tokens=tokens, why="unsure", probabilities=tuple(before[0, :first]) + tuple(chances))

    def forced(self, tokens: int) -> Decision:
        """The decision when the caller named the number of tokens.

        Raises:
            OffLadder: it isn't a rung of the ladder.
        """
        if tokens not in self.artifact.ladder:
            raise OffLadder(tokens, self.artifact.ladder)
        return Decision(tokens, self.artifact.ladder, None, "forced", self.price, self.artifact.digest, 0.0)

    def _decide(
        self, predicted: np.ndarray | None, why: Why, bounds: tuple[int | None, int | None], start: float
    ) -> Decision:
        artifact, price = self.artifact, self.price
        if self._second_look is not None and price > 0:
            price *= FIRST_PRICE
        if predicted is None:
            probabilities, price = np.ones(len(artifact.ladder)), FINEST_ALWAYS
        else:
            probabilities = predicted[:-1]
            if not predicted[-1]:
                why, price = "unfamiliar", FINEST_ALWAYS
        tokens = int(choose(probabilities, artifact.ladder, price, artifact.costs, *bounds))
        return Decision(
            tokens=tokens,
            ladder=artifact.ladder,
            probabilities=None if predicted is None else tuple(float(p) for p in probabilities),
            why=why,
            price=price,
            artifact=artifact.digest,
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
            looked = None if self._look is None else await self._look(sample)
            predicted = await asyncio.to_thread(self._compute, sample, looked)
            if not self._plausible(predicted):
                raise ValueError(f"the predictor gave {predicted}")
        except InvalidInput:
            raise
        except Exception as error:  # whatever breaks here, the sample can still be answered at the finest scale
            cause = type(error).__name__
            if cause not in self._told:
                self._told.add(cause)
                log.exception("prediction failed; taking %d tokens", self.artifact.ladder[-1])
            return None
        await self._cache.put(key, predicted)
        return predicted

    def _compute(self, sample: Sample, looked: np.ndarray | None) -> np.ndarray:
        features = (image_features(sample.picture, sample.decoded.size) if looked is None else looked)[None]
        probabilities = self.artifact.predictor.predict_proba(features, [sample.question])[0]
        return np.append(probabilities, self.artifact.familiarity.knows(features, [sample.question])).astype(np.float32)

    def _plausible(self, predicted: np.ndarray) -> bool:
        """(S + 1,): P(right) at each rung, and 1 for a familiar sample or 0 for a strange one."""
        return predicted.shape == (len(self.artifact.ladder) + 1,) and bool(((predicted >= 0) & (predicted <= 1)).all())
