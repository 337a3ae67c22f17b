"""The drawn corpus: pictures and questions follow from split, seed and index, and splits share nothing."""

import re
from collections import Counter

import numpy as np
import pytest

from complexity.picture import decode_picture
from training_data.drawn.corpus import SPLITS, draw_item, nudged
from training_data.drawn.dense import HEADS, IGNORE, dense_targets
from training_data.drawn.picture import MAX_THINGS, SIDE_PX
from training_data.drawn.questions import FAMILIES, LATENT_NAMES, WORDINGS
from training_data.drawn.words import HELD_OUT_WORDS, WORDS

ITEMS = [draw_item("train", 0, index, questions=8) for index in range(250)]


@pytest.mark.parametrize("split", SPLITS)
def test_an_item_follows_from_split_seed_and_index(split):
    """The same three give the same bytes and questions, in any order of drawing."""
    one, other = draw_item(split, 3, 7, 5), draw_item(split, 3, 7, 5)
    assert one.png == other.png and one.questions == other.questions


def test_splits_and_seeds_share_no_picture():
    """No two of 400 pictures over splits and seeds are the same."""
    pictures = [draw_item(split, seed, i, 0).png for split in SPLITS for seed in (0, 1) for i in range(50)]
    assert len(set(pictures)) == len(pictures)


def test_pictures_hold_from_one_thing_to_thirty():
    """Density, which makes tokens scarce, covers its whole range."""
    counts = Counter(len(item.picture.things) for item in ITEMS)
    assert min(counts) == 1 and max(counts) >= MAX_THINGS - 2
    assert all(item.picture.image.size == (SIDE_PX, SIDE_PX) for item in ITEMS)


def test_every_family_is_asked_in_every_wording():
    """No family or training wording is unreachable, and each family has one held-out wording."""
    asked = {question.family for index in range(600) for question in draw_item("train", 1, index, 8).questions}
    assert asked == set(FAMILIES) == set(WORDINGS)
    assert all(len(set(wordings)) >= 3 for wordings in WORDINGS.values())


def test_held_out_wordings_and_words_stay_out_of_training():
    """What the shifted test shows is never drawn or asked in the other splits."""
    held_out = {wordings[-1].split("{")[0] for wordings in WORDINGS.values()}
    training = {wording for wordings in WORDINGS.values() for wording in wordings[:-1]}
    assert not {wording for wording in training if wording in held_out}
    assert not set(WORDS) & set(HELD_OUT_WORDS)
    names = {thing.name for item in ITEMS for thing in item.picture.things}
    assert not names & set(HELD_OUT_WORDS)


def test_questions_name_one_thing():
    """A sign or bar asked for by its colour is the only one of that colour."""
    for item in ITEMS:
        for question in item.questions:
            if question.family in ("read_word", "read_number", "read_code", "bar_label"):
                named = [thing for thing in item.picture.things if f" {thing.colour}" in question.text.lower()]
                assert len(named) == 1 and named[0].name == question.answer


def test_things_lie_where_the_answer_says():
    """An object or sign that is named in a question about its place is alone in its name, and in that quadrant."""
    asked = 0
    for item in (draw_item("train", 4, index, questions=10) for index in range(200)):
        for question in item.questions:
            if question.family in ("object_place", "sign_place"):
                names = [thing.name or f"{thing.colour} {thing.shape}" for thing in item.picture.things]
                (k,) = [i for i, name in enumerate(names) if re.search(rf"\b{name}\b", question.text)]
                x, y = item.picture.things[k].centre
                half = SIDE_PX / 2
                assert question.answer == f"{'top' if y < half else 'bottom'} {'left' if x < half else 'right'}"
                asked += 1
    assert asked > 100


def test_a_receipts_total_is_the_sum_of_its_rows():
    """The answer to "the total" can be checked against the rows."""
    receipts = [item.picture for item in ITEMS if item.picture.layout == "receipt"]
    assert receipts
    for picture in receipts:
        rows = [float(thing.value) for thing in picture.things if thing.kind == "row"]
        assert float(picture.total) == pytest.approx(sum(rows))


def test_yes_and_no_are_balanced():
    """A yes/no family can't be answered by always saying the same."""
    questions = [question for index in range(800) for question in draw_item("train", 2, index, 8).questions]
    for family in ("presence", "relation"):
        answers = Counter(question.answer for question in questions if question.family == family)
        assert set(answers) == {"yes", "no"} and 0.35 < answers["yes"] / answers.total() < 0.65


def test_latents_are_finite_and_named():
    """Every question carries what the informed bound may see."""
    for item in ITEMS:
        for question in item.questions:
            assert len(question.latents) == len(LATENT_NAMES) and np.isfinite(question.latents).all()


def test_the_png_is_the_picture():
    """The encoded bytes decode to the very pixels that were drawn."""
    item = ITEMS[0]
    assert (np.asarray(decode_picture(item.png).picture) == np.asarray(item.picture.image)).all()


def test_dense_labels_name_the_thing_under_a_cell():
    """A thing's centre cell says its kind; labels stay inside their classes."""
    names = [name for name, _ in HEADS]
    for item in ITEMS[:80]:
        labels = dense_targets(item.picture, 24)
        assert labels.shape == (576, len(HEADS))
        for i, (_, classes) in enumerate(HEADS):
            assert labels[:, i].min() >= IGNORE and labels[:, i].max() < classes
        assert (labels[:, names.index("centre")] == 1).sum() <= len(item.picture.things)
        assert (labels[:, names.index("kind")] >= 0).all()


def test_a_nudged_picture_is_the_picture_moved():
    """Another rendering has the same questions and the same pixels a step aside; 0 leaves the item as it is."""
    item = ITEMS[0]
    assert nudged(item, 0) is item
    again = nudged(item, 1)
    assert again.questions == item.questions and again.png != item.png and nudged(item, 1).png == again.png
    old, new = np.asarray(item.picture.image), np.asarray(again.picture.image)
    inner = old[2:-2, 2:-2]
    moved = [new[y : y + len(inner), x : x + len(inner)] for y in range(5) for x in range(5)]
    assert any(np.array_equal(inner, each) for each in moved)
