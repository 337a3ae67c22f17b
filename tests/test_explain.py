"""Explanations: the utilities that the policy compared, and features that add up to the prediction."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from label_world import LADDER, write_world
from routers import STRANGE, FakePredictor, artifact_of, router_of, sample

from complexity.errors import InvalidInput
from complexity.features import NAMES
from complexity.labels import read_labels
from complexity.predictor import ComplexityPredictor, FitOptions
from complexity.sample import Sample
from router.cache import DecisionCache
from router.policy import Wish
from router.route import Router

EVERY = 10**6  # feature


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> ComplexityPredictor:
    """A predictor of the made-up world."""
    rows = read_labels(write_world(tmp_path_factory.mktemp("labels"), pictures=200, split="train"))
    options = FitOptions(rounds=40, threads=1)
    return ComplexityPredictor.fit(
        rows.image_features, rows.question, rows.score, rows.image_sha256, rows.ladder, options
    )


@pytest.fixture
def router(learnt: ComplexityPredictor) -> Router:
    return Router(artifact_of(learnt), DecisionCache(None))  # type: ignore[arg-type]


async def test_the_chosen_scale_has_the_highest_utility(router: Router):
    """Each scale comes with its probability, cost and P - price * cost, as the decision had them."""
    for price in (0.0, 0.0005, 0.01, 1.0):
        decision = await router.route(sample(), Wish(price=price))
        explanation = await router.explain(sample(), decision)
        assert explanation is not None and (explanation.tokens, explanation.price) == (decision.tokens, price)
        assert tuple(scale.probability for scale in explanation.scales) == decision.probabilities
        assert (
            [scale.tokens for scale in explanation.scales] == [scale.cost for scale in explanation.scales] == [*LADDER]
        )
        for scale in explanation.scales:
            assert scale.utility == pytest.approx(scale.probability - price * scale.cost)
        best = max(explanation.scales, key=lambda scale: scale.utility)
        assert best.tokens == decision.tokens and explanation.cost_unit == "tokens" and explanation.familiar


async def test_a_few_features_are_named(router: Router):
    """At most five, of the predictor's own names, by falling size."""
    explanation = await router.explain(sample(), await router.route(sample()))
    assert explanation is not None
    sizes = [abs(feature.log_odds) for feature in explanation.features]
    assert len(sizes) == 5 and sizes == sorted(sizes, reverse=True) and min(sizes) > 0
    assert {feature.name for feature in explanation.features} <= {*NAMES["light"], "scale"}


def test_contributions_add_up_to_the_prediction(learnt: ComplexityPredictor):
    """At each rung, the contributions of two samples differ by as much as the log-odds predicted for them."""
    one, other = sample("What is written below HORSE?"), sample("What color is the background?", "blue")
    odds, sums = [], []
    for each in (one, other):
        p = learnt.predict_proba(each.image_features[None], [each.question])[0]
        odds.append(np.log(p / (1 - p)))
        told = [learnt.contributions(each.image_features, each.question, tokens, EVERY) for tokens in LADDER]
        sums.append([sum(log_odds for _, log_odds in moved) for moved in told])
        assert all(len(moved) == len(NAMES["light"]) + 1 for moved in told)
    assert np.abs(odds[0] - odds[1]).max() > 0.1
    np.testing.assert_allclose(np.subtract(*sums), odds[0] - odds[1], atol=1e-6)


async def test_a_forced_decision_is_explained_by_what_is_predicted_now(router: Router):
    """The caller's number of tokens stands, beside what the predictor would have said."""
    predicted = await router.route(sample())
    explanation = await router.explain(sample(), router.forced(36))
    assert explanation is not None and explanation.tokens == 36
    told = [scale.probability for scale in explanation.scales]
    assert told == pytest.approx(predicted.probabilities, abs=1e-6)


async def test_a_strange_sample_is_called_so(learnt: ComplexityPredictor):
    """What is unlike the training data isn't familiar, and its price of -1 is told."""
    artifact = replace(artifact_of(learnt), familiarity=STRANGE)  # type: ignore[arg-type]
    router = Router(artifact, DecisionCache(None))
    explanation = await router.explain(sample(), await router.route(sample()))
    assert explanation is not None and not explanation.familiar and explanation.price == -1


async def test_nothing_is_explained_where_nothing_is_predicted():
    """A predictor that breaks explains nothing, and costs no request its answer; a bad picture is the caller's."""
    predictor = FakePredictor(fails=RuntimeError("broken"))
    router = router_of(predictor)
    decision = await router.route(sample())
    assert decision.why == "fallback" and await router.explain(sample(), decision) is None
    assert threading.get_ident() not in predictor.threads
    with pytest.raises(InvalidInput, match="not a picture"):
        await router.explain(Sample(b"no picture", "What?"), decision)
