"""Setting the knob and judging policies: curves, prices, equal tokens and intervals on small cases known by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_world import LADDER, made_up_rows

from complexity.errors import InvalidInput, LabelTableError, OffLadder
from complexity.labels import LabelMeta, LabelTable
from router.calibrate import PRICES, CurvePoint, Target, pick_price, price_curve, tuned
from router.evaluate import (
    Outcome,
    bootstrap,
    calibration_error,
    fixed_scales,
    hull,
    leads,
    mixed_to,
    oracles,
    price_path,
)
from router.lookup import Lookup, size_classes
from router.policy import choose
from router.report import judge
from router.split import split_table

matrices = st.integers(1, 30).flatmap(
    lambda rows: st.lists(
        st.lists(st.floats(0, 1, allow_subnormal=False), min_size=5, max_size=5), min_size=rows, max_size=rows
    )
)


def outcome(accuracy: float, tokens: float) -> Outcome:
    return Outcome(f"{tokens}", np.array([accuracy]), np.array([tokens]), np.array([tokens]))


def table_of(score: np.ndarray, **columns: np.ndarray) -> LabelTable:
    count = len(score)
    text = np.array([f"{i}" for i in range(count)], dtype=object)
    split = np.full(count, "", dtype=object)
    default = dict(sample_id=text, dataset=split, task=split, split=split, image_sha256=text, question=text)
    features = np.zeros((count, 2), np.float32)
    numbers = dict(image_features=features, tower_features=features[:, :0], latents=features[:, :0], mean_logprob=score)
    numbers |= dict(reference_logprob=score, visual_tokens=score)
    meta = LabelMeta(LADDER[: score.shape[1]], "f", "m", "s")
    return LabelTable(meta=meta, score=score, **{**default, **numbers, **columns})


@given(matrices)
def test_tokens_fall_along_the_curve(rows: list[list[float]]):
    """Along rising prices mean tokens never rise, from always the finest to always the coarsest."""
    probabilities = np.array(rows)
    curve = price_curve(probabilities, probabilities, LADDER)
    tokens = [point.tokens for point in curve]
    assert (curve[0].price, tokens[0], tokens[-1]) == (-1, LADDER[-1], LADDER[0])
    assert tokens == sorted(tokens, reverse=True)


def test_perfect_knowledge_at_price_0_is_the_oracle():
    """Who believes the true scores and pays nothing is as accurate as the oracle, at its tokens among the solved."""
    score = np.array([[0.0, 1, 1, 1, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]])
    first = next(point for point in price_curve(score, score, LADDER, prices=[0.0]))
    coarse, fine = oracles(score, LADDER)
    assert first.accuracy == coarse.accuracy == fine.accuracy == pytest.approx(2 / 3)
    assert first.tokens == coarse.mean_tokens == pytest.approx((9 + 144 + 1) / 3)
    assert fine.mean_tokens == pytest.approx((9 + 144 + 576) / 3)


def test_the_cheapest_price_within_the_loss_is_picked():
    """Of the points that lose at most a point, beyond their error, the one with the fewest tokens is taken."""
    curve = [
        CurvePoint(0.0, 0.80, 500, 500),
        CurvePoint(1e-4, 0.81, 200, 200),
        CurvePoint(1e-3, 0.795, 50, 50),
        CurvePoint(1, 0.4, 1, 1),
    ]
    picked = [pick_price(curve, 0.80, Target(max_loss=loss)).tokens for loss in (0.01, 0.0, 0.9)]
    assert picked == [50, 200, 1]
    unsure = [replace(point, loss_error=0.006 * (point.tokens < 100)) for point in curve]
    assert pick_price(unsure, 0.80, Target(max_loss=0.01)).tokens == 200


def test_the_error_of_a_loss_counts_pictures_and_not_questions():
    """Four questions about each picture that fail together tell no more than one does."""
    rng = np.random.default_rng(0)
    one = (rng.random((200, 2)) < [0.5, 0.8]).astype(float)
    (alone,) = price_curve(one, one, LADDER[:2], None, [1.0])
    (copied,) = price_curve(
        np.repeat(one, 4, 0), np.repeat(one, 4, 0), LADDER[:2], None, [1.0], np.repeat(np.arange(200), 4)
    )
    assert copied.loss_error == pytest.approx(alone.loss_error)
    assert alone.loss_error == pytest.approx((one[:, 1] - one[:, 0]).std() / 200**0.5)


def test_a_budget_buys_the_most_accuracy():
    """The most accurate point within the budget is taken, and a budget below the coarsest scale is refused."""
    curve = [CurvePoint(0.0, 0.70, 500, 9.0), CurvePoint(1e-4, 0.71, 200, 7.0), CurvePoint(1, 0.4, 1, 5.0)]
    assert [pick_price(curve, 0.7, Target(budget=budget)).tokens for budget in (10, 7, 6)] == [200, 200, 1]
    with pytest.raises(InvalidInput, match="--budget 4 is below 5"):
        pick_price(curve, 0.7, Target(budget=4))


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({}, "one of"),
        ({"max_loss": 0.1, "budget": 5}, "one of"),
        ({"max_loss": 1.5}, "--max-loss 1.5"),
        ({"budget": 0}, "--budget 0"),
        ({"certify": 0}, "--certify 0"),
        ({"certify": 0.1, "confidence": 1}, "--confidence 1"),
    ],
)
def test_senseless_targets_are_refused(wishes: dict[str, float], says: str):
    """One wish at a time, within its range."""
    with pytest.raises(InvalidInput, match=says):
        Target(**wishes)


def test_costs_decide_instead_of_tokens():
    """Where the clock doesn't tell two scales apart, the better of them is taken whatever its tokens."""
    believed = np.array([[0.2, 0.5, 0.6, 0.9, 0.95]])
    flat = (1.0, 1.1, 1.2, 1.3, 9.0)
    assert choose(believed, LADDER, 0.05).tolist() == [1] and choose(believed, LADDER, 0.05, flat).tolist() == [144]
    point = price_curve(believed, believed, LADDER, flat, [0.05])[0]
    assert (point.tokens, point.cost) == (144, 1.3)


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5), st.sampled_from(PRICES), st.data())
def test_bounds_hold_and_stay_monotone(row: list[float], price: float, data: st.DataObject):
    """Between floor and ceiling, with fewer tokens never for a higher floor, ceiling or quality."""
    low, high = sorted(data.draw(st.lists(st.sampled_from(LADDER), min_size=2, max_size=2)))
    p = np.array(row)
    tokens = int(choose(p, LADDER, price, floor=low, ceiling=high))
    assert low <= tokens <= high
    assert int(choose(p, LADDER, price, floor=low)) >= int(choose(p, LADDER, price))
    assert int(choose(p, LADDER, price, ceiling=high)) <= int(choose(p, LADDER, price))
    cheaper = [each for each in PRICES if each < price]
    if cheaper:
        assert int(choose(p, LADDER, data.draw(st.sampled_from(cheaper)), floor=low, ceiling=high)) >= tokens


