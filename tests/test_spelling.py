"""Text told piece by piece is never taken back, and never holds what stops it."""

from hypothesis import given
from hypothesis import strategies as st

from serving.spelling import Spelling, tokens_of


def spell(letters: str, stops: tuple[str, ...]) -> tuple[list[str], Spelling]:
    """Tell a text letter by letter, as a model would, until it stops."""
    spelling = Spelling(lambda ids: letters[: len(ids)].strip(), stops)
    pieces = []
    for count in range(1, len(letters) + 1):
        pieces.append(spelling.add(range(count), last=count == len(letters)))
        if spelling.stopped:
            break
    return pieces, spelling


@given(st.text("ab \n", max_size=30), st.lists(st.text("ab ", min_size=1, max_size=3), max_size=3))
def test_pieces_are_the_text_up_to_the_first_stop(letters: str, stops: list[str]):
    pieces, spelling = spell(letters, tuple(stops))
    assert "".join(pieces) == spelling.told
    assert not any(stop in spelling.told for stop in stops)
    if spelling.stopped:
        assert letters.strip().startswith(spelling.told)
        assert any(letters.lstrip()[len(spelling.told) :].startswith(stop) for stop in stops)
    else:
        assert spelling.told == letters.strip()


def test_what_could_become_a_stop_is_held_back():
    pieces, spelling = spell("one STxx two STOP three", ("STOP",))
    assert "ST" not in pieces and spelling.told == "one STxx two " and spelling.stopped


def test_half_a_character_is_held_back():
    """Its other bytes make it another text."""
    spellings = {1: "a", 2: "a\ufffd", 3: "a\u00e9"}
    spelling = Spelling(lambda ids: spellings[len(ids)])
    assert [spelling.add(range(count), last=count == 3) for count in (1, 2, 3)] == ["a", "", "\u00e9"]


@given(st.text("a\u00e9\u6f22 ", max_size=12), st.data())
def test_tokens_belong_to_the_text_that_they_begin_in(text: str, data: st.DataObject):
    """However the bytes are cut into tokens, the tokens of a first part hold it, and the last of them is needed."""
    raw = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(raw) - 1)))))
    raws = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    bare = text.lstrip()
    told = bare[: data.draw(st.integers(0, len(bare)))]
    count = tokens_of(told, raws)

    def spelt(tokens: int) -> str:
        return b"".join(raws[:tokens]).decode(errors="ignore").lstrip()

    if told:
        assert len(spelt(count - 1)) < len(told)
        assert count == len(raws) or len(spelt(count)) >= len(told)
    else:
        assert count == 0
