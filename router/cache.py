"""Decisions remembered: an in-process layer, and Redis behind it when there is one.

What is stored are probabilities, not the chosen scale, so that every price reads the same entry. The key carries
everything that decides (layout of the value, artifact, picture, question), so a new artifact simply misses and old
entries die by their time to live. A Redis that is down, hung or holds garbage costs at most `timeout_ms` and never an
error; after a few failures in a row it isn't asked for some seconds at all.
"""

import asyncio
import logging
import random
import time
import zlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from complexity.errors import InvalidInput

VALUE_VERSION = 3  # a value is this byte, a count N as another, N little-endian float32 in [0, 1], and a CRC-32
CRC_BYTES = 4
TTL_JITTER = 0.1  # entries written together don't all expire together
BREAK_AFTER = 3  # failures in a row until Redis is left alone
MOST_WRITES = 256  # in flight; more are dropped
CONNECTIONS = 16  # for all calls in flight: a burst that opened one for each would time out over connecting

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheStats:
    """What happened so far, in this process."""

    hits_local: int = 0
    hits_redis: int = 0
    misses: int = 0
    errors: int = 0  # failed or late Redis calls
    garbage: int = 0  # values that weren't probabilities; each is also a miss
    skipped: int = 0  # Redis calls left out while it was being left alone
    writes_dropped: int = 0


def cache_key(artifact: str, image_sha256: str, question_sha256: str) -> str:
    """The key of a sample's probabilities under one artifact."""
    return f"m3:decision:v{VALUE_VERSION}:{artifact}:{image_sha256}:{question_sha256}"


def encode(probabilities: np.ndarray) -> bytes:
    """What was predicted of a sample, numbers in [0, 1] -> the bytes stored in Redis."""
    value = bytes([VALUE_VERSION, len(probabilities)]) + np.asarray(probabilities, "<f4").tobytes()
    return value + zlib.crc32(value).to_bytes(CRC_BYTES, "little")


def decode(value: bytes) -> np.ndarray | None:
    """Bytes from Redis -> what `encode` took, float32, not writable; None when they aren't such of this version."""
    if len(value) < 6 or value[0] != VALUE_VERSION or len(value) != 2 + 4 * value[1] + CRC_BYTES:
        return None
    if zlib.crc32(value[:-CRC_BYTES]) != int.from_bytes(value[-CRC_BYTES:], "little"):
        return None
    probabilities = _numbers(value)
    return probabilities if bool(((probabilities >= 0) & (probabilities <= 1)).all()) else None


def _numbers(value: bytes) -> np.ndarray:
    return np.frombuffer(value, "<f4", count=value[1], offset=2)


