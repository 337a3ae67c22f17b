"""The predictor: learns a known world, is calibrated, and survives being written and read to the last bit."""

import json
from pathlib import Path

import numpy as np
import pytest
from label_world import BLOBS, LADDER, TASKS, chance, write_world

from complexity.errors import ArtifactError
from complexity.image_features import IMAGE_FEATURE_NAMES
from complexity.labels import LabelTable, read_labels
from complexity.predictor import PREDICTOR_FILE, TREES_FILE, ComplexityPredictor, FitOptions
from router.evaluate import calibration_error

FAST = FitOptions(rounds=60, learning_rate=0.1, threads=1)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> LabelTable:
    return read_labels(write_world(tmp_path_factory.mktemp("labels"), pictures=700))


def fit(rows: LabelTable, options: FitOptions = FAST) -> ComplexityPredictor:
    return ComplexityPredictor.fit(
        rows.image_features, rows.question, rows.score, rows.image_sha256, rows.ladder, options
    )


@pytest.fixture(scope="module")
def predictor(table: LabelTable) -> ComplexityPredictor:
    return fit(table.select(table.split == "train"))


def truth(rows: LabelTable) -> np.ndarray:
    """(B, S) true P(right)."""
    return np.stack(
        [chance(*TASKS[task][1:], blobs) for task, blobs in zip(rows.task, rows.image_features[:, BLOBS], strict=True)]
    )


def test_it_learns_what_picture_and_question_tell(table: LabelTable, predictor: ComplexityPredictor):
    """On unseen pictures its error to the true probabilities is less than half of the per-task means'."""
    test = table.select(table.split == "test")
    known = truth(test)
    task_means = np.stack([known[test.task == task].mean(axis=0) for task in test.task])
    predicted = predictor.predict_proba(test.image_features, test.question)
    assert np.square(predicted - known).mean() < 0.5 * np.square(task_means - known).mean()


def test_probabilities_are_probabilities_and_calibrated(table: LabelTable, predictor: ComplexityPredictor):
    """All lie strictly between 0 and 1, and what is predicted happens about as often as said."""
    test = table.select(table.split == "test")
    predicted = predictor.predict_proba(test.image_features, test.question)
    assert predicted.shape == (len(test), len(LADDER)) and 0 < predicted.min() and predicted.max() < 1
    assert calibration_error(predicted, test.score) < 0.06


def test_the_features_that_matter_are_named(predictor: ComplexityPredictor):
    """In the made-up world the scale and the number of blobs decide; shares of the gain fall and sum to at most one."""
    names, shares = zip(*predictor.importance(), strict=True)
    assert {"scale", "figure_blobs"} <= set(names[:4])
    assert list(shares) == sorted(shares, reverse=True) and sum(shares) <= 1


def test_fitting_is_deterministic(table: LabelTable):
    """The same rows and options give the same predictor; another seed another one."""
    rows = table.select(table.split == "train").select(np.arange(300))
    options = FitOptions(rounds=10, threads=1)
    one, two = fit(rows, options), fit(rows, options)
    other = fit(rows, FitOptions(rounds=10, threads=1, seed=1))
    predicted = [p.predict_proba(rows.image_features, rows.question) for p in (one, two, other)]
    assert np.array_equal(predicted[0], predicted[1]) and not np.array_equal(predicted[0], predicted[2])


def test_what_is_saved_is_loaded(tmp_path: Path, table: LabelTable, predictor: ComplexityPredictor):
    """A loaded predictor predicts the same to the last bit, one sample or many, from text files alone."""
    predictor.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".txt"}
    loaded = ComplexityPredictor.load(tmp_path)
    rows = table.select(np.arange(50))
    expected = predictor.predict_proba(rows.image_features, rows.question)
    assert np.array_equal(loaded.predict_proba(rows.image_features, rows.question), expected)
    alone = [loaded.predict_proba(rows.image_features[i : i + 1], rows.question[i : i + 1])[0] for i in range(50)]
    assert np.array_equal(np.stack(alone), expected)