def test_bounds_off_the_ladder_or_crossed_are_refused():
    """The ladder is named, and so are both bounds."""
    with pytest.raises(OffLadder, match="1, 9, 36"):
        choose(np.full(5, 0.5), LADDER, 0.0, floor=100)
    with pytest.raises(InvalidInput, match="floor of 144 .* ceiling of 9"):
        choose(np.full(5, 0.5), LADDER, 0.0, floor=144, ceiling=9)


def test_a_chooser_is_tuned_on_the_rows_it_is_given():
    """With true beliefs, the price for a loss of nothing keeps the finest scale's accuracy at fewer tokens."""
    score = np.repeat(np.array([[1.0, 1, 1, 1, 1], [0, 0, 1, 1, 1]]), 10, axis=0)
    chooser = tuned("known", lambda rows: rows.score, table_of(score), Target(max_loss=0.0))
    mean = (1 + 36) / 2
    assert price_curve(score, score, LADDER, None, [chooser.price])[0] == CurvePoint(chooser.price, 1.0, mean, mean)


def test_the_lookup_knows_each_key_and_guesses_for_others():
    """Means by key, drawn a little towards the overall mean, which an unknown key gets."""
    keys = np.array(["a"] * 95 + ["b"] * 5, dtype=object)
    score = np.r_[np.ones((95, 1)), np.zeros((5, 1))]
    lookup = Lookup.fit(keys, score)
    known_a, known_b, unknown = lookup.predict_proba(np.array(["a", "b", "c"], dtype=object))[:, 0]
    assert unknown == pytest.approx(0.95) and known_a > 0.99 and known_b == pytest.approx(5 * 0.95 / 10)


