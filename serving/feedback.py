"""Feedback as the service takes it: records of what was answered, and verdicts that name one of them."""

import logging
import time
from collections import OrderedDict

from complexity.errors import InvalidInput
from complexity.feedback import VERSION, AnsweredRecord, FeedbackRow, from_value, to_value
from router.redis_client import RedisClient
from serving.failures import Refused, shown
from serving.journal import FeedbackNotStored, Given, Journal, digest_of

DAY_S = 24 * 3600
MOST_ID_CHARS = 128
MOST_KEY_CHARS = 255
MOST_REFERENCE_CHARS = 1000

log = logging.getLogger(__name__)


class UnknownDecision(Refused):
    """Feedback names a decision that there is no record of (HTTP 404)."""

    def __init__(self, decision_id: str):
        message = f"nothing is known of decision {shown(decision_id)}: it is too old, or wasn't recorded"
        super().__init__(404, "unknown_decision", message, "decision_id")


class Records:
    """What was answered lately, in process and in Redis; used on one event loop, where calls may overlap.

    The in-process layer forgets what is oldest, not what is least used: a record is asked for once, and so those whose
    time is over stand first.

    Args:
        redis_url: such as redis://127.0.0.1:6379/0; None keeps records in this process alone.
        ttl_s: how long a record lives.
        entries: most records of the in-process layer, 1 to 2 KB each.
        timeout_ms: the most that one call waits for Redis, connecting included.
        rest_s: how long Redis is left alone after a few failures in a row.

    Raises:
        InvalidInput: `redis_url` is not a Redis URL.
    """

    def __init__(
        self,
        redis_url: str | None,
        ttl_s: float = DAY_S,
        entries: int = 10_000,
        timeout_ms: float = 50,
        rest_s: float = 5.0,
    ):
        self.garbage = 0  # values in Redis that weren't records of this version
        self._ttl_s = ttl_s
        self._entries = entries
        self._local: OrderedDict[str, tuple[float, bytes]] = OrderedDict()  # id -> end on monotonic's clock, record
        self._redis = RedisClient(redis_url, "answered records", timeout_ms, rest_s)

    @property
    def failing(self) -> bool:
        """Whether Redis failed when it was last asked: a record that wasn't found may be there."""
        return self._redis.failing

    async def remember(self, answered: AnsweredRecord) -> None:
        """Keep a record; Redis is written in the background."""
        value = to_value(answered)
        self._local.pop(answered.decision_id, None)
        self._local[answered.decision_id] = time.monotonic() + self._ttl_s, value
        self._forget()
        self._redis.tell(("SET", _key(answered.decision_id), value, "PX", max(1, round(self._ttl_s * 1000))))

    async def recall(self, decision_id: str) -> AnsweredRecord | None:
        """What was answered under an id; None when nothing is known."""
        self._forget()
        _, value = self._local.get(decision_id, (0.0, None))
        if value is None and len(decision_id) <= MOST_ID_CHARS:
            value = await self._redis.ask("GET", _key(decision_id))
        if value is None:
            return None
        try:
            return from_value(value)
        except ValueError as error:
            self.garbage += 1
            if self.garbage == 1:
                log.warning("answered records: Redis holds something else (%s)", error)
            return None

    async def flush(self) -> None:
        """Wait until the writes in flight have ended, well or badly."""
        await self._redis.flush()

    async def close(self) -> None:
        """End the writes in flight and let go of Redis."""
        await self._redis.close()

    def _forget(self) -> None:
        now_s = time.monotonic()
        while self._local and (len(self._local) > self._entries or next(iter(self._local.values()))[0] <= now_s):
            self._local.popitem(last=False)


class FeedbackStore:
    """Takes verdicts on what was answered."""

    def __init__(self, records: Records, journal: Journal):
        self._records = records
        self._journal = journal

    async def remember(self, answered: AnsweredRecord) -> None:
        """Keep a record of an answer, so that feedback can name it."""
        await self._records.remember(answered)

    async def give(
        self, decision_id: str, score: float, reference: str | None = None, idempotency_key: str | None = None
    ) -> Given:
        """Store a verdict; it is durable when this returns.

        Args:
            score: in [0, 1]; 1 is right.
            reference: a right answer.
            idempotency_key: a request that is sent again with its key is stored once.

        Returns:
            "stored", or "duplicate" when this very verdict was stored under the key before.

        Raises:
            InvalidInput: the score, the reference or the key is outside its bounds (HTTP 400).
            UnknownDecision: there is no record of the decision (404).
            IdempotencyConflict: the key was stored with another verdict (409).
            FeedbackNotStored: it isn't durable, or Redis can't say whether there is a record; try again (503).
        """
        references = () if reference is None else (reference,)
        if not 0.0 <= score <= 1.0:
            raise InvalidInput(f"score {score:g} must lie in [0, 1]", "score")
        _check_length("reference", reference, 0, MOST_REFERENCE_CHARS)
        _check_length("Idempotency-Key", idempotency_key, 1, MOST_KEY_CHARS)
        if idempotency_key is not None:  # first, since what is sent again may have outlived its record
            if await self._journal.holds(idempotency_key, digest_of(decision_id, score, references)):
                return "duplicate"
        answered = await self._records.recall(decision_id)
        if answered is None and self._records.failing:
            raise FeedbackNotStored("Redis can't say now whether the decision is known; try again")
        if answered is None:
            raise UnknownDecision(decision_id)
        return await self._journal.append(FeedbackRow(answered, score, references, time.time(), idempotency_key))

    async def close(self) -> None:
        """End what is under way."""
        await self._records.close()
        await self._journal.close()


def _key(decision_id: str) -> str:
    return f"m3:answered:v{VERSION}:{decision_id}"


def _check_length(what: str, text: str | None, least: int, most: int) -> None:
    if text is not None and not least <= len(text) <= most:
        raise InvalidInput(f"{what} has {len(text)} characters; {least} to {most} are accepted", what)
