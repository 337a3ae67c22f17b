"""The engine: pictures are encoded once for every scale and question, within bounds of memory."""

import numpy as np
from doubles import LADDER, FakeM3
from m3_toys import toy_m3

from serving.engine import Engine
from serving.m3.tower_features import tower_features
from serving.model import Ask, Look, Pixels
from training_data.corpus import draw_item


class CountingM3(FakeM3):
    """Remembers how many pictures it has encoded."""

    encoded = 0

    def encode(self, pictures):
        self.encoded += len(pictures)
        return super().encode(pictures)


def ask(name: str, tokens: int = 1, question: str = "What?") -> Ask:
    shade = ord(name)
    return Ask(Pixels(2, 1, bytes([shade] * 6)), name, question, tokens, 8)


def test_a_picture_is_encoded_once_for_all_its_scales_and_questions():
    """Within a batch and over batches; each ask still gets its own picture's answer at its own scale."""
    m3 = CountingM3()
    engine = Engine(m3)
    first = engine.answer([ask("a"), ask("b", 9), ask("a", 576, "And?")])
    again = engine.answer([ask("b", 36), ask("a")])
    assert m3.encoded == 2
    assert [answer.visual_tokens for answer in first + again] == [1, 9, 576, 36, 1]
    assert first[1].text == again[0].text == "98,98,98 What?" and first[2].text == "97,97,97 And?"


def test_what_is_kept_is_bounded_and_the_oldest_goes_first():
    """Two pictures' worth of memory holds the two used last; a picture that is too large is answered all the same."""
    m3 = CountingM3()
    picture_bytes = max(LADDER) * 3 * 4
    engine = Engine(m3, memory_bytes=2 * picture_bytes)
    for name, total in [("a", 1), ("b", 2), ("a", 2), ("c", 3), ("a", 3), ("b", 4)]:
        engine.answer([ask(name)])
        assert m3.encoded == total, name
    tiny = Engine(CountingM3(), memory_bytes=1)
    assert [tiny.answer([ask("a"), ask("b")])[i].text for i in (0, 1)] == ["97,97,97 What?", "98,98,98 What?"]


def test_a_look_is_what_the_tower_sees_and_spares_the_answer_the_tower():
    """The numbers are those that sweeps store, and the picture's visual tokens wait for its question."""
    m3 = toy_m3()
    engine = Engine(m3)
    picture = draw_item("test", 0, 0, 1).picture.image
    pixels = Pixels(*picture.size, picture.tobytes())
    (seen,) = engine.look([Look(pixels, "digest")])
    (encoded,) = m3.encode([picture])
    np.testing.assert_allclose(seen, tower_features(encoded.tiles, m3.ladder), rtol=1e-4, atol=1e-5)
    assert list(engine._seen) == ["digest"]
    assert engine.answer([Ask(pixels, "digest", "What is it?", 9, 2)])[0].visual_tokens == 9


def test_a_kept_picture_holds_its_own_memory_and_not_its_batchs():
    """Tokens of a batch are views of one tensor; what is kept is as large as it is counted."""
    m3 = toy_m3()
    engine = Engine(m3)
    pictures = [draw_item("test", 0, index, 1).picture.image for index in range(3)]
    engine.look([Look(Pixels(*each.size, each.tobytes()), str(i)) for i, each in enumerate(pictures)])
    for encoded in engine._seen.values():
        assert encoded.tiles.untyped_storage().nbytes() == encoded.tiles.nbytes
