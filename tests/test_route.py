"""The router: one decision per sample, remembered, shared, and never lost to a broken helper."""

import asyncio
import io
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from label_world import LADDER
from PIL import Image
from redis_process import RedisProcess

from complexity.errors import ArtifactError, InvalidInput, OffLadder
from complexity.familiarity import Familiarity
from complexity.features import FEATURE_VERSIONS
from complexity.image_features import IMAGE_FEATURE_NAMES
from complexity.sample import Sample
from router.artifact import Artifact
from router.cache import DecisionCache
from router.cascade import SecondLook
from router.certify import Certificate
from router.route import Router

FEATURES = len(IMAGE_FEATURE_NAMES)
ANYTHING = Familiarity(np.zeros(FEATURES), np.ones(FEATURES), np.eye(FEATURES), frozenset(), np.inf, np.inf)
COARSE, FINE = (0.9, 0.9, 0.9, 0.9, 0.9), (0.1, 0.2, 0.3, 0.4, 0.9)


@dataclass
class FakePredictor:
    """Sure of every scale when the question is about colour, else of the finest only; remembers its calls."""

    slow_s: float = 0.0
    fails: Exception | None = None
    answer: Sequence[float] | None = None
    threads: list[int] = field(default_factory=list)

    def predict_proba(self, image_features: np.ndarray, questions: Sequence[str]) -> np.ndarray:
        self.threads.append(threading.get_ident())
        time.sleep(self.slow_s)
        if self.fails:
            raise self.fails
        return np.array([self.answer or (COARSE if "color" in question else FINE) for question in questions])


def artifact_of(predictor: FakePredictor, digest: str = "digest") -> Artifact:
    return Artifact(
        predictor=predictor,  # type: ignore[arg-type]
        ladder=LADDER,
        price=0.0001,
        costs=LADDER,
        cost_unit="tokens",
        target="--max-loss 0.01",
        certificate=Certificate(0.05, 0.9, 0.0001, 100, 1, "0" * 64),
        familiarity=ANYTHING,
        second_look=None,
        place="light",
        feature_version=FEATURE_VERSIONS["light"],
        model="m3-made-up",
        sweep_version="made-up-1",
        labels_sha256="0" * 64,
        seed=0,
        created_at="2026-11-22T12:00:00+00:00",
        metrics={},
        curve=(),
        digest=digest,
    )


STRANGE = replace(ANYTHING, question_limit=-1.0)  # nothing is familiar


def router_of(predictor: FakePredictor, cache: DecisionCache | None = None, price: float | None = None) -> Router:
    return Router(artifact_of(predictor), cache or DecisionCache(None), price)


def sample(question: str = "What is written?", colour: str = "red") -> Sample:
    data = io.BytesIO()
    Image.new("RGB", (20, 20), colour).save(data, "PNG")
    return Sample(data.getvalue(), question)


async def test_the_decision_follows_the_prediction_and_the_price():
    """Coarse questions get few tokens, fine ones many; a high price gives few to all; the decision tells all."""
    router = router_of(FakePredictor())
    coarse, fine = await router.route(sample("What color is it?")), await router.route(sample())
    assert (coarse.tokens, fine.tokens) == (1, 576) and fine.why == "predicted"
    assert fine.probabilities == pytest.approx(FINE) and fine.ladder == LADDER
    assert (fine.price, fine.artifact) == (0.0001, "digest") and fine.latency_ms > 0
    assert (await router_of(FakePredictor(), price=1.0).route(sample())).tokens == 1


async def test_a_second_identical_request_is_remembered():
    """The same bytes and question are predicted once; another question or picture is predicted."""
    predictor = FakePredictor()
    router = router_of(predictor)
    first, second = await router.route(sample()), await router.route(sample())
    assert (first.why, second.why) == ("predicted", "cached")
    assert second.tokens == first.tokens and second.probabilities == first.probabilities
    assert (await router.route(sample("Which?"))).why == (await router.route(sample(colour="blue"))).why == "predicted"
    assert len(predictor.threads) == 3


