"""The router: one decision per sample, remembered, shared, and never lost to a broken helper."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from label_world import LADDER, write_world
from redis_process import RedisProcess
from routers import COARSE, FEATURES, FINE, STRANGE, FakePredictor, artifact_of, router_of, sample

from complexity.errors import ArtifactError, InvalidInput, OffLadder
from complexity.labels import read_labels
from complexity.predictor import ComplexityPredictor, FitOptions
from complexity.sample import Sample
from router.cache import DecisionCache
from router.calibrate import CurvePoint
from router.cascade import SecondLook
from router.policy import Decision, Wish
from router.route import Router


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
    with caplog.at_level(logging.ERROR, logger="router.predict"):
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
    assert (await router.route(sample("What color is it?"), Wish(ceiling=36))).tokens == 36


async def test_a_request_bounds_its_own_scale():
    """Floor and ceiling hold for what is predicted, remembered and fallen back to; nonsense is refused at once."""
    predictor = FakePredictor()
    router = router_of(predictor)
    assert (await router.route(sample("What color is it?"), Wish(floor=9))).tokens == 9
    assert (await router.route(sample(), Wish(ceiling=144))).tokens == 144
    remembered = await router.route(sample(), Wish(floor=9, ceiling=36))
    assert (remembered.tokens, remembered.why) == (36, "cached")
    predictor.fails = RuntimeError("broken")
    fallen = await router.route(sample("Another?"), Wish(ceiling=9))
    assert (fallen.tokens, fallen.why) == (9, "fallback")
    with pytest.raises(OffLadder, match="100"):
        await router.route(sample(), Wish(floor=100))
    with pytest.raises(InvalidInput, match="above the ceiling"):
        await router.route(sample(), Wish(floor=36, ceiling=9))


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


async def test_a_request_has_its_own_price():
    """A request's price takes the router's place for it alone, and a senseless one is refused."""
    router = router_of(FakePredictor())
    dear, usual, finest = [await router.route(sample(), Wish(price=price)) for price in (1.0, None, -1.0)]
    assert [(d.tokens, d.price) for d in (dear, usual, finest)] == [(1, 1.0), (576, 0.0001), (576, -1.0)]
    for price in (-2.0, float("nan")):
        with pytest.raises(InvalidInput, match="price"):
            await router.route(sample(), Wish(price=price))


CURVE = (  # loses nothing, one point and five points
    CurvePoint(-1.0, 0.80, 576, 576),
    CurvePoint(1e-4, 0.79, 100, 100),
    CurvePoint(0.7, 0.75, 1, 1),
)


async def test_a_request_says_what_it_may_lose():
    """The loss is exchanged for the dearest price that keeps it on the artifact's curve; a price besides is refused."""
    router = Router(replace(artifact_of(FakePredictor()), curve=CURVE), DecisionCache(None))
    assert [router.price_for(loss) for loss in (0.0, 0.009, 0.01, 0.2)] == [-1.0, -1.0, 1e-4, 0.7]
    decisions = [await router.route(sample(), Wish(max_loss=loss)) for loss in (0.0, 0.01, 0.2)]
    assert [(d.tokens, d.price) for d in decisions] == [(576, -1.0), (576, 1e-4), (1, 0.7)]
    with pytest.raises(InvalidInput, match="one of them"):
        await router.route(sample(), Wish(max_loss=0.1, price=0.1))
    with pytest.raises(InvalidInput, match="1.5"):
        await router.route(sample(), Wish(max_loss=1.5))
    with pytest.raises(ArtifactError, match="no curve"):
        await router_of(FakePredictor()).route(sample(), Wish(max_loss=0.1))


async def test_a_second_look_pays_the_requests_own_price():
    """What the first answer of a request paid for, its second answer pays too: a dear one isn't looked at again."""
    weights = np.zeros((5, 5, 4))
    weights[..., 0], weights[..., 3] = 3.0, 4.0
    weights[np.triu_indices(5, 1)] = [2.0, 0, 0, 0]
    artifact = replace(
        artifact_of(FakePredictor(answer=(0.5, 0.53, 0.55, 0.56, 0.57))), second_look=SecondLook(weights)
    )
    router = Router(artifact, DecisionCache(None), price=0.003, second_look=True)
    usual, dear = await router.route(sample()), await router.route(sample(), Wish(price=0.1))
    better = router.again(usual, -2.0)
    assert better is not None and (better.tokens, better.price) == (9, 0.003)
    assert router.again(dear, -2.0) is None


