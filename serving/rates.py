"""Visual tokens per minute and API key: a token bucket in Redis, shared by all ingress processes.

A bucket holds one minute's worth and refills all the time. Stored is its debt, what it lacks, and when it lacked that.
A token counts as 60,000,000 parts, so that a microsecond refills `limit` of them: all numbers are integers, and no
rounding ever lets a token too many through. Redis' own clock counts, so the machines' clocks may differ.

While Redis fails, and without one, each process keeps buckets of its own: the limit then holds per process. A Redis
that is down or hung costs at most `timeout_ms`, never an error, and after some failures in a row nothing for a while.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from fastapi.responses import JSONResponse

from complexity.errors import M3Error
from router.redis_client import RedisClient, RedisStats
from serving.failures import Failure, Refused, failure_of
from serving.replies import ErrorDetail

TOKEN = 60_000_000  # parts of a visual token, as many as a minute has microseconds
KEEP_MS = 120_000  # of a bucket in Redis after its last use; any bucket is full after 60 s
MOST_KEYS = 10_000  # buckets in process; a key beyond them starts with a full bucket

# KEYS bucket; ARGV limit, cost in parts, KEEP_MS. Answers {1 if the cost was taken, else 0; the debt now, in parts}.
TAKE = """
local limit, cost = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = limit * 60000000
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local debt = 0
local stored = redis.call('GET', KEYS[1])
if stored then
  local was, at = string.match(stored, '^(%d+) (%d+)$')
  if not was then return redis.error_reply('GARBAGE the value is not a bucket') end
  debt = math.max(0, math.min(was, full) - math.max(0, now - at) * limit)
end
local fits = debt + cost <= full
if fits then debt = debt + cost end
redis.call('SET', KEYS[1], string.format('%.0f %.0f', debt, now), 'PX', ARGV[3])
return {fits and 1 or 0, debt}
"""

# KEYS bucket; ARGV parts to give back, KEEP_MS.
GIVE_BACK = """
local was, at = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+)$')
if was then
  redis.call('SET', KEYS[1], string.format('%.0f %s', math.max(0, was - ARGV[1]), at), 'PX', ARGV[2])
end
"""


@dataclass(frozen=True)
class Allowance:
    """Whether a request may spend its tokens, and what its key has left; no `limit`: it may spend without end."""

    allowed: bool
    limit: int | None = None  # visual tokens per minute
    remaining: int | None = None  # visual tokens that could be spent now
    reset_s: float = 0.0  # until the whole limit could be spent
    retry_after_s: int | None = None  # until the refused tokens will be there; None: allowed, or above the limit
    shared: bool = False  # counted in Redis, not in this process alone

    def headers(self) -> dict[str, str]:
        """The limit as OpenAI's response headers; none without a limit."""
        if self.limit is None:
            return {}
        return {
            "x-ratelimit-limit-tokens": str(self.limit),
            "x-ratelimit-remaining-tokens": str(self.remaining),
            "x-ratelimit-reset-tokens": f"{self.reset_s:.3f}s",
        }


class OverLimit(M3Error):
    """A request refused because its tokens don't fit its key's limit: HTTP 429, or 400 where waiting can't help."""

    def __init__(self, tokens: int, allowance: Allowance):
        left, limit, wait_s = allowance.remaining, allowance.limit, allowance.retry_after_s
        if wait_s is None:
            reason = f"more than the API key's whole limit of {limit} per minute; name a coarser model"
        else:
            reason = f"the API key has {left} left of {limit} per minute; try again in {wait_s} s"
        super().__init__(f"the request takes {tokens} visual tokens: {reason}")
        self.allowance = allowance

    def response(self) -> JSONResponse:
        """The refusal in OpenAI's shape, with Retry-After and the limit's headers."""
        if self.allowance.retry_after_s is None:
            failure = failure_of(Refused(400, "rate_limit_too_low", str(self), "model"))
        else:
            detail = ErrorDetail(message=str(self), type="rate_limit_error", code="rate_limit_exceeded")
            failure = Failure(429, detail, self.allowance.retry_after_s)
        response = failure.response()
        response.headers.update(self.allowance.headers())
        return response


@dataclass(frozen=True)
class RateStats:
    """What happened so far, in this process."""

    shared: int = 0  # takes that Redis decided
    alone: int = 0  # takes that this process decided
    garbage: int = 0  # answers that weren't a bucket's; each is also one alone