def test_size_classes_keep_their_edges():
    """New pictures fall into the classes that the first ones made; one size makes one class."""
    classes, edges = size_classes(np.arange(100.0))
    assert np.bincount(classes).tolist() == pytest.approx([20] * 5, abs=1)
    assert size_classes(np.array([-5.0, 500.0]), edges)[0].tolist() == [0, 4]
    assert len(set(size_classes(np.full(7, 3.0))[0])) == 1


def test_the_hull_leaves_out_what_mixing_beats():
    """A policy under the line between two others isn't on the hull, nor one that costs more and earns less."""
    points = [outcome(0.2, 1), outcome(0.3, 9), outcome(0.8, 36), outcome(0.79, 144), outcome(0.9, 576)]
    assert [point.mean_tokens for point in hull(points)] == [1, 36, 576]


def test_mixing_hits_the_tokens_and_the_accuracy_between():
    """Halfway in tokens is halfway in accuracy; outside the path there is nothing."""
    path = [outcome(0.2, 10), outcome(0.6, 30)]
    mixed = mixed_to("mixed", path, 20)
    assert mixed.mean_tokens == pytest.approx(20) and mixed.accuracy == pytest.approx(0.4)
    assert mixed_to("mixed", path, 9.9) is None and mixed_to("mixed", path, 30.1) is None
    assert mixed_to("mixed", path, 10).accuracy == pytest.approx(0.2)


def test_a_policy_leads_itself_by_nothing():
    """At equal tokens a policy has no lead over itself, and no uncertainty about it."""
    score = np.random.default_rng(0).integers(0, 2, (50, 5)).astype(float)
    path = price_path("p", score, score, LADDER)
    for lead in leads(path, path, [3, 9], np.arange(50), seed=0):
        assert lead.gain == 0 and lead.gain_ci == (0, 0)


def test_intervals_are_wider_when_a_pictures_questions_agree():
    """Ten copies of each sample under one picture tell no more than one: the interval stays as wide."""
    values = np.random.default_rng(1).integers(0, 2, (200, 1)).astype(float)
    (alone,) = bootstrap(values, np.arange(200), seed=0)
    (copied,) = bootstrap(np.repeat(values, 10, axis=0), np.repeat(np.arange(200), 10), seed=0)
    (wrong,) = bootstrap(np.repeat(values, 10, axis=0), np.arange(2000), seed=0)
    half_width = 1.96 * values.std() / np.sqrt(200)
    assert (alone[1] - alone[0]) / 2 == pytest.approx(half_width, rel=0.15)
    assert copied[1] - copied[0] == pytest.approx(alone[1] - alone[0], rel=0.15)
    assert wrong[1] - wrong[0] < 0.5 * (copied[1] - copied[0])


def test_calibration_error_is_the_mean_gap():
    """Saying 0.9 where half is right is off by 0.4; saying 0.5 isn't."""
    score = np.tile([[0.0], [1.0]], (100, 1))
    assert calibration_error(np.full((200, 1), 0.9), score, bins=2) == pytest.approx(0.4)
    assert calibration_error(np.full((200, 1), 0.5), score, bins=2) == pytest.approx(0.0)


