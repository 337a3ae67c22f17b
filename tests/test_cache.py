"""The decision cache against a real redis-server: hits, misses, expiry, and a Redis that fails in every way."""

import asyncio
import logging
import time

import numpy as np
import pytest
import redis
from redis_process import RedisProcess, free_port

from complexity.errors import InvalidInput
from router.cache import CacheStats, DecisionCache, cache_key, decode, encode
from router.redis_client import BREAK_AFTER, MOST_WRITES, RedisClient

PROBABILITIES = np.array([0.1, 0.2, 0.5, 0.75, 1.0], np.float32)
KEY = cache_key("artifact", "picture", "question")
NOT_HANGING_S = 0.5  # the bound is 50 ms; a loaded machine gets ten times that, and the best of several calls counts
PATIENT_MS = 10_000  # for tests of what Redis holds, which a loaded machine must not fail


async def timed_get(cache: DecisionCache, key: str = KEY) -> tuple[np.ndarray | None, float]:
    start = time.perf_counter()
    return await cache.get(key), time.perf_counter() - start


def patient(url: str, **options: float) -> DecisionCache:
    """A cache that waits long enough for a Redis on a loaded machine."""
    return DecisionCache(url, timeout_ms=PATIENT_MS, **options)  # type: ignore[arg-type]


async def test_without_redis_the_process_remembers():
    """With no Redis, what was put is got, and the rest is a miss."""
    cache = DecisionCache(None)
    assert await cache.get(KEY) is None
    await cache.put(KEY, PROBABILITIES)
    assert (await cache.get(KEY)).tolist() == PROBABILITIES.tolist()
    assert cache.stats == CacheStats(hits_local=1, misses=1)
    await cache.close()


async def test_the_process_forgets_the_least_recently_used():
    """The in-process layer holds `entries` entries; reading one keeps it."""
    cache = DecisionCache(None, entries=2)
    await cache.put("a", PROBABILITIES)
    await cache.put("b", PROBABILITIES)
    await cache.get("a")
    await cache.put("c", PROBABILITIES)
    assert await cache.get("b") is None
    assert await cache.get("a") is not None and await cache.get("c") is not None


async def test_what_is_remembered_cannot_be_changed():
    """Changing the array that was put, or the one got, doesn't reach the cache."""
    cache = DecisionCache(None)
    given = PROBABILITIES.copy()
    await cache.put(KEY, given)
    given[0] = 0.9
    got = await cache.get(KEY)
    assert got.tolist() == PROBABILITIES.tolist()
    with pytest.raises(ValueError, match="read-only"):
        got[0] = 0.9


@pytest.mark.redis
async def test_another_process_reads_what_one_has_put(redis_server: RedisProcess):
    """A second cache on the same Redis hits, and then answers from its own memory."""
    one, other = patient(redis_server.url), patient(redis_server.url)
    await one.put(KEY, PROBABILITIES)
    await one.flush()
    assert (await other.get(KEY)).tolist() == PROBABILITIES.tolist()
    assert (await other.get(KEY)).tolist() == PROBABILITIES.tolist()
    assert await other.get(cache_key("other artifact", "picture", "question")) is None
    assert other.stats == CacheStats(hits_redis=1, hits_local=1, misses=1)
    await one.close()
    await other.close()


@pytest.mark.redis
async def test_entries_expire(redis_server: RedisProcess):
    """An entry lives in Redis for its time to live, give or take a tenth, and no longer."""
    cache = patient(redis_server.url, ttl_s=3600)
    for number in range(20):
        await cache.put(f"key-{number}", PROBABILITIES)
    await cache.flush()
    with redis.Redis.from_url(redis_server.url) as client:
        lives_s = [client.ttl(f"key-{number}") for number in range(20)]
        assert 3600 * 0.9 - 10 <= min(lives_s) < max(lives_s) <= 3600 * 1.1
        client.pexpire("key-0", 1)
        while client.exists("key-0"):
            time.sleep(0.001)
    other = patient(redis_server.url)
    assert await other.get("key-0") is None and await other.get("key-1") is not None
    await cache.close()
    await other.close()


