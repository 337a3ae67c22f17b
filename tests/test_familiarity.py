"""What is like the training data and what isn't, by picture and by question."""

import json

import numpy as np
import pytest
from PIL import Image

from complexity.familiarity import Familiarity
from complexity.image_features import image_features
from training_data.drawn.corpus import draw_item

ITEMS = {split: [draw_item(split, 0, i, 3) for i in range(400)] for split in ("train", "calibration", "test")}


def features_and_questions(split: str) -> tuple[np.ndarray, list[str]]:
    pairs = [(image_features(item.picture.image), q.text) for item in ITEMS[split] for q in item.questions[:1]]
    return np.stack([features for features, _ in pairs]), [question for _, question in pairs]


@pytest.fixture(scope="module")
def familiarity() -> Familiarity:
    return Familiarity.fit(*features_and_questions("train"), *features_and_questions("calibration"))


def test_familiar_traffic_passes(familiarity: Familiarity):
    """Of unseen pictures drawn in the same way fewer than 2% are called strange."""
    assert familiarity.knows(*features_and_questions("test")).mean() > 0.98


def test_noise_and_gradients_are_strange(familiarity: Familiarity):
    """Pictures that no corpus of drawings holds are told apart whatever is asked."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (192, 192, 3), dtype=np.uint8))
    red, other = Image.linear_gradient("L").resize((192, 192)), Image.radial_gradient("L").resize((192, 192))
    ramp = Image.merge("RGB", [red, other, other])
    features = np.stack([image_features(picture) for picture in (noise, ramp)])
    assert not familiarity.knows(features, ["What color is the background?"] * 2).any()


def test_another_language_is_strange_and_a_typing_error_is_not(familiarity: Familiarity):
    """A question counts as strange when more than a quarter of its words are new."""
    features, _ = features_and_questions("test")
    asked = ["What color is the backgruond?", "De qué color es el fondo?", "Welche Farbe hat der Hintergrund?"]
    assert familiarity.knows(features[[0, 0, 0]], asked).tolist() == [True, False, False]


def test_what_never_varied_in_training_is_not_judged():
    """A corpus of one size can't say that other sizes are strange."""
    rng = np.random.default_rng(0)
    features = np.column_stack([np.full(200, 7.0), rng.normal(size=(200, 3))])
    familiarity = Familiarity.fit(features, ["a"] * 200, features, ["a"] * 200)
    assert familiarity.knows(np.array([[9.0, 0.0, 0.0, 0.0]]), ["a"]).all()
    assert not familiarity.knows(np.array([[7.0, 9.0, 9.0, 9.0]]), ["a"]).any()


def test_it_survives_json(familiarity: Familiarity):
    """Written and read again it says the same."""
    again = Familiarity.from_json(json.loads(json.dumps(familiarity.as_json())))
    features, questions = features_and_questions("test")
    assert np.array_equal(again.distance(features), familiarity.distance(features))
    assert np.array_equal(again.knows(features, questions), familiarity.knows(features, questions))
    with pytest.raises(ValueError, match="fit each other"):
        Familiarity.from_json(familiarity.as_json() | {"mean": [0.0]})
