"""Redis as something that can be done without: a call is short, and one that fails is no answer, never an error.

A Redis that is down or hung costs at most `timeout_ms` a call; after a few failures in a row it isn't asked for some
seconds at all.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from complexity.errors import InvalidInput

BREAK_AFTER = 3  # failures in a row until Redis is left alone
MOST_WRITES = 256  # in flight; more are dropped
CONNECTIONS = 16  # for all calls in flight: a burst that opened one for each would time out over connecting
Command = tuple[str | bytes | int, ...]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RedisStats:
    """What failed so far."""

    errors: int = 0  # failed or late calls
    skipped: int = 0  # calls left out while Redis was being left alone
    writes_dropped: int = 0


class RedisClient:
    """Asks Redis within a time limit; used on one event loop, where calls may overlap.

    Args:
        redis_url: such as redis://127.0.0.1:6379/0; None: nothing is known and nothing is kept.
        whose: who asks, for the log.
        timeout_ms: the most that one call waits, connecting included.
        rest_s: how long Redis is left alone after `BREAK_AFTER` failures in a row.

    Raises:
        InvalidInput: `redis_url` is not a Redis URL.
    """

    def __init__(self, redis_url: str | None, whose: str, timeout_ms: float = 50, rest_s: float = 5.0):
        self.stats = RedisStats()
        self._whose = whose
        self._timeout_s = timeout_ms / 1000
        self._rest_s = rest_s
        self._redis = None if redis_url is None else _connect(redis_url, self._timeout_s)
        self._writes: set[asyncio.Task[Any]] = set()
        self._failures = 0  # in a row
        self._rest_until_s = 0.0  # on time.monotonic()'s clock
        self._told: set[str] = set()  # causes already logged

    @property
    def failing(self) -> bool:
        """Whether the last call that was tried failed: None may then mean that nobody could be asked."""
        return self._failures > 0

    async def ask(self, *command: str | bytes | int) -> Any:
        """Run a command; None when there is nothing, it fails, is late, or Redis is being left alone."""
        if self._redis is None:
            return None
        return await self._within_limits(self._redis.execute_command, *command)

    def tell(self, *commands: Command) -> None:
        """Run commands in the background, in one trip; dropped when too many are in flight."""
        if self._redis is None or not commands:
            return
        if len(self._writes) >= MOST_WRITES:
            self._count(writes_dropped=len(commands))
            return
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        write = asyncio.create_task(self._within_limits(pipeline.execute))
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

    async def _within_limits(self, call: Callable[..., Awaitable[Any]], *words: str | bytes | int) -> Any:
        if self._failures >= BREAK_AFTER:
            if time.monotonic() < self._rest_until_s:
                self._count(skipped=1)
                return None
            self._rest_until_s = time.monotonic() + self._rest_s  # this call probes; the others go on without Redis
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await call(*words)
        except ResponseError as error:  # it is there, and this command isn't for what it holds
            self._failures = 0
            self._failed(error)
            return None
        except Exception as error:  # of any kind: an answer that isn't Redis' breaks the client in many ways
            self._failures += 1
            self._rest_until_s = time.monotonic() + self._rest_s
            self._failed(error)
            return None
        self._failures = 0
        return answer

    def _failed(self, error: Exception) -> None:
        self._count(errors=1)
        cause = type(error).__name__
        if cause not in self._told:
            self._told.add(cause)
            why = "" if isinstance(error, ResponseError) else f": {error}"  # that would quote what was to be stored
            log.warning("%s: Redis failed (%s%s); going on without it", self._whose, cause, why)

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