@pytest.mark.redis
@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"not probabilities at all",
        encode(PROBABILITIES)[:-1],
        encode(PROBABILITIES) + b"\0",
        bytes([99]) + encode(PROBABILITIES)[1:],  # another version
        encode(np.array([0.5, 1.5])),
        encode(np.array([0.5, np.nan])),
    ],
)
async def test_garbage_in_redis_is_a_miss(redis_server: RedisProcess, garbage: bytes):
    """A value that isn't probabilities of this version is counted and not used."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(KEY, garbage)
    cache = patient(redis_server.url)
    assert await cache.get(KEY) is None
    assert cache.stats == CacheStats(misses=1, garbage=1)
    await cache.close()


@pytest.mark.redis
async def test_a_value_of_another_kind_is_an_error_that_costs_nothing(redis_server: RedisProcess):
    """A key that holds a list instead of a string is a miss, and an error is counted."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.rpush(KEY, "a")
    cache = patient(redis_server.url)
    assert await cache.get(KEY) is None
    assert cache.stats == CacheStats(misses=1, errors=1)
    await cache.close()


@pytest.mark.redis
async def test_redis_killed_mid_run_is_a_miss(redis_server: RedisProcess, caplog: pytest.LogCaptureFixture):
    """When Redis dies between two calls, the next ones miss, and the cause is logged once."""
    cache = patient(redis_server.url, entries=1)
    await cache.put(KEY, PROBABILITIES)
    await cache.flush()
    redis_server.kill()
    with caplog.at_level(logging.WARNING, logger="router.cache"):
        for number in range(2 * BREAK_AFTER):
            assert await cache.get(f"other-{number}") is None
    assert cache.stats.errors == BREAK_AFTER and cache.stats.skipped == BREAK_AFTER
    assert len(caplog.records) == len({record.getMessage() for record in caplog.records}) <= 2
    assert (await cache.get(KEY)).tolist() == PROBABILITIES.tolist()  # the process still remembers
    await cache.close()


@pytest.mark.redis
async def test_a_hung_redis_costs_50_ms_and_then_nothing(redis_server: RedisProcess):
    """A Redis that accepts and doesn't answer delays the first calls by 50 ms each; then it isn't asked."""
    cache = DecisionCache(redis_server.url)
    await cache.get(KEY)  # a connection is open when it freezes
    failed = cache.stats.errors  # none, unless the machine is too busy to connect in time
    redis_server.freeze()
    asked = [await timed_get(cache, f"key-{number}") for number in range(BREAK_AFTER)]
    left_alone = [await timed_get(cache, f"later-{number}") for number in range(3)]
    for calls in (asked, left_alone):
        assert all(found is None for found, _ in calls) and min(seconds for _, seconds in calls) < NOT_HANGING_S
    assert cache.stats.errors <= BREAK_AFTER + failed and cache.stats.skipped >= 3
    await cache.put(KEY, PROBABILITIES)
    await cache.close()


@pytest.mark.redis
async def test_a_hung_redis_delays_many_requests_no_longer_than_one(redis_server: RedisProcess):
    """Requests at the same time wait their 50 ms together, not in turn."""
    cache = DecisionCache(redis_server.url)
    redis_server.freeze()
    start = time.perf_counter()
    found = await asyncio.gather(*(cache.get(f"key-{number}") for number in range(50)))
    assert found == [None] * 50 and time.perf_counter() - start < 50 * 0.05
    await cache.close()


@pytest.mark.redis
async def test_writes_to_a_hung_redis_are_bounded(redis_server: RedisProcess):
    """No more than MOST_WRITES writes wait for Redis; the rest are dropped and counted."""
    cache = DecisionCache(redis_server.url)
    redis_server.freeze()
    for number in range(MOST_WRITES + 10):
        await cache.put(f"key-{number}", PROBABILITIES)
    assert cache.stats.writes_dropped == 10
    await cache.close()


async def test_no_server_is_a_miss():
    """With nobody listening, calls miss at once."""
    cache = DecisionCache(f"redis://127.0.0.1:{free_port()}/0")
    found, seconds = await timed_get(cache)
    assert found is None and seconds < NOT_HANGING_S
    assert cache.stats == CacheStats(misses=1, errors=1)
    await cache.close()


@pytest.mark.redis
async def test_redis_is_used_again_after_it_came_back(redis_server: RedisProcess):
    """After a rest, one call probes Redis; when it answers, hits come from it again."""
    cache, other = DecisionCache(redis_server.url, rest_s=0.01), patient(redis_server.url)
    await other.put(KEY, PROBABILITIES)
    await other.flush()
    redis_server.freeze()
    for number in range(BREAK_AFTER):
        assert await cache.get(f"key-{number}") is None
    redis_server.thaw()
    while await cache.get(KEY) is None:
        await asyncio.sleep(0.02)
    assert cache.stats.hits_redis == 1
    await cache.close()
    await other.close()