async def test_another_price_reads_the_same_memory():
    """What is remembered are probabilities, so that a router with another price needs no new prediction."""
    cache, predictor = DecisionCache(None), FakePredictor()
    dear, cheap = router_of(predictor, cache, price=0.5), router_of(predictor, cache, price=0.0)
    assert (await dear.route(sample())).tokens == 1
    decision = await cheap.route(sample())
    assert (decision.tokens, decision.why) == (576, "cached") and len(predictor.threads) == 1


async def test_another_artifact_does_not_read_it():
    """A new artifact predicts anew."""
    cache, predictor = DecisionCache(None), FakePredictor()
    await Router(artifact_of(predictor, "old"), cache).route(sample())
    assert (await Router(artifact_of(predictor, "new"), cache).route(sample())).why == "predicted"


async def test_requests_at_the_same_time_share_one_prediction():
    """Ten identical requests at once cost one prediction."""
    predictor = FakePredictor(slow_s=0.05)
    router = router_of(predictor)
    decisions = await asyncio.gather(*(router.route(sample()) for _ in range(10)))
    assert {decision.tokens for decision in decisions} == {576} and len(predictor.threads) == 1


async def test_a_request_that_goes_away_takes_no_other_along():
    """When the first of two identical requests is cancelled, the second still gets its decision."""
    predictor = FakePredictor(slow_s=0.1)
    router = router_of(predictor)
    first, second = (asyncio.create_task(router.route(sample())) for _ in range(2))
    await asyncio.sleep(0.02)
    first.cancel()
    assert (await second).tokens == 576 and len(predictor.threads) == 1


async def test_the_event_loop_goes_on_meanwhile():
    """Prediction runs in another thread than the event loop."""
    predictor = FakePredictor()
    await router_of(predictor).route(sample())
    assert predictor.threads[0] != threading.get_ident()


@pytest.mark.parametrize(
    "predictor",
    [
        FakePredictor(fails=RuntimeError("broken")),
        FakePredictor(answer=(float("nan"),) * 5),
        FakePredictor(answer=(0.5, 0.5)),
        FakePredictor(answer=(0.5, 0.5, 0.5, 0.5, 1.5)),
    ],
)
async def test_without_a_prediction_the_finest_scale_answers(
    predictor: FakePredictor, caplog: pytest.LogCaptureFixture
):
    """A predictor that raises or talks nonsense costs tokens, not the answer; it is logged once and not remembered."""
    router = router_of(predictor)
    with caplog.at_level(logging.ERROR, logger="router.route"):
        decisions = [await router.route(sample()) for _ in range(3)]
    assert [(d.tokens, d.why, d.probabilities) for d in decisions] == [(576, "fallback", None)] * 3
    assert len(caplog.records) == 1 and len(predictor.threads) == 3
    predictor.fails, predictor.answer = None, None
    assert (await router.route(sample())).why == "predicted"


async def test_a_bad_picture_is_the_callers_mistake():
    """Bytes that are no picture raise, each time, and don't count as a failed prediction."""
    router = router_of(FakePredictor())
    for _ in range(2):
        with pytest.raises(InvalidInput, match="not a picture"):
            await router.route(Sample(b"no picture", "What is it?"))


def test_a_forced_decision_asks_nobody():
    """The caller's number is taken if it is a rung, and refused with the ladder if not."""
    predictor = FakePredictor()
    router = router_of(predictor)
    decision = router.forced(36)
    assert (decision.tokens, decision.why, decision.probabilities) == (36, "forced", None) and not predictor.threads
    with pytest.raises(OffLadder, match="100 visual tokens .* 1, 9, 36, 144, 576"):
        router.forced(100)


def test_a_senseless_price_is_refused():
    """A negative price doesn't start a router."""
    with pytest.raises(InvalidInput, match="price"):
        router_of(FakePredictor(), price=-1.5)


@pytest.mark.redis
async def test_two_processes_share_decisions_and_outlive_redis(redis_server: RedisProcess):
    """What one router predicts another reads from Redis; when Redis dies both go on predicting."""
    caches = [DecisionCache(redis_server.url, timeout_ms=10_000) for _ in range(2)]
    one, other = (router_of(FakePredictor(), cache) for cache in caches)
    assert (await one.route(sample())).why == "predicted"
    await caches[0].flush()
    assert (await other.route(sample())).why == "cached" and caches[1].stats.hits_redis == 1
    redis_server.kill()
    assert [(await router.route(sample("Which?"))).why for router in (one, other)] == ["predicted"] * 2
    for cache in caches:
        await cache.close()


