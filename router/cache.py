"""Decisions remembered: an in-process layer, and Redis behind it when there is one.

What is stored are probabilities, not the chosen scale, so that every price reads the same entry. The key carries
everything that decides (layout of the value, artifact, picture, question), so a new artifact simply misses and old
entries die by their time to live. A Redis that is down, hung or holds garbage costs at most `timeout_ms` and never an
error; after a few failures in a row it isn't asked for some seconds at all.
"""

import random
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from router.redis_client import RedisClient

VALUE_VERSION = 3  # a value is this byte, a count N as another, N little-endian float32 in [0, 1], and a CRC-32
CRC_BYTES = 4
TTL_JITTER = 0.1  # entries written together don't all expire together


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
        self._stats = CacheStats()
        self._ttl_s = ttl_s
        self._entries = entries
        self._local: OrderedDict[str, np.ndarray] = OrderedDict()
        self._redis = RedisClient(redis_url, "decision cache", timeout_ms, rest_s)

    @property
    def stats(self) -> CacheStats:
        """What happened so far."""
        return replace(self._stats, **asdict(self._redis.stats))

    async def get(self, key: str) -> np.ndarray | None:
        """What was predicted under a key, not writable; None when nothing is known."""
        if key in self._local:
            self._local.move_to_end(key)
            self._count(hits_local=1)
            return self._local[key]
        return self._received(key, await self._redis.ask("GET", key))

    async def get_many(self, keys: Iterable[str]) -> dict[str, np.ndarray]:
        """What was predicted under each of the keys that is known; Redis is asked once for all the others."""
        unique = list(dict.fromkeys(keys))
        found = {key: self._local[key] for key in unique if key in self._local}
        for key in found:
            self._local.move_to_end(key)
        self._count(hits_local=len(found))
        others = [key for key in unique if key not in found]
        values = await self._redis.ask("MGET", *others) if others else None
        if not isinstance(values, list) or len(values) != len(others):
            values = [None] * len(others)
        for key, value in zip(others, values, strict=True):
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
        self._redis.tell(*(("SET", key, value, "PX", self._ttl_ms()) for key, value in values.items()))

    async def flush(self) -> None:
        """Wait until the writes in flight have ended, well or badly."""
        await self._redis.flush()

    async def close(self) -> None:
        """End the writes in flight and let go of Redis."""
        await self._redis.close()

    def _ttl_ms(self) -> int:
        return max(1, round(self._ttl_s * 1000 * random.uniform(1 - TTL_JITTER, 1 + TTL_JITTER)))

    def _received(self, key: str, value: Any) -> np.ndarray | None:
        """What Redis holds under a key, kept in process from now on; None when that is nothing or garbage."""
        probabilities = decode(value) if isinstance(value, bytes) else None
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
        self._stats = replace(self._stats, **{name: getattr(self._stats, name) + n for name, n in more.items()})