async def test_many_keys_are_asked_for_together():
    """Without Redis: what is known is got, each key once; reading keeps entries from being forgotten."""
    cache = DecisionCache(None, entries=2)
    await cache.put_many({"a": PROBABILITIES, "b": PROBABILITIES / 2})
    found = await cache.get_many(["a", "x", "a"])
    assert {key: value.tolist() for key, value in found.items()} == {"a": PROBABILITIES.tolist()}
    assert cache.stats == CacheStats(hits_local=1, misses=1)
    await cache.put("c", PROBABILITIES)
    assert [*await cache.get_many(["a", "b", "c"])] == ["a", "c"]
    assert await cache.get_many([]) == {}


@pytest.mark.redis
async def test_many_keys_cost_one_command(redis_server: RedisProcess):
    """What the process doesn't know is asked for in one MGET, what is garbage or no string is a miss."""
    one, other = patient(redis_server.url), patient(redis_server.url, ttl_s=3600)
    await one.put_many({f"key-{number}": PROBABILITIES / (number + 1) for number in range(20)})
    await one.flush()
    keys = [f"key-{number}" for number in range(22)]
    await other.get(keys[0])
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("key-20", b"garbage")
        client.rpush("key-21", "a")
        client.config_resetstat()
        found = await other.get_many(keys)
        calls = {name: told["calls"] for name, told in client.info("commandstats").items()}
    assert calls["cmdstat_mget"] == 1 and "cmdstat_get" not in calls
    assert [*found] == keys[:20]
    for number, key in enumerate(keys[:20]):
        assert found[key].tolist() == (PROBABILITIES / (number + 1)).tolist()
    assert other.stats == CacheStats(hits_local=1, hits_redis=20, misses=2, garbage=1)
    assert await other.get_many([]) == {} and [*await other.get_many(keys[:20])] == keys[:20]
    await one.close()
    await other.close()


@pytest.mark.redis
async def test_many_entries_expire_each_in_its_time(redis_server: RedisProcess):
    """Entries written together live about as long as others, and not all equally long."""
    cache = patient(redis_server.url, ttl_s=3600)
    await cache.put_many({f"key-{number}": PROBABILITIES for number in range(20)})
    await cache.flush()
    with redis.Redis.from_url(redis_server.url) as client:
        lives_s = [client.ttl(f"key-{number}") for number in range(20)]
    assert 3600 * 0.9 - 10 <= min(lives_s) < max(lives_s) <= 3600 * 1.1
    await cache.close()


@pytest.mark.redis
async def test_many_keys_of_a_dead_redis_are_misses(redis_server: RedisProcess):
    """One call that fails is one error, however many keys it asks for; writing fails as quietly."""
    cache = patient(redis_server.url, entries=1)
    redis_server.kill()
    assert await cache.get_many(["a", "b", "c"]) == {}
    assert cache.stats == CacheStats(misses=3, errors=1)
    await cache.put_many({"a": PROBABILITIES, "b": PROBABILITIES})
    await cache.flush()
    assert cache.stats.errors == 2 and [*await cache.get_many(["a", "b"])] == ["b"]
    await cache.close()


def test_a_url_that_is_not_redis_is_refused():
    """The message says what is allowed, and doesn't repeat a URL that may hold a password."""
    with pytest.raises(InvalidInput, match="redis://") as refused:
        DecisionCache("http://user:secret@127.0.0.1/")
    assert "secret" not in str(refused.value)


def test_values_are_float32_with_a_version():
    """What is encoded is decoded, in two bytes, four per scale and a checksum of four."""
    assert len(encode(PROBABILITIES)) == 26
    assert decode(encode(PROBABILITIES)).tolist() == PROBABILITIES.tolist()


def test_keys_differ_by_all_that_decides():
    """Artifact, picture and question each change the key."""
    keys = {cache_key(*parts) for parts in (("a", "p", "q"), ("b", "p", "q"), ("a", "x", "q"), ("a", "p", "x"))}
    assert len(keys) == 4


async def test_what_was_to_be_stored_is_not_in_the_log(redis_server, caplog):
    """Redis refuses a write for want of memory, and names the command in its error."""
    client = RedisClient(redis_server.url, "a test")
    assert await client.ask("CONFIG", "SET", "maxmemory", "1") == b"OK"
    client.tell(("SET", "key", "a secret question"))
    await client.flush()
    await client.close()
    assert client.stats.errors == 1 and "a test: Redis failed" in caplog.text and "secret" not in caplog.text
