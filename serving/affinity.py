"""Requests about one picture go to one replica, which keeps its visual tokens; to another when that one is busy."""

from collections import Counter
from typing import Any

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

from serving.model import Ask

ASIDE = 128  # visual tokens whose reading takes as long as the rest of an answer: m3-tiny's tower and decoding
SPILL_OVER = 1024  # visual tokens under way that a picture's replica may have more than the least busy one


class PictureAffinity(ConsistentHashRouter):
    """Consistent hashing of the session id, which is the picture's digest, with spilling over.

    How busy a replica is counts in visual tokens that this router has sent there and that are under way: one question
    at 576 tokens keeps it busy for as long as several at 9. Request router keyword argument: `spill_over`, and those
    of Ray's ConsistentHashRouter.
    """

    def initialize_state(self, spill_over: int = SPILL_OVER, **kwargs: Any) -> None:
        super().initialize_state(**kwargs)
        self._spill_over = spill_over
        self._under_way: dict[str, int] = {}  # work of each request
        self._busy: Counter[Any] = Counter()  # work of each replica

    async def choose_replicas(self, candidate_replicas: list[Any], pending_request: Any = None) -> list[list[Any]]:
        ranks: list[list[Any]] = await super().choose_replicas(candidate_replicas, pending_request)
        if len(ranks) < 2 or len(ranks[0]) != 1:
            return ranks

        def busy(rank: list[Any]) -> int:
            return self._busy[rank[0].replica_id]

        if busy(ranks[0]) <= min(map(busy, ranks)) + self._spill_over:
            return ranks
        return sorted(ranks, key=busy)

    def on_request_routed(self, pending_request: Any, replica_id: Any, result: Any) -> None:
        asked = pending_request.args[0] if pending_request.args else None
        work = ASIDE + (asked.tokens * len(asked.pictures) if isinstance(asked, Ask) else 0)
        self._under_way[pending_request.metadata.internal_request_id] = work
        self._busy[replica_id] += work

    def on_request_completed(self, replica_id: Any, internal_request_id: str) -> None:
        self._busy[replica_id] -= self._under_way.pop(internal_request_id, 0)