class DecisionCache:
    """Probabilities by key, in process and in Redis; used on one event loop, where calls may overlap.

    Args:
        redis_url: such as redis://127.0.0.1:6379/0; None keeps decisions in this process alone.
        ttl_s: how long an entry lives in Redis, give or take 10%.
        entries: most entries of the in-process layer; the least recently used go first.
        timeout_ms: the most that one call waits for Redis, connecting included.
        rest_s: how long Redis is left alone after `BREAK_AFTER` failures in a row.

    Raises:
        InvalidInput: `redis_url` is not a Redis URL.
    """

    def __init__(
        self,
        redis_url: str | None,
        ttl_s: float = 24 * 3600,
        entries: int = 10_000,
        timeout_ms: float = 50,
        rest_s: float = 5.0,
    ):
        self.stats = CacheStats()
        self._ttl_s = ttl_s
        self._entries = entries
        self._timeout_s = timeout_ms / 1000
        self._rest_s = rest_s
        self._local: OrderedDict[str, np.ndarray] = OrderedDict()
        self._redis = None if redis_url is None else _connect(redis_url, self._timeout_s)
        self._writes: set[asyncio.Task[Any]] = set()
        self._failures = 0  # in a row
        self._rest_until_s = 0.0  # on time.monotonic()'s clock
        self._told: set[str] = set()  # causes already logged

    async def get(self, key: str) -> np.ndarray | None:
        """What was predicted under a key, not writable; None when nothing is known."""
        if key in self._local:
            self._local.move_to_end(key)
            self._count(hits_local=1)
            return self._local[key]
        value = None if self._redis is None else await self._ask(self._redis.execute_command, "GET", key)
        return self._received(key, value)

    async def get_many(self, keys: Iterable[str]) -> dict[str, np.ndarray]:
        """What was predicted under each of the keys that is known; Redis is asked once for all the others."""
        unique = list(dict.fromkeys(keys))
        found = {key: self._local[key] for key in unique if key in self._local}
        for key in found:
            self._local.move_to_end(key)
        self._count(hits_local=len(found))
        others = [key for key in unique if key not in found]
        values = None
        if others and self._redis is not None:
            values = await self._ask(self._redis.execute_command, "MGET", *others)
        for key, value in zip(others, values or [None] * len(others), strict=True):
            if (probabilities := self._received(key, value)) is not None:
                found[key] = probabilities
        return found

    async def put(self, key: str, probabilities: np.ndarray) -> None:
        """Remember what was predicted, numbers in [0, 1]; Redis is written in the background."""
        await self.put_many({key: probabilities})

    async def put_many(self, entries: Mapping[str, np.ndarray]) -> None:
        """Remember several predictions as `put` does, with one trip to Redis."""
        values = {key: encode(probabilities) for key, probabilities in entries.items()}
        for key, value in values.items():
            self._keep(key, _numbers(value))
        if self._redis is None or not values:
            return
        if len(self._writes) >= MOST_WRITES:
            self._count(writes_dropped=len(values))
            return
        pipeline = self._redis.pipeline(transaction=False)
        for key, value in values.items():
            ttl_ms = max(1, round(self._ttl_s * 1000 * random.uniform(1 - TTL_JITTER, 1 + TTL_JITTER)))
            pipeline.set(key, value, px=ttl_ms)
        write = asyncio.create_task(self._ask(pipeline.execute))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def flush(self) -> None:
        """Wait until the writes in flight have ended, well or badly."""
        await asyncio.gather(*self._writes)

    async def close(self) -> None:
        """End the writes in flight and let go of Redis."""
        await self.flush()
        if self._redis is not None:
            await self._redis.aclose()

    async def _ask(self, command: Callable[..., Awaitable[Any]], *words: str) -> Any:
        """Run a Redis command within the time limit; None when it fails, is late, or Redis is being left alone."""
        if self._failures >= BREAK_AFTER:
            if time.monotonic() < self._rest_until_s:
                self._count(skipped=1)
                return None
            self._rest_until_s = time.monotonic() + self._rest_s  # this call probes; the others go on without Redis
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await command(*words)
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)
            return None
        self._failures = 0
        return answer

    def _failed(self, error: Exception) -> None:
        self._count(errors=1)
        self._failures += 1
        if self._failures == BREAK_AFTER:
            self._rest_until_s = time.monotonic() + self._rest_s
        cause = type(error).__name__
        if cause not in self._told:
            self._told.add(cause)
            log.warning("decision cache: Redis failed (%s: %s); deciding without it", cause, error)

    def _received(self, key: str, value: bytes | None) -> np.ndarray | None:
        """What Redis holds under a key, kept in process from now on; None when that is nothing or garbage."""
        probabilities = None if value is None else decode(value)
        if probabilities is None:
            self._count(misses=1, garbage=int(value is not None))
            return None
        self._count(hits_redis=1)
        self._keep(key, probabilities)
        return probabilities

    def _keep(self, key: str, probabilities: np.ndarray) -> None:
        self._local[key] = probabilities
        self._local.move_to_end(key)
        while len(self._local) > self._entries:
            self._local.popitem(last=False)

    def _count(self, **more: int) -> None:
        self.stats = replace(self.stats, **{name: getattr(self.stats, name) + n for name, n in more.items()})


def _connect(redis_url: str, timeout_s: float) -> Redis:
    """A client that gives up at once; it opens no connection before the first command."""
    try:
        pool = BlockingConnectionPool.from_url(
            redis_url,
            max_connections=CONNECTIONS,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),  # the default tries ten times: 58 s on a hung server
        )
        return Redis.from_pool(pool)
    except ValueError:  # the URL isn't repeated: it may hold a password
        raise InvalidInput("redis_url must start with redis://, rediss:// or unix://", "redis_url") from None
