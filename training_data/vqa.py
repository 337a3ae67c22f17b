"""The soft accuracy of VQA (Antol et al. 2015, arXiv 1505.00468), as the challenge's evaluation computes it.

Held against `vlmeval/dataset/utils/vqa_eval.py` of open-compass/VLMEvalKit and
`lmms_eval/tasks/_task_utils/vqa_eval_metric.py` of EvolvingLMMs-Lab/lmms-eval, which both go back to the challenge's
vqaEval.py (GT-Vision-Lab/VQA); the oldest version of that takes colons and apostrophes for punctuation too. TextVQA's
own evaluation, which is the second's, joins "red,blue" where the challenge parts it.
"""

import re
from collections.abc import Sequence

REFERENCES = 10  # that a question of VQA, TextVQA or VizWiz has
ENOUGH = 3  # of the others say so: then an answer is wholly right
ARTICLES = ("a", "an", "the")
NUMBERS = {word: str(n) for n, word in enumerate("zero one two three four five six seven eight nine ten".split())}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # what the evaluation takes out; not the apostrophe, the colon or the period
_THOUSANDS = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
# Those of the evaluation's list that can apply once capitals are gone ("im" and "ive" stay), with their apostrophes.
_CONTRACTIONS = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd "
    "he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've "
    "must've mustn't needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've "
    "somebody'd've somebody'll somebody's someone'd someone'd've someone's something'd something'd've "
    "something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't "
    "we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll "
    "who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've "
    "you'd you'd've you'll you're you've"
)


def vqa_accuracy(prediction: str, references: Sequence[str], options: Sequence[str] = ()) -> float:
    """min(1, matches / 3) against each nine of ten people's answers, averaged; both sides are normalised first.

    One person's answer that matches alone makes 0.3, two make 0.6, three 0.9, four 1. The challenge's script leaves
    the texts as they are where all ten people agree to the letter; here they are normalised always.

    Fewer than ten references count as shares of ten, which is what OK-VQA does with five people's answers (each stands
    twice): a single reference that matches is worth 1.

    >>> round(vqa_accuracy("Two.", ["2"] * 3 + ["3"] * 7), 3)
    0.9
    """
    said = normalised(prediction)
    if not references:
        return 0.0
    share = max(1.0, REFERENCES / len(references))
    total = share * len(references)
    matches = share * sum(normalised(reference) == said for reference in references)
    left_out_matches, left_out_differs = min(1.0, max(0.0, matches - 1) / ENOUGH), min(1.0, matches / ENOUGH)
    return (matches * left_out_matches + (total - matches) * left_out_differs) / total


def normalised(answer: str) -> str:
    """An answer without punctuation, articles and capitals, numbers to ten in digits, contractions spelt in full.

    >>> normalised("The dogs aren't two, are they?")
    "dogs aren't 2 are they"
    """
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    joined = _THOUSANDS.search(text) is not None
    bare = text
    for mark in PUNCTUATION:
        # A mark beside a blank goes; one between words becomes a blank. In 1,000 all marks go.
        gone = joined or f"{mark} " in text or f" {mark}" in text
        bare = bare.replace(mark, "" if gone else " ")
    words = _PERIOD.sub("", bare).lower().split()
    words = [NUMBERS.get(word, "0" if word == "none" else word) for word in words]
    return " ".join(_SPELT.get(word, word) for word in words if word not in ARTICLES)


def _lacking_one(word: str) -> list[str]:
    """The word with one of its apostrophes missing; with two missing the evaluation leaves it as it is."""
    return [word[:k] + word[k + 1 :] for k, letter in enumerate(word) if letter == "'"]


_SPELT = {wrong: word for word in _CONTRACTIONS.split() for wrong in _lacking_one(word)}
_SPELT["someonell"] = "someone'll"
_SPELT["somebody'd"] = "somebodyd"  # the evaluation's list has this one the wrong way round
