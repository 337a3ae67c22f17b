"""The shipped m3-tiny does what its card says, roughly, on pictures that nobody learnt from."""

import numpy as np
import pytest

from serving.m3 import M3_TINY, NewRow, load
from serving.model import Reads, Turn
from training_data.drawn.corpus import draw_item
from training_data.scoring import exact_match
from training_data.sweep import draw_items, label_rows

COARSE = ("background", "picture_kind")  # families that a handful of tokens answer
FINE = ("read_word", "read_number", "receipt_price", "bar_value")
RULES = (
    "You are the assistant of an online shop. Customers send you photographs of receipts, price tags, signs and "
    "charts, and ask about what is written on them. Answer politely, in English, and never guess: if something can't "
    "be read, say so. Don't talk about politics, and don't give legal or medical advice."
)


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


@pytest.mark.long
@pytest.mark.slow
def test_what_it_does_not_read_would_harm():
    """An earlier turn, another picture or a long system message before the question costs more than two points."""
    m3 = load()
    items = [item for item in (draw_item("test", 7, index, 4) for index in range(80)) if len(item.questions) == 4]
    encoded = [m3.encode([item.picture.image])[0] for item in items]

    def accuracy(system: str = "", turn: bool = False, other: bool = False) -> float:
        scores = []
        for i, item in enumerate(items):
            shown = [encoded[i - 1], encoded[i]] if other else [encoded[i]]
            rows = m3.rows()
            for k in (1, 3):
                before, question = item.questions[k - 1 : k + 1]
                history = (Turn(before.text, before.answer, 1),) if turn else ()
                rows.join([NewRow(k, m3.prepare(question.text, shown, 144, 24, system, history).embeds, 24)])
            ids: dict[int, list[int]] = {1: [], 3: []}
            while len(rows):
                for said in rows.say():
                    ids[said.owner].append(said.token)
                rows.leave({k for k in ids if ids[k][-1] in m3.stops or len(ids[k]) == 24})
                rows.advance()
            scores += [exact_match(m3.text(ids[k]), [item.questions[k].answer]) for k in ids]
        return float(np.mean(scores))

    assert m3.reads == Reads(history=False, system=False, pictures=1)
    harmless = accuracy() - 0.02
    assert max(accuracy(turn=True), accuracy(other=True), accuracy(system=RULES)) < harmless


def test_the_weights_are_small():
    """What a clone downloads stays under 16 MB."""
    assert sum(file.stat().st_size for file in M3_TINY.iterdir()) <= 16_000_000
