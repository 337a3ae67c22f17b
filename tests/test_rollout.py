"""Rollouts: a canary that keeps its samples, and a shadow that is heard of in the record only."""

import asyncio
import hashlib
import logging
import math
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_world import LADDER
from PIL import Image
from routers import COARSE, FINE, FakePredictor, artifact_of, sample

from complexity.errors import ArtifactError, InvalidInput, OffLadder
from complexity.picture import Decoded
from complexity.sample import Sample
from router.cache import DecisionCache
from router.calibrate import CurvePoint
from router.cascade import SecondLook
from router.policy import Decision, Wish
from router.rollout import Canary, Rollout, Shadow, ShadowDecision, share_of
from router.route import Router

PATIENCE_S = 60  # what hangs forever would hang longer


def named(digest: str, predictor: FakePredictor | None = None, cache: DecisionCache | None = None) -> Router:
    """A router whose decisions say `digest`."""
    return Router(artifact_of(predictor or FakePredictor(), digest), cache or DecisionCache(None))


def digests(count: int) -> list[tuple[str, str]]:
    """SHA-256 of as many pictures and questions."""
    return [
        (hashlib.sha256(b"p%d" % i).hexdigest(), hashlib.sha256(b"q%d" % (i % 7)).hexdigest()) for i in range(count)
    ]


async def done(rollout: Rollout) -> None:
    """Wait for the shadow."""
    async with asyncio.timeout(PATIENCE_S):
        await rollout.close(PATIENCE_S)


async def test_alone_the_serving_router_decides():
    """Without shadow and canary everything is as the router's own."""
    router = named("serving")
    rollout = Rollout(router)
    decision = await rollout.route(sample(), Wish(floor=9, ceiling=144, price=-1.0))
    assert (decision.tokens, decision.artifact, decision.why) == (144, "serving", "predicted")
    assert (await rollout.route(sample())).why == "cached"
    assert rollout.forced(36) == router.forced(36) and rollout.again(decision, -1.0) is None
    with pytest.raises(OffLadder, match="100"):
        await rollout.route(sample(), Wish(floor=100))
    await done(rollout)


@pytest.mark.parametrize("percent", [0.5, 5, 50, 99])
def test_the_canarys_share_is_what_was_asked_for(percent: float):
    """Of 10,000 samples so many are the canary's as chance allows, within four standard deviations."""
    p = percent / 100
    count = sum(share_of(*each) < p for each in digests(10_000))
    assert abs(count - 10_000 * p) <= 4 * math.sqrt(10_000 * p * (1 - p))


def test_a_samples_place_is_the_same_everywhere():
    """It depends on the digests alone and not on the process; picture and question both matter."""
    assert share_of("0" * 64, "1" * 64) == 0.022069529168877944
    assert len({share_of(*each) for each in digests(10_000)}) == 10_000
    assert share_of("0" * 64, "1" * 64) != share_of("1" * 64, "0" * 64)


async def test_a_repeated_request_never_changes_sides():
    """Five processes decide alike, however often they are asked; a larger share keeps those that it had."""
    samples = [sample(f"Number {i}?") for i in range(30)]
    sides = []
    for percent in (30, 30, 30, 60, 100):
        rollout = Rollout(named("serving"), canary=Canary(named("canary"), percent))
        twice = [[(await rollout.route(each)).artifact for each in samples] for _ in range(2)]
        assert twice[0] == twice[1] and rollout.stats.canary == 2 * twice[0].count("canary")
        sides.append({i for i, side in enumerate(twice[0]) if side == "canary"})
        await done(rollout)
    assert sides[0] == sides[1] == sides[2] < sides[3] < sides[4] == set(range(30)) and sides[0]


async def test_no_percent_is_nobody():
    """A canary of 0 percent decides nothing."""
    rollout = Rollout(named("serving"), canary=Canary(named("canary"), 0))
    assert {(await rollout.route(sample(f"Number {i}?"))).artifact for i in range(30)} == {"serving"}