def test_trees_that_ask_whether_a_number_is_known_survive_their_file(tmp_path: Path):
    """That a question names no colour can be all that matters; LightGBM parts such samples at infinity."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, len(IMAGE_FEATURE_NAMES))).astype(np.float32)
    coloured = rng.random(300) < 0.5
    questions = np.where(coloured, "Is the red thing there?", "Is the thing there?").astype(object)
    score = (rng.random(300) < np.where(coloured, 0.9, 0.2)).astype(np.float32)[:, None].repeat(len(LADDER), 1)
    names = np.arange(300).astype(str)
    fitted = ComplexityPredictor.fit(features, questions, score, names, LADDER, FitOptions(rounds=20, threads=1))
    fitted.save(tmp_path)
    assert "inf" in [
        word
        for line in (tmp_path / TREES_FILE).read_text().split("\n")
        if line.startswith("threshold=")
        for word in line.removeprefix("threshold=").split(" ")
    ]
    loaded = ComplexityPredictor.load(tmp_path)
    assert np.array_equal(loaded.predict_proba(features, questions), fitted.predict_proba(features, questions))


def test_another_feature_version_is_refused(tmp_path: Path, predictor: ComplexityPredictor):
    """A predictor for other features names its version and this code's."""
    predictor.save(tmp_path)
    said = json.loads((tmp_path / PREDICTOR_FILE).read_text())
    (tmp_path / PREDICTOR_FILE).write_text(json.dumps({**said, "feature_version": "image-0+question-0"}))
    with pytest.raises(ArtifactError, match=r"image-0\+question-0; this code computes .* image-"):
        ComplexityPredictor.load(tmp_path)


@pytest.mark.parametrize("broken", [PREDICTOR_FILE, TREES_FILE])
def test_missing_and_broken_files_are_refused(tmp_path: Path, predictor: ComplexityPredictor, broken: str):
    """A file that is cut short or gone is an ArtifactError, not a crash."""
    predictor.save(tmp_path)
    (tmp_path / broken).write_text((tmp_path / broken).read_text()[:20])
    with pytest.raises(ArtifactError, match="can't be read"):
        ComplexityPredictor.load(tmp_path)
    (tmp_path / broken).unlink()
    with pytest.raises(ArtifactError, match="can't be read"):
        ComplexityPredictor.load(tmp_path)


def test_a_scale_that_never_varies_is_predicted_as_such(table: LabelTable):
    """A model that is always right at some scale, and soft scores at another, need no special care."""
    rows = table.select(np.arange(400))
    score = rows.score.copy()
    score[:, -1], score[:, 0] = 1.0, 0.4
    options = FitOptions(rounds=10, threads=1)
    fitted = ComplexityPredictor.fit(rows.image_features, rows.question, score, rows.image_sha256, rows.ladder, options)
    predicted = fitted.predict_proba(rows.image_features, rows.question)
    assert predicted[:, -1].min() > 0.95 and np.abs(predicted[:, 0] - 0.4).max() < 0.05


def test_a_sample_known_at_every_scale_is_as_many_known_at_one(table: LabelTable):
    """Unknown scores (NaN) teach nothing: samples taken apart, a scale known of each part, give the same predictor."""
    rows = table.select(np.arange(200))
    options = FitOptions(rounds=10, threads=1)
    parts = rows.select(np.arange(len(rows)).repeat(len(LADDER)))
    known = np.tile(np.eye(len(LADDER), dtype=bool), (len(rows), 1))
    score = np.where(known, parts.score, np.nan)
    apart = ComplexityPredictor.fit(parts.image_features, parts.question, score, parts.image_sha256, LADDER, options)
    predicted = [p.predict_proba(rows.image_features, rows.question) for p in (fit(rows, options), apart)]
    assert np.array_equal(predicted[0], predicted[1])


def test_a_scale_that_nobody_scored_is_predicted_by_the_trees(table: LabelTable):
    """Without a score to calibrate by, the trees' own probabilities stand."""
    rows = table.select(np.arange(200))
    score = rows.score.copy()
    score[:, 1] = np.nan
    fitted = ComplexityPredictor.fit(
        rows.image_features, rows.question, score, rows.image_sha256, LADDER, FitOptions(rounds=10, threads=1)
    )
    assert (
        fitted.calibration[1].tolist() == [1.0, 0.0] and (fitted.calibration[[0, 2, 3, 4]] != [1.0, 0.0]).any(1).all()
    )
    assert np.isfinite(fitted.predict_proba(rows.image_features, rows.question)).all()