async def test_a_fresh_request_is_predicted_whatever_is_remembered():
    """With `fresh` the predictor is asked again, and what it says now is remembered in place of what it said."""
    predictor = FakePredictor()
    router = router_of(predictor)
    await router.route(sample())
    predictor.answer = COARSE
    assert (await router.route(sample())).tokens == 576
    fresh = await router.route(sample(), Wish(fresh=True))
    assert (fresh.tokens, fresh.why, len(predictor.threads)) == (1, "predicted", 2)
    after = await router.route(sample())
    assert (after.tokens, after.why) == (1, "cached")


async def test_a_request_that_is_not_to_be_remembered_leaves_nothing():
    """With `store=False` the next request predicts; what was remembered before is still read."""
    predictor = FakePredictor()
    router = router_of(predictor)
    assert [(await router.route(sample(), Wish(store=False))).why for _ in range(2)] == ["predicted"] * 2
    await router.route(sample())
    assert (await router.route(sample(), Wish(store=False))).why == "cached"


async def test_a_prediction_under_way_serves_the_fresh_too():
    """What flies never comes from the cache, so that a fresh request joins it."""
    predictor = FakePredictor(slow_s=0.1)
    router = router_of(predictor)
    decisions = await asyncio.gather(*(router.route(sample(), Wish(fresh=fresh)) for fresh in (False, True, True)))
    assert [d.why for d in decisions] == ["predicted"] * 3 and len(predictor.threads) == 1


@pytest.mark.parametrize(("first", "second", "predictions"), [(True, False, 1), (False, True, 2), (False, False, 1)])
async def test_a_prediction_under_way_is_remembered_for_whoever_wants_it(first: bool, second: bool, predictions: int):
    """One that isn't to be remembered may wait for one that is; one that is waits for none that isn't."""
    predictor = FakePredictor(slow_s=0.1)
    router = router_of(predictor)
    await asyncio.gather(*(router.route(sample(), Wish(store=store)) for store in (first, second)))
    assert len(predictor.threads) == predictions
    assert (await router.route(sample())).why == ("cached" if first or second else "predicted")


@pytest.mark.redis
async def test_no_cache_and_no_store_hold_for_redis(redis_server: RedisProcess):
    """`fresh` reads nothing from Redis and writes; `store=False` reads and writes nothing."""
    cache = DecisionCache(redis_server.url, timeout_ms=10_000)
    router = router_of(FakePredictor(), cache)

    async def commands(fresh: bool, store: bool) -> tuple[int, int]:
        with redis.Redis.from_url(redis_server.url) as client:
            client.config_resetstat()
            await router.route(sample("Which?" if store else "Who?"), Wish(fresh=fresh, store=store))
            await cache.flush()
            told = client.info("commandstats")
            return tuple(told.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("get", "set"))

    assert await commands(fresh=False, store=False) == (1, 0)
    assert await commands(fresh=True, store=False) == (0, 0)
    assert await commands(fresh=True, store=True) == (0, 1)
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.dbsize() == 1
    await cache.close()


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> ComplexityPredictor:
    """A predictor of the made-up world."""
    rows = read_labels(write_world(tmp_path_factory.mktemp("labels"), pictures=150, split="train"))
    options = FitOptions(rounds=20, threads=1)
    return ComplexityPredictor.fit(
        rows.image_features, rows.question, rows.score, rows.image_sha256, rows.ladder, options
    )


def told(decision: Decision | InvalidInput) -> object:
    """What of a decision is the same however often it is made."""
    if isinstance(decision, InvalidInput):
        return str(decision)
    return decision.tokens, decision.probabilities, decision.price, decision.artifact, decision.why == "fallback"


async def one_by_one(router: Router, samples: Sequence[Sample], **wishes: float | None) -> list[object]:
    decisions: list[Decision | InvalidInput] = []
    for each in samples:
        try:
            decisions.append(await router.route(each, Wish(**wishes)))  # type: ignore[arg-type]
        except InvalidInput as error:
            decisions.append(error)
    return [told(decision) for decision in decisions]


colours = st.sampled_from(["red", "navy", "#123456", "not a picture"])
questions = st.sampled_from(["What color is it?", "How many?", "What is written below HORSE?", "What breaks?"])
batches = st.lists(st.tuples(questions, colours), max_size=8)


def made(pairs: Sequence[tuple[str, str]]) -> list[Sample]:
    return [Sample(b"no picture", q) if c == "not a picture" else sample(q, c) for q, c in pairs]


