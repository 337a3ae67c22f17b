"""A question's numbers, and what picture and question say together."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from complexity.colours import COLOURS
from complexity.features import ASKED_NAMES, FEATURE_NAMES, joint_features
from complexity.image_features import IMAGE_FEATURE_NAMES
from complexity.question_features import QUESTION_FEATURE_NAMES, colours_named, question_features


def described(question: str) -> dict[str, float]:
    return dict(zip(QUESTION_FEATURE_NAMES, question_features(question).tolist(), strict=True))


@given(st.text(max_size=200))
def test_any_text_gives_finite_numbers(text: str):
    """Whatever a user writes has as many finite numbers as there are names."""
    features = question_features(text)
    assert features.shape == (len(QUESTION_FEATURE_NAMES),) and np.isfinite(features).all()


def test_cues_are_seen():
    """Words that tell the kind of question are counted; 'is' asks for yes or no only at the beginning."""
    assert described("How many red stars are there?")["cue_counting"] == 1
    assert described("What is written on the sign?")["cue_reading"] == 1
    assert described("Is there a ring?")["cue_yes_no"] == 1 and described("What is the total?")["cue_yes_no"] == 0
    told = described("How much is the 'TOTAL' of 12 items?")
    assert told["quotes"] == 1 and told["capital_words"] == 1 and told["longest_capital_word"] == 5
    assert told["numbers"] == 1 and told["words"] == 8


def test_which_word_colour_or_number_is_asked_for_is_not_hashed():
    """Questions that differ in a name, a colour or a number share their hashed words."""
    hashes = [name.startswith("hash_") for name in QUESTION_FEATURE_NAMES]
    for one, other in [
        ("What is below HORSE?", "What is below TAXI?"),
        ("Read the red sign.", "Read the grey sign."),
        ("What is the value of bar 7?", "What is the value of bar 12?"),
    ]:
        assert np.array_equal(question_features(one)[hashes], question_features(other)[hashes])
    assert not np.array_equal(question_features("Count them.")[hashes], question_features("Read them.")[hashes])


def test_colours_are_named():
    """Both spellings of gray count, case doesn't, and parts of words don't."""
    assert [c for c, named in zip(COLOURS, colours_named("Is RED left of grey?"), strict=True) if named] == [
        "red",
        "gray",
    ]
    assert colours_named("Is it covered?").sum() == 0


def test_hashes_do_not_change_from_run_to_run():
    """Another process, whose str hashes are salted differently, gets the same numbers."""
    code = "from complexity.question_features import question_features as f; print(f('Read the sign.').tobytes().hex())"
    runs = [
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True)
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout != ""
    assert bytes.fromhex(runs[0].stdout) == question_features("Read the sign.").tobytes()


def test_the_part_of_the_picture_that_is_asked_for_is_looked_at():
    """The share of the colour named; the smallest of several; unknown when none is named."""
    picture = dict.fromkeys(IMAGE_FEATURE_NAMES, 0.0)
    picture |= {"share_red": 0.5, "share_blue": 0.125}
    row = np.array(list(picture.values()), np.float32)
    questions = ["Read the red sign.", "Is the red ring above the blue star?", "How many are there?"]
    columns = joint_features(np.tile(row, (3, 1)), questions)
    assert columns.shape == (3, len(FEATURE_NAMES)) and columns.dtype == np.float32
    asked = columns[:, [FEATURE_NAMES.index(name) for name in ASKED_NAMES]]
    assert asked[:2].tolist() == [[0.5], [0.125]] and np.isnan(asked[2]).all()


def test_pictures_and_questions_must_be_as_many():
    """Two pictures with one question are a mistake of the caller."""
    with pytest.raises(ValueError, match="2 pictures for 1 questions"):
        joint_features(np.zeros((2, len(IMAGE_FEATURE_NAMES)), np.float32), ["One?"])
