"""Pictures' visual tokens, kept for later questions within bounds of memory."""

from collections import OrderedDict
from dataclasses import replace

from serving.m3 import Encoded


class KeptPictures:
    """Visual tokens by digest of their picture; they serve every scale and question. The least recently used go."""

    def __init__(self, memory_bytes: int):
        self._memory_bytes = memory_bytes
        self._held_bytes = 0
        self._seen: OrderedDict[str, Encoded] = OrderedDict()

    def get(self, picture: str) -> Encoded | None:
        """A picture's visual tokens, by the digest of its bytes; None where they aren't kept."""
        if picture in self._seen:
            self._seen.move_to_end(picture)
        return self._seen.get(picture)

    def put(self, picture: str, encoded: Encoded) -> None:
        """Keep a picture's visual tokens, and drop those used longest ago where memory is short."""
        if picture not in self._seen:
            self._held_bytes += encoded.tiles.nbytes
            self._seen[picture] = replace(encoded, tiles=encoded.tiles.clone())  # a view would hold its whole batch
        while self._held_bytes > self._memory_bytes:
            _, gone = self._seen.popitem(last=False)
            self._held_bytes -= gone.tiles.nbytes
