"""How right is an answer? Per sample, in [0, 1]: the measures that benchmarks are judged by, named in `SCORERS`."""

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from complexity.errors import InvalidInput
from training_data.vqa import vqa_accuracy

Scorer: TypeAlias = Callable[[str, Sequence[str], Sequence[str]], float]
"""(prediction, references, options of a multiple choice) -> score in [0, 1]; 0 where there are no references."""

ANLS_THRESHOLD = 0.5
TOLERANCE = 0.05  # of a number's value
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NAMED = re.compile(
    r"\b(?i:answer|option|choice)\b(?:\s+is)?\s*:?\s*"
    r"(?:\(([A-Za-z])\)|([A-Z])(?![\w'’])|([a-z])(?=[.)]?\s*$))"  # not "the answer is a dog"
)
_LEADING = re.compile(r"(?:\(([A-Za-z])\)|([A-Za-z])(?:[.:)](?=\s|$)|$))")


def exact_match(prediction: str, references: Sequence[str], options: Sequence[str] = ()) -> float:
    """1.0 where the prediction is one of the references, case, outer blanks and a last period aside; else 0.0.

    So LLaVA's evaluation hands answers to GQA's (`scripts/convert_gqa_for_eval.py` of haotian-liu/LLaVA).

    >>> exact_match(" Exit.", ["EXIT"])
    1.0
    """
    said = _bare(prediction)
    return float(any(said == _bare(reference) for reference in references))


def contains(prediction: str, references: Sequence[str], options: Sequence[str] = ()) -> float:
    """1.0 where a reference stands somewhere in the prediction, as OCRBench counts (arXiv 2305.07895); else 0.0.

    Case and kinds of blanks don't matter; a reference may be part of a word, "10" holds "1".

    >>> contains("The total is 15.30.", ["15.30", "$15.30"])
    1.0
    """
    said = _plain(prediction)
    return float(any(_plain(reference) in said for reference in references if reference.strip()))


def anls(prediction: str, references: Sequence[str], options: Sequence[str] = ()) -> float:
    """Normalised Levenshtein similarity to the nearest reference (Biten et al. 2019, arXiv 1905.13648, equation 1).

    1 - edits / length of the longer text, where edits are at most half of it, and 0 elsewhere: an answer that is
    about as far off as another word isn't a misreading. Case and kinds of blanks don't matter. Averaged over
    samples it is ANLS. Exactly half counts in scripts in use (`lmms_eval/api/metrics.py` of EvolvingLMMs-Lab/lmms-eval,
    after Qwen-VL's; `vlmeval/dataset/utils/vqa_eval.py` of open-compass/VLMEvalKit), and not in the paper's equation.

    >>> anls("Coca Cole", ["coca cola", "Coca Cola Company"])
    0.8888888888888888
    """
    said = _plain(prediction)
    return max((_similarity(said, _plain(reference)) for reference in references), default=0.0)


def relaxed(prediction: str, references: Sequence[str], options: Sequence[str] = ()) -> float:
    """1.0 where a number is within 5% of a reference's, or a text is the reference, case aside; else 0.0.

    ChartQA's relaxed accuracy (Masry et al. 2022, arXiv 2203.10244, after PlotQA). A percent
    sign divides by a hundred; "1,200" and "$5" are texts, as in the scripts in use (`lmms_eval/tasks/chartqa/utils.py`
    of EvolvingLMMs-Lab/lmms-eval, after Qwen-VL's and pix2struct's); the bound itself is in. Zero must be met exactly;
    those scripts want it in the same letters, and "0.0" is not "0".
    """
    return max((_relaxed_to(prediction, reference) for reference in references), default=0.0)


def choice(prediction: str, references: Sequence[str], options: Sequence[str] = ()) -> float:
    """1.0 where the prediction chooses the option that a reference names by its letter or its text; else 0.0.

    Read are, in this order: an option's whole text; a leading letter, "B", "(B)", "B.", "b) red"; "the answer is B",
    "Option (B)"; an option's text within a sentence, if no other's is there; stars that make a letter bold don't
    matter. The steps are those by which MMBench reads a choice before it asks a language model (arXiv 2307.06281;
    `vlmeval/utils/matching_util.py` of open-compass/VLMEvalKit), which also takes the only letter anywhere. ScienceQA's
    are "B", "B. red" and "The answer is B" (`llava/eval/eval_science_qa.py` of haotian-liu/LLaVA). MMMU's evaluation
    takes the last of several letters, and guesses where there is none (`lmms_eval/tasks/mmmu/utils.py`); here a
    letter without an option, and two of them, choose nothing.
    """
    right = {_chosen(reference, options) for reference in references}
    return float(_chosen(prediction, options) in right - {None})