class RateLimiter:
    """The buckets of all API keys; used on one event loop, where calls may overlap.

    Args:
        redis_url: such as redis://127.0.0.1:6379/0; None counts in this process alone.
        timeout_ms: the most that one call waits for Redis, connecting included.
        clock: seconds, for the buckets in process.
        rest_s: how long Redis is left alone after a few times in a row that it couldn't be reached.

    Raises:
        InvalidInput: `redis_url` is not a Redis URL.
    """

    def __init__(
        self,
        redis_url: str | None,
        timeout_ms: float = 50,
        clock: Callable[[], float] = time.time,
        rest_s: float = 5.0,
    ):
        self.stats = RateStats()
        self._clock = clock
        self._redis = None if redis_url is None else RedisClient(redis_url, "rate limits", timeout_ms, rest_s)
        self._buckets: OrderedDict[str, tuple[int, int]] = OrderedDict()  # debt and when; the oldest first

    @property
    def redis_stats(self) -> RedisStats:
        """What failed on the way to Redis so far."""
        return RedisStats() if self._redis is None else self._redis.stats

    async def take(self, key: str, tokens: int, limit: int | None) -> Allowance:
        """Spend visual tokens of a key's `limit` per minute, all of them or none."""
        if limit is None:
            return Allowance(True)
        cost = tokens * TOKEN
        answer = None
        if self._redis is not None:
            answer = await self._redis.ask("EVAL", TAKE, 1, redis_key(key), limit, cost, KEEP_MS)
        match answer:
            case [0 | 1 as taken, int(debt)] if 0 <= debt <= limit * TOKEN:
                self._count(shared=1)
                return _allowance(bool(taken), debt, cost, limit, shared=True)
            case None:
                pass
            case _:
                self._count(garbage=1)
        self._count(alone=1)
        fits, debt = self._take_alone(key, cost, limit)
        return _allowance(fits, debt, cost, limit, shared=False)

    async def give_back(self, key: str, tokens: int, shared: bool = True) -> None:
        """Return the tokens of a request that was allowed and then failed; lost while Redis fails.

        Args:
            shared: as in the Allowance, so that the bucket that was charged gets them.
        """
        if shared and self._redis is not None:
            await self._redis.ask("EVAL", GIVE_BACK, 1, redis_key(key), tokens * TOKEN, KEEP_MS)
        elif key in self._buckets:
            debt, at_us = self._buckets[key]
            self._buckets[key] = max(0, debt - tokens * TOKEN), at_us

    async def close(self) -> None:
        """Let go of Redis."""
        if self._redis is not None:
            await self._redis.close()

    def _take_alone(self, key: str, cost: int, limit: int) -> tuple[bool, int]:
        now_us = int(self._clock() * 1_000_000)
        debt, at_us = self._buckets.get(key, (0, now_us))
        fits, debt = spend(debt, now_us - at_us, cost, limit)
        self._buckets[key] = debt, now_us
        self._buckets.move_to_end(key)
        while len(self._buckets) > MOST_KEYS:
            self._buckets.popitem(last=False)
        return fits, debt

    def _count(self, **more: int) -> None:
        self.stats = replace(self.stats, **{name: getattr(self.stats, name) + n for name, n in more.items()})


def redis_key(name: str) -> str:
    """Where the bucket of an API key's name is."""
    return f"m3:rate:v1:{name}"


def spend(debt: int, elapsed_us: int, cost: int, limit: int) -> tuple[bool, int]:
    """Whether a cost fits a bucket after some time, and its debt then; both in parts of a token.

    A debt above the limit, which has been lowered, counts as the limit; a clock that went back as no time passed.
    """
    debt = max(0, min(debt, limit * TOKEN) - max(0, elapsed_us) * limit)
    fits = debt + cost <= limit * TOKEN
    return fits, debt + cost if fits else debt


def _allowance(taken: bool, debt: int, cost: int, limit: int, shared: bool) -> Allowance:
    full = limit * TOKEN
    never = taken or cost > full
    wait_s = None if never else max(1, math.ceil((debt + cost - full) / limit / 1_000_000))
    return Allowance(taken, limit, (full - debt) // TOKEN, debt / limit / 1_000_000, wait_s, shared)