async def test_what_is_unlike_the_training_data_gets_the_finest_scale():
    """A strange sample's probabilities are told and not trusted, also when they come from memory."""
    predictor = FakePredictor()
    artifact = replace(artifact_of(predictor), familiarity=STRANGE)
    router = Router(artifact, DecisionCache(None))
    for _ in range(2):
        decision = await router.route(sample("What color is it?"))
        assert (decision.tokens, decision.why) == (576, "unfamiliar")
        assert decision.probabilities == pytest.approx(COARSE)
    assert len(predictor.threads) == 1
    assert (await router.route(sample("What color is it?"), ceiling=36)).tokens == 36


async def test_a_request_bounds_its_own_scale():
    """Floor and ceiling hold for what is predicted, remembered and fallen back to; nonsense is refused at once."""
    predictor = FakePredictor()
    router = router_of(predictor)
    assert (await router.route(sample("What color is it?"), floor=9)).tokens == 9
    assert (await router.route(sample(), ceiling=144)).tokens == 144
    remembered = await router.route(sample(), floor=9, ceiling=36)
    assert (remembered.tokens, remembered.why) == (36, "cached")
    predictor.fails = RuntimeError("broken")
    fallen = await router.route(sample("Another?"), ceiling=9)
    assert (fallen.tokens, fallen.why) == (9, "fallback")
    with pytest.raises(OffLadder, match="100"):
        await router.route(sample(), floor=100)
    with pytest.raises(InvalidInput, match="above the ceiling"):
        await router.route(sample(), floor=36, ceiling=9)


async def test_an_unsure_answer_asks_for_a_finer_scale():
    """With second looks first answers take fewer tokens; a doubtful one is followed by a finer, a sure one isn't."""
    weights = np.zeros((5, 5, 4))
    weights[..., 0], weights[..., 3] = 3.0, 4.0  # certainty alone tells whether a scale is right ...
    weights[np.triu_indices(5, 1)] = [2.0, 0, 0, 0]  # ... and finer ones are right in 88%
    predictor = FakePredictor(answer=(0.5, 0.53, 0.55, 0.56, 0.57))
    artifact = replace(artifact_of(predictor), second_look=SecondLook(weights), price=0.003)
    once, twice = Router(artifact, DecisionCache(None)), Router(artifact, DecisionCache(None), second_look=True)
    assert ((await once.route(sample())).tokens, (await twice.route(sample())).tokens) == (9, 1)
    first = await twice.route(sample())
    assert twice.again(first, -0.01) is None and once.again(first, -2.0) is None
    better = twice.again(first, -2.0)
    assert better is not None and (better.tokens, better.why) == (9, "unsure") and len(better.probabilities or ()) == 5
    assert twice.again(first, -2.0, ceiling=1) is None
    assert twice.again(twice.forced(1), -2.0) is None
    with pytest.raises(ArtifactError, match="no second look"):
        Router(artifact_of(predictor), DecisionCache(None), second_look=True)


async def test_a_router_after_the_tower_asks_the_model_what_it_sees():
    """The picture isn't described here; a model that doesn't answer costs tokens and no request."""
    predictor, looked = FakePredictor(), []

    async def look(asked: Sample) -> np.ndarray:
        looked.append(asked)
        if "broken" in asked.question:
            raise RuntimeError("no replica")
        return np.ones(FEATURES, np.float32)

    artifact = replace(artifact_of(predictor), place="tower")
    router = Router(artifact, DecisionCache(None), look=look)
    first, second = await router.route(sample()), await router.route(sample())
    assert (first.tokens, first.why, second.why, len(looked)) == (576, "predicted", "cached", 1)
    assert (await router.route(sample("Is it broken?"))).why == "fallback"
    with pytest.raises(ArtifactError, match="tower"):
        Router(artifact, DecisionCache(None))