def test_fixed_scales_are_in_the_report_with_their_tokens():
    """The judge lists every fixed scale, the mix, all choosers and both oracles, once each."""
    score = np.repeat(np.array([[1.0, 1, 1, 1, 1], [0, 0, 1, 1, 1]]), 20, axis=0)
    rows = table_of(score)
    known = tuned("router", lambda rows: rows.score, rows, Target(max_loss=0.0))
    blind = tuned("lookup", lambda rows: np.tile(rows.score.mean(axis=0), (len(rows), 1)), rows, Target(max_loss=0.0))
    report = judge(rows, [known, blind], seed=0)
    by_name = {row.name: row for row in report.policies}
    assert list(by_name) == [*(f"fixed-{t}" for t in LADDER), "random-mixing", "lookup", "router",
                             "oracle-unsolved-coarsest", "oracle-unsolved-finest"]  # fmt: skip
    assert by_name["router"].accuracy == 1 and by_name["router"].tokens == pytest.approx(18.5)
    assert by_name["lookup"].accuracy == 1 and by_name["lookup"].tokens == pytest.approx(36)
    assert by_name["random-mixing"].accuracy < 1
    at_own_tokens = next(lead for lead in report.equal_tokens if lead.tokens == 18.5)
    assert at_own_tokens.gain == pytest.approx(0.25) and at_own_tokens.gain_ci[0] > 0
    assert [o.accuracy for o in fixed_scales(score, LADDER)] == [0.5, 0.5, 1, 1, 1]


def pictures_table(count: int, split: list[str] | str = "", dataset: list[str] | str = "drawn") -> LabelTable:
    columns = {
        name: np.array([value] * count if isinstance(value, str) else value, dtype=object)
        for name, value in (("split", split), ("dataset", dataset))
    }
    pictures = np.array([f"picture-{i // 2}" for i in range(count)], dtype=object)
    return table_of(np.ones((count, 2)), image_sha256=pictures, **columns)


def test_pictures_without_a_split_are_parted_by_their_digest():
    """About 60, 20 and 20% of the pictures, no picture in two parts, the same parts each time."""
    parts = split_table(pictures_table(4000))
    shares = [len(set(part.image_sha256)) / 2000 for part in (parts.train, parts.calibration, parts.test)]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.03)
    assert not set(parts.train.image_sha256) & set(parts.test.image_sha256)
    assert split_table(pictures_table(4000)).test.sample_id.tolist() == parts.test.sample_id.tolist()


def test_test_rows_of_unknown_datasets_are_kept_apart():
    """A dataset that training never saw is judged by itself."""
    table = pictures_table(8, ["train"] * 2 + ["calibration"] * 2 + ["test"] * 4, ["drawn"] * 6 + ["strange"] * 2)
    parts = split_table(table)
    assert len(parts.test) == 2 and parts.shifted is not None and set(parts.shifted.dataset) == {"strange"}


@pytest.mark.parametrize(
    ("split", "says"),
    [
        (["train", "test", "calibration", "calibration"], "1 pictures are in both train and test, such as picture-0"),
        (["train", "train", "test", "test"], "no samples in split 'calibration'"),
        (["train", "train", "", "test"], "1 of 4 samples have no split"),
    ],
)
def test_splits_that_would_deceive_are_refused(split: list[str], says: str):
    """Pictures in two parts, empty parts and half-assigned tables are named."""
    with pytest.raises(LabelTableError, match=says):
        split_table(pictures_table(4, split))


def test_the_made_up_world_has_no_picture_in_two_parts():
    """The tests' own table keeps to the rule."""
    parts: dict[str, set[str]] = {}
    for row in made_up_rows(50):
        parts.setdefault(row.image_sha256, set()).add(row.split)
    assert all(len(names) == 1 for names in parts.values())