def looking(digest: str, surest: float) -> Router:
    """A router with a second look that thinks finer answers right with these log-odds."""
    weights = np.zeros((5, 5, 4))
    weights[..., 0], weights[..., 3] = 3.0, 4.0
    weights[np.triu_indices(5, 1)] = [surest, 0, 0, 0]
    artifact = artifact_of(FakePredictor(answer=(0.5, 0.53, 0.55, 0.56, 0.57)), digest)
    return Router(replace(artifact, second_look=SecondLook(weights)), DecisionCache(None), 0.003, second_look=True)


async def test_a_second_look_is_taken_by_whichever_router_decided():
    """The serving router would look again and the canary wouldn't; a router that has gone doesn't."""
    serving, canary = looking("serving", 2.0), looking("canary", -9.0)
    before, after = Rollout(serving, canary=Canary(canary, 0)), Rollout(serving, canary=Canary(canary, 100))
    one, other = await before.route(sample()), await after.route(sample())
    assert (one.artifact, other.artifact) == ("serving", "canary")
    assert (after.arm(one), after.arm(other)) == ("main", "canary")
    for rollout in (before, after):
        better = rollout.again(one, -2.0)
        assert better is not None and (better.tokens, better.artifact) == (9, "serving")
        assert rollout.again(one, -2.0, ceiling=1) is None and rollout.again(other, -2.0) is None
    gone = replace(one, artifact="gone")
    assert before.again(gone, -2.0) is None and await before.explain(sample(), gone) is None


async def test_what_the_shadow_says_is_recorded_and_not_served():
    """Its decision is handed over beside the served one, once for each request, remembered ones too."""
    heard: list[ShadowDecision] = []
    shadow = named("shadow", FakePredictor(answer=COARSE))
    rollout = Rollout(named("serving"), Shadow(shadow, heard.append))
    served = []
    for decision_id in ("m3-1", "m3-2"):
        served.append(await rollout.route(sample(), decision_id=decision_id))
        assert len(heard) == len(served) - 1  # it begins when the caller has its decision
        while len(heard) < len(served):
            await asyncio.sleep(0.001)
    assert [(d.tokens, d.artifact, d.why) for d in served] == [
        (576, "serving", "predicted"),
        (576, "serving", "cached"),
    ]
    assert [told.decision_id for told in heard] == ["m3-1", "m3-2"] and [told.served for told in heard] == served
    assert [(told.shadow.tokens, told.shadow.artifact) for told in heard] == [(1, "shadow")] * 2
    await done(rollout)
    assert len(heard) == 2 and (rollout.stats.recorded, rollout.stats.dropped, rollout.stats.failed) == (2, 0, 0)


wishes = st.fixed_dictionaries(
    {}, optional={"price": st.sampled_from([0.0, 0.5]), "fresh": st.booleans(), "store": st.booleans()}
)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 5), wishes), max_size=10), st.sampled_from([0, 40, 100]), st.integers(0, 3))
def test_a_shadow_is_never_served(requests: list[tuple[int, dict[str, float]]], percent: float, most: int):
    """However busy it is, decisions are those that there would be without it, and every request is counted."""

    async def decided(shadow: Shadow | None) -> list[Decision]:
        canary = Canary(named("canary", FakePredictor(answer=COARSE)), percent)
        rollout = Rollout(named("serving"), shadow, canary)
        made = [await rollout.route(sample(f"Number {i}?"), Wish(**asked)) for i, asked in requests]  # type: ignore[arg-type]
        await done(rollout)
        if shadow is not None:
            assert rollout.stats.recorded + rollout.stats.dropped == len(requests) and rollout.stats.failed == 0
            assert len(heard) == rollout.stats.recorded
        return [replace(decision, latency_ms=0.0) for decision in made]

    heard: list[ShadowDecision] = []
    shadow = Shadow(named("shadow", FakePredictor(answer=FINE)), heard.append, most)
    with_it = asyncio.run(decided(shadow))
    assert with_it == asyncio.run(decided(None)) and "shadow" not in {decision.artifact for decision in with_it}
    assert {told.shadow.artifact for told in heard} <= {"shadow"}


