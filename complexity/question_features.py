"""A question in numbers: hashed words and word pairs, and cues for what kind of detail it asks for.

The task of a request is not given when serving; whatever a task would tell must be read from these.
"""

import re
import zlib

import numpy as np

from complexity.colours import COLOURS

QUESTION_FEATURE_VERSION = "question-1"

BUCKETS = 128
CUES: dict[str, frozenset[str]] = {  # cue -> words that give it
    name: frozenset(words.split())
    for name, words in {
        "reading": "read reads say says said written write writes text word words letter letters spell title name",
        "sign": "sign signs label labels labeled plate poster page screen shirt banner",
        "number": "number numbers digit digits value values price cost costs total sum amount percent year date time",
        "counting": "many count number",
        "colour": "color colour colors colours colored coloured shade",
        "shape": "shape shapes circle square triangle diamond star cross ring rectangle round",
        "place": "where corner quadrant position side left right top bottom above below under over between next near",
        "order": "first second third last before after below above under following",
        "extreme": "largest biggest smallest highest lowest tallest shortest longest most least largest",
        "chart": "bar bars chart graph axis plot line pie",
        "document": "receipt item items invoice bill row column table line listed paid pay cost costs price total",
        "scene": "background backdrop picture image photo kind type sort scene show shows weather place",
        "yes_no": "is are was does do did can could has have",
    }.items()
}
_TOKENS = re.compile(r"[^\W_]+(?:[.'-][^\W_]+)*")
_QUOTED = re.compile(r"[\"“”«»'‘’][^\"“”«»'‘’]+[\"“”«»'‘’]")

QUESTION_FEATURE_NAMES: tuple[str, ...] = (
    "words",
    "longest_word",
    "capital_words",
    "longest_capital_word",
    "numbers",
    "quotes",
    "colours_named",
    *(f"cue_{cue}" for cue in CUES),
    *(f"hash_{bucket}" for bucket in range(BUCKETS)),
)


def question_features(question: str) -> np.ndarray:
    """Describe a question by the numbers in `QUESTION_FEATURE_NAMES`: (Q,) float32.

    Words in capitals, numbers and names of colours are hashed as what they are and not as which, so that questions of
    one kind look alike.
    """
    tokens = _TOKENS.findall(question)
    capitals = [token for token in tokens if len(token) > 1 and token.isupper()]
    numbers = [token for token in tokens if token[0].isdigit()]
    words = [token.lower() for token in tokens]
    told = [
        len(words),
        max(map(len, words), default=0),
        len(capitals),
        max(map(len, capitals), default=0),
        len(numbers),
        len(_QUOTED.findall(question)),
        int(colours_named(question).sum()),
    ]
    told += [sum(word in cue for word in words) for cue in CUES.values()]
    # a yes-no word counts at the beginning only: "is there a ring?" but not "what is the total?"
    told[-1] = int(bool(words) and words[0] in CUES["yes_no"])
    hashed = np.zeros(BUCKETS, np.float32)
    kinds = ["^", *map(_kind, tokens), "$"]
    for gram in (*kinds[1:-1], *(f"{one} {two}" for one, two in zip(kinds, kinds[1:], strict=False))):
        hashed[zlib.crc32(gram.encode()) % BUCKETS] = 1.0
    return np.concatenate([np.array(told, np.float32), hashed])


def kinds_of_words(question: str) -> list[str]:
    """The question's words as they are hashed: capitals, numbers and names of colours by kind, others in lower case.

    >>> kinds_of_words("Where is the red EXIT sign beside number 12?")
    ['where', 'is', 'the', '<COLOUR>', '<CAPITALS>', 'sign', 'beside', 'number', '<NUMBER>']
    """
    return [_kind(token) for token in _TOKENS.findall(question)]


def colours_named(question: str) -> np.ndarray:
    """Which of the colours a question names: (C,) float32 of 0 and 1 in the order of `COLOURS`."""
    words = {"gray" if word == "grey" else word for word in _TOKENS.findall(question.lower())}
    return np.array([colour in words for colour in COLOURS], np.float32)


def _kind(token: str) -> str:
    """What a token is hashed as."""
    if len(token) > 1 and token.isupper():
        return "<CAPITALS>"
    if token[0].isdigit():
        return "<NUMBER>"
    word = token.lower()
    return "<COLOUR>" if word in COLOURS or word == "grey" else word
