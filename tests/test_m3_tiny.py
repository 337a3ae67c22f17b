"""The shipped m3-tiny does what its card says, roughly, on pictures that nobody learnt from."""

import numpy as np
import pytest

from serving.m3 import M3_TINY, load
from training_data.sweep import draw_items, label_rows

COARSE = ("background", "picture_kind")  # families that a handful of tokens answer
FINE = ("read_word", "read_number", "receipt_price", "bar_value")


@pytest.mark.slow
def test_finer_scales_answer_more_and_some_families_do_not_need_them():
    """Accuracy rises with tokens; backgrounds need few of them, and small text needs many."""
    m3 = load()
    items = list(draw_items("test", 7, pairs=400, questions=6))
    rows = [row for start in range(0, len(items), 16) for row in label_rows(m3, items[start : start + 16])]

    def accuracy(tokens: int, families: tuple[str, ...] | None = None) -> float:
        return float(np.mean([r.score for r in rows if r.tokens == tokens and (not families or r.task in families)]))

    assert accuracy(576) > 0.7
    assert accuracy(576) > accuracy(1) + 0.2
    assert accuracy(9, COARSE) > 0.9
    assert accuracy(576, FINE) > accuracy(9, FINE) + 0.2


def test_the_weights_are_small():
    """What a clone downloads stays under 16 MB."""
    assert sum(file.stat().st_size for file in M3_TINY.iterdir()) <= 16_000_000
