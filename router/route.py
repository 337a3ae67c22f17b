"""A sample in, a decision out: cache, features, prediction, policy."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np

from complexity.errors import ArtifactError, InvalidInput, OffLadder
from complexity.sample import Sample
from router.artifact import Artifact
from router.cache import DecisionCache, cache_key
from router.calibrate import Target, pick_price
from router.cascade import FIRST_PRICE
from router.explain import Explanation
from router.policy import FINEST_ALWAYS, FREE, Decision, Why, Wish, check_bounds, check_price, choose
from router.predict import Look, SamplePredictor, Span, untraced


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
        threads: where is computed; None takes the event loop's own pool.
        span: measures "cache", "features" and "predict".

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
        threads: Executor | None = None,
        span: Span = untraced,
    ):
        self._predictor = SamplePredictor(artifact, look, threads, span)
        if second_look and artifact.second_look is None:
            raise ArtifactError("the artifact has learnt no second look: its labels didn't say how sure answers were")
        self._second_look = artifact.second_look if second_look else None
        self.artifact = artifact
        self.price = artifact.price if price is None else price
        check_price(self.price)
        self._cache = cache
        self._span = span
        # One prediction serves all who wait for it. The key says too whether it is going to be remembered.
        self._flying: dict[tuple[str, bool], asyncio.Task[np.ndarray | None]] = {}

    def apart(self, threads: Executor) -> "Router":
        """The same router, computing in threads of its own, and not measured."""
        return Router(
            self.artifact, self._cache, self.price, self._second_look is not None, self._predictor.look, threads
        )

    async def route(self, sample: Sample, wish: Wish = FREE) -> Decision:
        """Choose a scale for a sample.

        Raises:
            InvalidInput: the sample's bytes are not an acceptable picture, the floor is above the ceiling, or price
                and max_loss are senseless or both given.
            OffLadder: floor or ceiling isn't a rung.
        """
        start = time.perf_counter()
        wish = self._priced(wish)
        key = self._key(sample)
        remembered = None
        if not wish.fresh:
            with self._span("cache"):
                remembered = await self._cache.get(key)
        if remembered is not None and self._predictor.plausible(remembered):
            return self._decide(remembered, "cached", wish, start)
        return self._decide(await self._predict_once(key, sample, wish.store), "predicted", wish, start)

    async def route_many(self, samples: Sequence[Sample], wish: Wish = FREE) -> list[Decision | InvalidInput]:
        """Choose scales for many samples: one question to the cache, and one call of the predictor for the rest.

        Args:
            samples: their pictures stay decoded for as long as they live; the same one twice is predicted once.
            wish: for all samples.

        Returns:
            In the samples' order what `route` would have returned or, for a sample whose picture isn't acceptable,
            raised. `latency_ms` is the whole batch's.

        Raises:
            InvalidInput, OffLadder: as `route`, for what is asked of all samples.
        """
        start = time.perf_counter()
        wish = self._priced(wish)
        keys = await self._predictor.aside(lambda: [self._key(sample) for sample in samples])  # megabytes are hashed
        known = {}
        if not wish.fresh:
            with self._span("cache"):
                known = await self._cache.get_many(keys)
        known = {key: remembered for key, remembered in known.items() if self._predictor.plausible(remembered)}
        missing = {key: sample for key, sample in zip(keys, samples, strict=True) if key not in known}
        found = dict(zip(missing, await self._predictor.predict(list(missing.values())), strict=True))
        if wish.store:
            await self._cache.put_many({key: new for key, new in found.items() if isinstance(new, np.ndarray)})

        def decided(key: str) -> Decision | InvalidInput:
            if key in known:
                return self._decide(known[key], "cached", wish, start)
            new = found[key]
            return new if isinstance(new, InvalidInput) else self._decide(new, "predicted", wish, start)

        return [decided(key) for key in keys]

    async def explain(self, sample: Sample, decision: Decision) -> Explanation | None:
        """What a decision of this artifact was made of; None where the prediction fails now.

        Raises:
            InvalidInput: the sample's bytes are not an acceptable picture.
        """
        return await self._predictor.explain(sample, decision)

    def price_for(self, max_loss: float) -> float:
        """The price that loses at most so much accuracy against the finest scale, on the artifact's calibration split.

        Raises:
            ArtifactError: the artifact has no curve to read it from.
            InvalidInput: a loss that isn't in [0, 1).
        """
        curve = self.artifact.curve
        if not curve:
            raise ArtifactError("the artifact has no curve, which tells the price of a loss")
        return pick_price(curve, curve[0].accuracy, Target(max_loss=max_loss)).price  # it begins at the finest

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
        price = decision.price / FIRST_PRICE if decision.price > 0 else decision.price  # the request may have its own
        tokens = int(choose(chances, ladder[first:], price, whole, ceiling=ceiling))
        if tokens == decision.tokens:
            return None
        return replace(
            decision,
            tokens=tokens,
            why="unsure",
            price=price,
            probabilities=tuple(before[0, :first].tolist()) + tuple(chances.tolist()),
        )

    def forced(self, tokens: int) -> Decision:
        """The decision when the caller named the number of tokens.

        Raises:
            OffLadder: it isn't a rung of the ladder.
        """
        if tokens not in self.artifact.ladder:
            raise OffLadder(tokens, self.artifact.ladder)
        return Decision(tokens, self.artifact.ladder, None, "forced", self.price, self.artifact.digest, 0.0)

    def _priced(self, wish: Wish) -> Wish:
        """The wish with the price that it comes to; raises as `route` does."""
        check_bounds(self.artifact.ladder, wish.floor, wish.ceiling)
        price = self.price if wish.price is None else wish.price
        if wish.max_loss is not None:
            if wish.price is not None:
                raise InvalidInput("price and max_loss say the same; give one of them", "price")
            price = self.price_for(wish.max_loss)
        check_price(price)
        if self._second_look is not None and price > 0:
            price *= FIRST_PRICE
        return replace(wish, price=price)

    def _key(self, sample: Sample) -> str:
        return cache_key(self.artifact.digest, sample.image_sha256, sample.question_sha256)

    def _decide(self, predicted: np.ndarray | None, why: Why, wish: Wish, start: float) -> Decision:
        artifact, price = self.artifact, self.price if wish.price is None else wish.price
        if predicted is None:
            probabilities, price, why = np.ones(len(artifact.ladder)), FINEST_ALWAYS, "fallback"
        else:
            probabilities = predicted[:-1]
            if not predicted[-1]:
                why, price = "unfamiliar", FINEST_ALWAYS
        tokens = int(choose(probabilities, artifact.ladder, price, artifact.costs, wish.floor, wish.ceiling))
        return Decision(
            tokens=tokens,
            ladder=artifact.ladder,
            probabilities=None if predicted is None else tuple(float(p) for p in probabilities),
            why=why,
            price=price,
            artifact=artifact.digest,
            latency_ms=(time.perf_counter() - start) * 1000,
        )

    async def _predict_once(self, key: str, sample: Sample, store: bool) -> np.ndarray | None:
        """Predict, once for all requests that ask the same at the same time; None when it fails.

        A request that isn't to be remembered may wait for one that is, not the other way round. Whoever asks for a
        fresh prediction may join: what flies here never comes from the cache.
        """
        task = self._flying.get((key, True)) or self._flying.get((key, store))
        if task is None:
            task = asyncio.create_task(self._predict_one(key, sample, store))
            self._flying[key, store] = task
            task.add_done_callback(lambda done: self._land((key, store), done))
        return await asyncio.shield(task)  # a request that goes away doesn't take the others' prediction along

    def _land(self, flight: tuple[str, bool], done: asyncio.Task[np.ndarray | None]) -> None:
        self._flying.pop(flight, None)
        if not done.cancelled():
            done.exception()  # looked at: a picture refused after its requests went away is no news

    async def _predict_one(self, key: str, sample: Sample, store: bool) -> np.ndarray | None:
        (predicted,) = await self._predictor.predict([sample])
        if isinstance(predicted, InvalidInput):
            raise predicted
        if store and predicted is not None:
            await self._cache.put(key, predicted)
        return predicted
