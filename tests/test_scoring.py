"""The measures of right answers, each on cases that its benchmark's definition decides."""

import pytest

from complexity.errors import InvalidInput
from training_data.scoring import SCORERS, anls, choice, contains, exact_match, relaxed, scorer, yes_no
from training_data.vqa import normalised, vqa_accuracy

COLOURS = ("red", "dark red", "blue", "none of the above")


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("EXIT", ["EXIT"], 1.0),
        (" exit\n", ["EXIT"], 1.0),
        ("3.40", ["3.4", "3.40"], 1.0),
        ("Exit.", ["EXIT"], 1.0),
        ("St", ["St."], 1.0),
        ("EXI", ["EXIT"], 0.0),
        ("", ["EXIT"], 0.0),
        ("yes", [], 0.0),
    ],
)
def test_exact_match(prediction, references, expected):
    """Right is the whole answer, case, outer blanks and a last period aside."""
    assert exact_match(prediction, references) == expected


@pytest.mark.parametrize(("people", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_vqa_accuracy_of_ten_people(people, expected):
    """The values that the challenge publishes for n of ten people with the same answer."""
    assert vqa_accuracy("cat", ["cat"] * people + [f"dog{k}" for k in range(10 - people)]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("references", "expected"),
    [
        (["cat"], 1.0),
        (["dog"], 0.0),
        ([], 0.0),
        (["cat", "dog", "cow", "bat", "rat"], 0.6),  # OK-VQA's five people, each twice among ten
        (["cat", "cat", "cow", "bat", "rat"], 1.0),
        (["cat", *["dog"] * 11], 11 / 36),  # twelve people: none of the others for one, a third for eleven
    ],
)
def test_other_than_ten_people_count_as_shares(references, expected):
    """Fewer references are weighed up to ten; more are taken as they are."""
    assert vqa_accuracy("cat", references) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("A dog.", "dog"),
        ("  The   Two\ndogs ", "2 dogs"),
        ("none", "0"),
        ("dont know", "don't know"),
        ("couldntve", "couldntve"),  # the original's list has those that lack one apostrophe only
        ("couldnt've", "couldn't've"),
        ("yall'll", "y'all'll"),
        ("im", "im"),  # and this with a capital, which no text has when it is looked up
        ("someonell", "someone'll"),
        ("somebody'd", "somebodyd"),
        ("red,\nblue", "red blue"),
        ("t-shirt\n-", "tshirt"),  # a mark beside the end of a line goes everywhere, as beside a blank
        ("couldn'tve", "couldn't've"),
        ("well, were ill", "well were ill"),  # words of their own
        ("1,000", "1000"),
        ("1,000-2,000", "10002000"),  # beside thousands every mark goes, as in the original
        ("blue/green", "blue green"),
        ("blue / green", "blue green"),
        ("t-shirt", "t shirt"),
        ("3.40", "3.40"),
        ("3.", "3"),
        ("St. Mary's", "st mary's"),
        ("10:15", "10:15"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("the", ""),
    ],
)
def test_vqa_answers_are_normalised(answer, expected):
    """Articles, punctuation and capitals go; numbers to ten become digits, contractions get their apostrophes."""
    assert normalised(answer) == expected


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("Coca-Cola", ["coca-cola"], 1.0),
        ("Coca Cole", ["coca cola"], 8 / 9),
        ("kitten", ["sitting"], 1 - 3 / 7),
        ("abcd", ["abxy"], 0.5),  # half of it edited: scripts in use count it
        ("abcde", ["abxyz"], 0.0),
        ("abcde", ["abcxy"], 0.6),
        ("Sunday", ["Saturday", "sundays"], 6 / 7),  # the nearest of several
        ("", ["x"], 0.0),
        ("x", [], 0.0),
    ],
)
def test_anls(prediction, references, expected):
    """One minus edits per character, cut off at half."""
    assert anls(prediction, references) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("105", ["100"], 1.0),
        ("95", ["100"], 1.0),
        ("105.1", ["100"], 0.0),
        ("-95", ["-100"], 1.0),
        ("0.21", ["0.2"], 1.0),
        ("20%", ["0.2"], 1.0),
        ("20%", ["20"], 0.0),
        ("20 %", ["0.2"], 1.0),
        ("0", ["0.0"], 1.0),
        ("0.01", ["0"], 0.0),
        ("Blue", ["blue"], 1.0),
        ("blue", ["blues"], 0.0),
        ("Yes", ["No", "yes"], 1.0),
        ("1,200", ["1200"], 0.0),
        ("nan", ["nan"], 1.0),
        ("inf", ["1"], 0.0),
    ],
)
def test_relaxed(prediction, references, expected):
    """Numbers within 5%, texts exactly."""
    assert relaxed(prediction, references) == expected


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("B", "B", 1.0),
        ("(B)", "B", 1.0),
        ("B.", "B", 1.0),
        ("b) dark red", "B", 1.0),
        ("B. dark red", "B", 1.0),
        ("The answer is B", "B", 1.0),
        ("The answer is B.", "B", 1.0),
        ("The correct answer is (b), since", "B", 1.0),
        ("Answer: B", "B", 1.0),
        ("I'd say option C here", "C", 1.0),
        ("**B**", "B", 1.0),
        ("**B. dark red**", "B", 1.0),
        ("dark red", "B", 1.0),
        ("Dark red.", "B", 1.0),
        ("It is dark red", "B", 1.0),
        ("It is dark red", "A", 0.0),
        ("It is red", "A", 1.0),
        ("red or blue", "A", 0.0),
        ("the answer is A or the answer is C", "A", 0.0),
        ("A red thing", "A", 1.0),  # by its text
        ("A thing", "A", 0.0),  # an article
        ("The answer is a thing", "A", 0.0),
        ("E", "E", 0.0),  # no such option
        ("C", "B", 0.0),
        ("C", "blue", 1.0),
        ("", "B", 0.0),
    ],
)
def test_choice(prediction, reference, expected):
    """A letter however it is dressed, or an option's text."""
    assert choice(prediction, [reference], COLOURS) == expected


def test_a_choice_without_texts_is_by_letter():
    """Options may be in the question alone."""
    assert choice("(C)", ["C"], ()) == 1.0 and choice("blue", ["C"], ()) == 0.0


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("Yes", "yes", 1.0),
        ("yes.", "yes", 1.0),
        ("No, there isn't", "no", 1.0),
        ("Yes, there is no doubt", "yes", 1.0),
        ("There is no dog.", "no", 1.0),
        ("It is not. Yes", "no", 1.0),
        ("There is a dog", "yes", 1.0),
        ("There is nothing", "yes", 1.0),  # a word of its own, as POPE has it
        ("", "yes", 0.0),
        ("", "no", 0.0),
        ("no", "yes", 0.0),
    ],
)
def test_yes_no(prediction, reference, expected):
    """The first word, or else whether the first sentence denies."""
    assert yes_no(prediction, [reference]) == expected


def test_contains():
    """A reference anywhere in the answer."""
    assert contains("The sign says\nSTOP HERE", ["stop  here"]) == 1.0
    assert contains("The sign", ["stop", ""]) == 0.0


def test_every_scorer_takes_options_and_stays_in_range():
    """They can be exchanged by name; without references nothing is right."""
    for name, score in SCORERS.items():
        assert scorer(name) is score
        assert score("B", ["B"], ("x", "y")) == 1.0
        assert score("B", [], ("x", "y")) == 0.0
    with pytest.raises(InvalidInput, match="no scorer 'bleu'; choose one of exact, vqa"):
        scorer("bleu")
