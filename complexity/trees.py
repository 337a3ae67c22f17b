"""LightGBM's text of its trees, checked to the last number before LightGBM reads it.

LightGBM trusts its text: of files with one number exchanged, two in five aborted the process, and some crashed it or
never ended, while they were read or when they predicted. So nothing reaches it that it wouldn't have written.
"""

import math
import re
from collections.abc import Sequence

END = "end of trees\n"  # what follows are importances and parameters of the training, which decide nothing
MOST_LEAVES = 1024  # of a tree; also bounds its depth, and with it LightGBM's stack
DECISIONS = frozenset({"0", "2", "4", "6", "8", "10"})  # no categories; where missing values go
WHOLE = re.compile(r"-?[0-9]{1,9}")
ALL_KNOWN = "inf"  # the threshold of a split that parts samples of unknown value from all others
REAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?(e[+-][0-9]{1,3})?")
INFO = re.compile(rf"none|\[{REAL.pattern}:{REAL.pattern}\]")
SPLITS = ("split_gain", "internal_value", "internal_weight")  # a number for each split
HEAD = ("version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx", "objective")
TREE = (
    *("num_leaves", "num_cat", "split_feature", "split_gain", "threshold", "decision_type", "left_child"),
    *("right_child", "leaf_value", "leaf_weight", "leaf_count", "internal_value", "internal_weight", "internal_count"),
    *("is_linear", "shrinkage"),
)


def checked_trees(text: str, features: int) -> str:
    """The part of a model's text that predicts, after checking that LightGBM can read it and ends.

    Args:
        text: what LightGBM's `save_model` wrote, of one cross-entropy model without categorical features.
        features: columns that it predicts from.

    Raises:
        ValueError: it isn't such a text; the message says what is wrong where.
    """
    head, found, body = text.partition("\n\n")
    body, ended, _ = body.partition(END)
    if not found or not ended:
        raise ValueError("the trees have no beginning or no end")
    sizes = _check_head(head.split("\n"), features)
    at = 0
    for tree, size in enumerate(sizes):
        try:
            _check_tree(body[at : at + size], tree, features)
        except ValueError as error:
            raise ValueError(f"tree {tree}: {error}") from None
        at += size
    if at != len(body):
        raise ValueError(f"{len(sizes)} trees don't fill the file")
    return head + found + body + ended


def _check_head(lines: Sequence[str], features: int) -> list[int]:
    """Returns the sizes of the trees' texts."""
    wanted = ["tree", *map("=".join, zip(HEAD, ("v4", "1", "1", "0", str(features - 1), "cross_entropy"), strict=True))]
    wanted.append("feature_names=" + " ".join(f"Column_{i}" for i in range(features)))
    if list(lines[: len(wanted)]) != wanted or len(lines) != len(wanted) + 2:
        raise ValueError(f"not a cross-entropy model of {features} features in LightGBM's format v4")
    infos, sizes = lines[-2].partition("=")[2].split(" "), lines[-1].partition("=")[2].split(" ")
    if not lines[-2].startswith("feature_infos=") or len(infos) != features or not all(map(INFO.fullmatch, infos)):
        raise ValueError("feature_infos aren't ranges of the features")
    if not lines[-1].startswith("tree_sizes=") or not all(map(WHOLE.fullmatch, sizes)) or "-" in lines[-1]:
        raise ValueError("tree_sizes aren't whole numbers")
    return [int(size) for size in sizes]


def _check_tree(text: str, tree: int, features: int) -> None:
    lines = text.split("\n")
    named = [line.partition("=")[0] for line in lines]
    if named != ["Tree", *TREE, "", "", ""] or lines[0] != f"Tree={tree}":
        raise ValueError("its lines aren't LightGBM's")
    told = {line.partition("=")[0]: line.partition("=")[2] for line in lines}
    if (told["num_cat"], told["is_linear"]) != ("0", "0"):
        raise ValueError("it splits by categories or has linear leaves")
    (leaves,) = _whole(told["num_leaves"], 1, 1, MOST_LEAVES)
    splits = leaves - 1
    _whole(told["split_feature"], splits, 0, features - 1)
    _whole(told["internal_count"], splits, 1, 10**9)
    _whole(told["leaf_count"], leaves, 0, 10**9)
    for name in SPLITS:
        _check_real(told[name], splits)
    _check_real(told["threshold"], splits, ALL_KNOWN)
    _check_real(told["leaf_value"], leaves)
    _check_real(told["leaf_weight"], leaves if splits else 0)  # LightGBM leaves out a lone leaf's
    _check_real(told["shrinkage"], 1)
    if not DECISIONS.issuperset(_words(told["decision_type"], splits)):
        raise ValueError("decision_type is none that this code knows")
    left, right = (_whole(told[name], splits, -leaves, splits - 1) for name in ("left_child", "right_child"))
    if any(0 <= child <= split for split, pair in enumerate(zip(left, right, strict=True)) for child in pair):
        raise ValueError("a split leads back to an earlier one")
    if splits and sorted([*left, *right]) != [*range(-leaves, 0), *range(1, splits)]:
        raise ValueError("its splits and leaves don't form a tree")


def _words(text: str, count: int) -> list[str]:
    words = text.split(" ") if text else []
    if len(words) != count:
        raise ValueError(f"{len(words)} numbers where {count} are expected")
    return words


def _whole(text: str, count: int, least: int, most: int) -> list[int]:
    words = _words(text, count)
    numbers = [int(word) for word in words if WHOLE.fullmatch(word)]
    if len(numbers) != count or any(not least <= number <= most for number in numbers):
        raise ValueError(f"a number is not a whole one from {least} to {most}")
    return numbers


def _check_real(text: str, count: int, but: str | None = None) -> None:
    words = [word for word in _words(text, count) if word != but]
    if not all(REAL.fullmatch(word) and math.isfinite(float(word)) for word in words):
        raise ValueError("a number is not finite")
