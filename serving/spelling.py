"""An answer's text while it is written: what can be told already, and where it stops."""

from codecs import getincrementaldecoder
from collections.abc import Callable, Sequence

UNFINISHED = "\ufffd"  # a character whose bytes aren't all there yet


class Spelling:
    """Turns a growing list of token ids into text that never has to be taken back.

    Args:
        text: token ids -> the text they spell.
        stops: texts that end the answer, and don't belong to it.
    """

    def __init__(self, text: Callable[[Sequence[int]], str], stops: Sequence[str] = ()):
        self._text = text
        self._stops = stops
        self.told = ""
        """The text so far."""
        self.stopped = False
        """Whether one of the stops came."""

    def add(self, ids: Sequence[int], last: bool) -> str:
        """What the ids say beyond `told`; some is held back until `last` or until it can't become a stop."""
        whole = self._text(ids)
        found = [at for stop in self._stops if (at := whole.find(stop)) >= 0]
        if found:
            self.stopped = True
            safe = min(found)
        elif last:
            safe = len(whole)
        else:
            safe = len(whole.rstrip(UNFINISHED).rstrip())  # white space at the end of an answer is cut off
            begun = [
                n for stop in self._stops for n in range(1, min(len(stop), safe + 1)) if whole[:safe].endswith(stop[:n])
            ]
            safe -= max(begun, default=0)
        piece = whole[len(self.told) : safe]
        self.told += piece
        return piece


def tokens_of(told: str, raws: Sequence[bytes]) -> int:
    """How many tokens, of these bytes, begin in the first part of an answer.

    Args:
        told: what is told of the answer, which begins at its first character that isn't blank.
    """
    decoder = getincrementaldecoder("utf-8")("replace")
    before = ""  # the characters that are complete where a token begins
    for count, raw in enumerate(raws):
        if len(before) >= len(told):
            return count
        before = (before + decoder.decode(raw)).lstrip()
    return len(raws)