async def test_a_shadow_that_hangs_delays_nobody():
    """Forty requests are served while its threads never come back, and each prediction is made in other threads."""
    go, heard = threading.Event(), []
    serving = FakePredictor()
    rollout = Rollout(named("serving", serving), Shadow(named("shadow", FakePredictor(go=go)), heard.append, most=20))
    try:
        async with asyncio.timeout(PATIENCE_S):
            decisions = [await rollout.route(sample(f"Number {i}?")) for i in range(40)]
        assert [decision.why for decision in decisions] == ["predicted"] * 40 and not heard
        assert rollout.stats.dropped == 20
        await rollout.close(0.01)
        assert rollout.stats.dropped == 40 and (await rollout.route(sample("Later?"))).why == "predicted"
        assert rollout.stats.dropped == 41 and not heard
    finally:
        go.set()


async def test_a_shadow_after_the_tower_takes_few_places_in_the_models_queue():
    """Of ten requests at once four are looked at for the shadow, since each look waits where answers wait."""
    go, looked = asyncio.Event(), []

    async def look(asked: Sample) -> np.ndarray:
        looked.append(asked)
        await go.wait()
        raise TimeoutError

    after = replace(artifact_of(FakePredictor(), "shadow"), place="tower")
    rollout = Rollout(named("serving"), Shadow(Router(after, DecisionCache(None), look=look), print))
    for i in range(10):
        await rollout.route(sample(f"Number {i}?"))
    while len(looked) < 4:
        await asyncio.sleep(0)
    assert rollout.stats.dropped == 6
    go.set()
    await done(rollout)
    assert len(looked) == 4


async def test_beyond_the_bound_the_shadow_is_not_asked():
    """Of five requests two reach a busy shadow; when it is free again it hears of more."""
    go, heard = threading.Event(), []
    rollout = Rollout(named("serving"), Shadow(named("shadow", FakePredictor(go=go)), heard.append, most=2))
    for i in range(5):
        await rollout.route(sample(f"Number {i}?"), decision_id=str(i))
    assert rollout.stats.dropped == 3
    go.set()
    async with asyncio.timeout(PATIENCE_S):
        while len(heard) < 2:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        await rollout.route(sample("Later?"), decision_id="later")
    await done(rollout)
    assert {told.decision_id for told in heard} == {"0", "1", "later"}
    assert (rollout.stats.recorded, rollout.stats.dropped) == (3, 3)


async def test_a_shadow_that_breaks_costs_the_request_nothing(caplog: pytest.LogCaptureFixture):
    """A record that raises and a shadow that can't follow a wish are counted, and each cause is logged once."""

    def full(_: ShadowDecision) -> None:
        raise OSError("the disk is full")

    curve = (CurvePoint(-1.0, 0.8, 576, 576), CurvePoint(1.0, 0.7, 1, 1))
    serving = Router(replace(artifact_of(FakePredictor(), "serving"), curve=curve), DecisionCache(None))
    rollout = Rollout(serving, Shadow(named("shadow"), full))  # which has no curve
    with caplog.at_level(logging.WARNING, logger="router.rollout"):
        decisions = [await rollout.route(sample(), Wish(max_loss=loss)) for loss in (None, 0.2, None, 0.2)]
        await done(rollout)
    assert [decision.tokens for decision in decisions] == [576, 1, 576, 1]
    assert (rollout.stats.failed, rollout.stats.recorded, len(caplog.records)) == (4, 0, 2)


async def test_a_shadow_without_a_prediction_would_take_the_finest_scale():
    """That it falls back is what is worth recording of it."""
    heard: list[ShadowDecision] = []
    broken = FakePredictor(fails=RuntimeError("broken"))
    rollout = Rollout(named("serving"), Shadow(named("shadow", broken), heard.append))
    assert (await rollout.route(sample("What color is it?"))).tokens == 1
    await done(rollout)
    assert [(told.shadow.tokens, told.shadow.why) for told in heard] == [(576, "fallback")]