@settings(max_examples=40)
@given(batches, st.sampled_from([None, 9, 36]), st.sampled_from([None, 144, 576]), st.sampled_from([None, 0.5, -1.0]))
def test_a_batch_is_decided_as_its_samples_are(
    learnt: ComplexityPredictor,
    pairs: list[tuple[str, str]],
    floor: int | None,
    ceiling: int | None,
    price: float | None,
):
    """With a real predictor and one that breaks at a question, with bad pictures, repetitions and memories."""
    wishes = {"floor": floor, "ceiling": ceiling, "price": price}

    async def both() -> None:
        for predictor in (learnt, FakePredictor()):
            artifact = artifact_of(predictor)  # type: ignore[arg-type]
            alone, together = Router(artifact, DecisionCache(None)), Router(artifact, DecisionCache(None))
            expected = await one_by_one(alone, made(pairs), **wishes)
            await together.route_many(made(pairs[:2]))
            decisions = await together.route_many(made(pairs), Wish(**wishes))  # type: ignore[arg-type]
            assert [told(decision) for decision in decisions] == expected

    asyncio.run(both())


async def test_a_batch_asks_the_predictor_once():
    """Of ten samples, two of them remembered, two the same and one no picture, six are predicted in one call."""
    predictor = FakePredictor()
    router = router_of(predictor)
    samples = [sample(f"Number {i}?") for i in (0, 1, 2, 3, 4, 5, 6, 7, 7)] + [Sample(b"no picture", "What?")]
    for remembered in samples[:2]:
        await router.route(remembered)
    decisions = await router.route_many(samples)
    assert predictor.asked == [1, 1, 6] and threading.get_ident() not in predictor.threads
    whys = [decision.why for decision in decisions if isinstance(decision, Decision)]
    assert whys == ["cached"] * 2 + ["predicted"] * 7
    assert isinstance(decisions[-1], InvalidInput)
    assert await router.route_many([]) == []


async def test_a_batch_heeds_fresh_and_store():
    """As single requests do."""
    router = router_of(FakePredictor())
    samples = [sample("One?"), sample("Two?")]
    whys = []
    for wishes in ({"store": False}, {}, {}, {"fresh": True}):
        whys.append([decision.why for decision in await router.route_many(samples, Wish(**wishes))])  # type: ignore[union-attr, arg-type]
    assert whys == [["predicted"] * 2, ["predicted"] * 2, ["cached"] * 2, ["predicted"] * 2]


async def test_a_batch_is_refused_as_a_whole_for_senseless_wishes():
    """Bounds and price are asked of all, so they are an error of all."""
    router = router_of(FakePredictor())
    with pytest.raises(OffLadder, match="100"):
        await router.route_many([sample()], Wish(floor=100))
    with pytest.raises(InvalidInput, match="price"):
        await router.route_many([sample()], Wish(price=-3.0))


async def test_a_batch_after_the_tower_loses_only_what_the_model_does_not_see():
    """Each picture is asked for; one that fails costs its own sample tokens."""

    async def look(asked: Sample) -> np.ndarray:
        if "broken" in asked.question:
            raise RuntimeError("no replica")
        return np.ones(FEATURES, np.float32)

    predictor = FakePredictor()
    router = Router(replace(artifact_of(predictor), place="tower"), DecisionCache(None), look=look)
    decisions = await router.route_many([sample("What color?"), sample("Is it broken?"), sample("Which?")])
    assert [decision.why for decision in decisions] == ["predicted", "fallback", "predicted"]  # type: ignore[union-attr]
    assert predictor.asked == [2]


@pytest.mark.redis
async def test_a_batch_asks_redis_once(redis_server: RedisProcess):
    """Sixteen samples cost one MGET and no GET, and what was missing is written in one trip; then all are known."""
    caches = [DecisionCache(redis_server.url, timeout_ms=10_000) for _ in range(2)]
    one, other = (router_of(FakePredictor(), cache) for cache in caches)
    samples = [sample(f"Number {i}?") for i in range(16)]
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_resetstat()
        first = await one.route_many(samples)
        await caches[0].flush()
        second = await other.route_many(samples)
        calls = {name: told["calls"] for name, told in client.info("commandstats").items()}
        connected = client.info("clients")["connected_clients"]
    assert calls["cmdstat_mget"] == 2 and "cmdstat_get" not in calls and calls["cmdstat_set"] == 16
    assert [d.why for d in first] == ["predicted"] * 16 and [d.why for d in second] == ["cached"] * 16  # type: ignore[union-attr]
    assert caches[1].stats.hits_redis == 16 and connected <= 3  # one of each cache, and the test's own
    for cache in caches:
        await cache.close()