def yes_no(prediction: str, references: Sequence[str], options: Sequence[str] = ()) -> float:
    """1.0 where yes is said to yes, or no to no; else 0.0.

    A first word "yes" or "no" says it. Otherwise as POPE's evaluation reads answers (arXiv 2305.10355;
    `llava/eval/eval_pope.py` of haotian-liu/LLaVA): "no" or "not" in the first sentence is no, and anything else yes;
    but silence is neither. lmms-eval takes the bare words alone (`lmms_eval/tasks/pope/utils.py`), and for MME what is
    within the first four letters (`lmms_eval/tasks/mme/utils.py`).
    """
    said = _yes_or_no(prediction)
    return float(said != "" and any(said == _yes_or_no(reference) for reference in references))


SCORERS: dict[str, Scorer] = {
    "exact": exact_match,
    "vqa": vqa_accuracy,
    "anls": anls,
    "relaxed": relaxed,
    "choice": choice,
    "yes_no": yes_no,
    "contains": contains,
}


def scorer(name: str) -> Scorer:
    """A measure by its name.

    Raises:
        InvalidInput: there is none of that name.
    """
    if name not in SCORERS:
        raise InvalidInput(f"there is no scorer {name!r}; choose one of {', '.join(SCORERS)}")
    return SCORERS[name]


def _bare(text: str) -> str:
    return text.strip().rstrip(".").casefold().strip()


def _plain(text: str) -> str:
    """Without capitals, with single blanks."""
    return " ".join(text.casefold().split())


def _similarity(said: str, right: str) -> float:
    longer = max(len(said), len(right))
    if not longer:
        return 1.0
    distance = _edits(said, right) / longer
    return 1 - distance if distance <= ANLS_THRESHOLD else 0.0


def _edits(first: str, second: str) -> int:
    """Levenshtein distance: fewest insertions, deletions and substitutions of characters."""
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, 1):
        above = row
        row = [i]
        for j, other in enumerate(second, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (letter != other)))
    return row[-1]


def _relaxed_to(prediction: str, reference: str) -> float:
    said, right = _number(prediction), _number(reference)
    if said is not None and right:
        # The last digit of a decimal fraction must not decide: 105 is within 5% of 100.
        return float(abs(said - right) <= TOLERANCE * abs(right) * (1 + 1e-9))
    if said is not None and right is not None:
        return float(said == right)
    return float(_plain(prediction) == _plain(reference))


def _number(text: str) -> float | None:
    bare = text.strip().rstrip("%").strip()
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", bare, re.ASCII):
        return None
    return float(bare) / (100 if text.strip().endswith("%") else 1)


def _chosen(text: str, options: Sequence[str]) -> int | None:
    """The option's place, if exactly one is chosen."""
    said = _plain(text).strip(" .")
    known = [_plain(option).strip(" .") for option in options]
    if said in known:
        return known.index(said)
    plain = text.replace("*", "").strip()
    leading = _LEADING.match(plain)
    named = [leading] if leading else list(_NAMED.finditer(plain))
    places = {LETTERS.index(next(filter(None, match.groups())).upper()) for match in named}
    if not places:
        within = {
            k for k, option in enumerate(known) if option and re.search(rf"(?<!\w){re.escape(option)}(?!\w)", said)
        }
        places = {k for k in within if not any(known[k] in known[j] for j in within - {k})}  # not "red" in "dark red"
    if len(places) != 1 or options and max(places) >= len(options):
        return None
    return places.pop()


def _yes_or_no(text: str) -> str:
    words = re.findall(r"[^\W_]+", text.casefold().strip().split(".")[0])
    if words and words[0] in ("yes", "no"):
        return words[0]
    if "no" in words or "not" in words:
        return "no"
    return "yes" if words else ""