async def test_of_a_refused_request_the_shadow_hears_nothing():
    """A bad picture and senseless bounds are the caller's mistake, and reach no shadow."""
    heard: list[ShadowDecision] = []
    rollout = Rollout(named("serving"), Shadow(named("shadow"), heard.append))
    with pytest.raises(InvalidInput, match="not a picture"):
        await rollout.route(Sample(b"no picture", "What?"))
    with pytest.raises(InvalidInput, match="above the ceiling"):
        await rollout.route(sample(), Wish(floor=36, ceiling=9))
    await done(rollout)
    assert not heard and rollout.stats.failed == rollout.stats.dropped == 0


class Watched(Sample):
    """A sample that tells whenever its picture is looked at."""

    looks: list[Image.Image] = []

    @property
    def decoded(self) -> Decoded:
        found = super().decoded
        self.looks.append(found.picture)
        return found


async def test_a_picture_is_described_once_for_all():
    """The shadow takes the features that the serving router has computed, and doesn't look at the picture."""
    heard: list[ShadowDecision] = []
    asked = Watched(sample().image, "Which?")
    shadow = FakePredictor()
    rollout = Rollout(named("serving"), Shadow(named("shadow", shadow), heard.append))
    await rollout.route(asked)
    looks = len(asked.looks)
    await done(rollout)
    assert len(heard) == len(shadow.asked) == 1 and len(asked.looks) == looks > 0


async def test_a_shadow_heeds_no_cache_and_no_store():
    """What isn't to be remembered it doesn't remember, and a fresh request it predicts again."""
    shadow, heard = FakePredictor(), []
    rollout = Rollout(named("serving"), Shadow(named("shadow", shadow), heard.append))
    for i, asked in enumerate(({"store": False}, {}, {}, {"fresh": True})):
        await rollout.route(sample(), Wish(**asked))  # type: ignore[arg-type]
        while len(heard) <= i:
            await asyncio.sleep(0.001)
    await done(rollout)
    assert [told.shadow.why for told in heard] == ["predicted", "predicted", "cached", "predicted"]


async def test_a_batch_is_parted_between_the_routers():
    """Each sample is decided by the router that decides on it alone, in one call for each; the shadow isn't asked."""
    heard: list[ShadowDecision] = []
    predictors = FakePredictor(), FakePredictor(answer=COARSE)
    serving, canary = named("serving", predictors[0]), named("canary", predictors[1])
    rollout = Rollout(serving, Shadow(named("shadow"), heard.append), Canary(canary, 40))
    samples = [sample(f"Number {i}?") for i in range(20)] + [Sample(b"no picture", "What?")]
    decisions = await rollout.route_many(samples)
    calls = [predictor.asked[:] for predictor in predictors]
    assert [len(each) for each in calls] == [1, 1] and sum(map(sum, calls)) == 20
    assert isinstance(decisions[-1], InvalidInput) and not heard
    for one, decision in zip(samples[:-1], decisions[:-1], strict=True):
        alone = await rollout.route(one)
        assert isinstance(decision, Decision)
        assert (alone.tokens, alone.artifact, alone.why) == (decision.tokens, decision.artifact, "cached")
    await done(rollout)


@pytest.mark.parametrize("role", ["canary", "shadow"])
def test_routers_that_do_not_fit_are_refused(role: str):
    """Another model or ladder is an error that names both sides."""
    other = artifact_of(FakePredictor())
    for artifact, says in (
        (replace(other, model="m3-other"), "model is 'm3-other', the serving router's 'm3-made-up'"),
        (replace(other, ladder=LADDER[:4], costs=LADDER[:4]), r"ladder is \(1, 9, 36, 144\), .* 144, 576\)"),
    ):
        router = Router(artifact, DecisionCache(None))
        with pytest.raises(ArtifactError, match=f"the {role}'s {says}"):
            if role == "canary":
                Rollout(named("serving"), canary=Canary(router, 5))
            else:
                Rollout(named("serving"), Shadow(router, print))


@pytest.mark.parametrize("percent", [-1, 100.5, float("nan")])
def test_a_senseless_share_is_refused(percent: float):
    """Percent go from 0 to 100."""
    with pytest.raises(InvalidInput, match="0 to 100"):
        Rollout(named("serving"), canary=Canary(named("canary"), percent))
