"""Visual tokens per minute: the bucket itself, Redis sharing it, and a Redis that fails in every way."""

import asyncio
import logging
import random
import subprocess
import time
from dataclasses import replace

import pytest
import redis
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis_process import RedisProcess, free_port

from complexity.errors import InvalidInput
from router.redis_client import BREAK_AFTER
from serving.rates import KEEP_MS, MOST_KEYS, TAKE, TOKEN, Allowance, OverLimit, RateLimiter, redis_key, spend

KEY, LIMIT = "alice", 1000
NOT_HANGING_S = 0.5  # the bound is 50 ms; a loaded machine gets ten times that, and the best of several calls counts
PATIENT_MS = 10_000  # for tests of what Redis holds, which a loaded machine must not fail
STEPS = st.lists(st.tuples(st.integers(0, 70_000_000), st.integers(0, 700), st.booleans()), max_size=40)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_us = 1_700_000_000_000_000

    def __call__(self) -> float:
        return self.now_us / 1_000_000


def patient(server: RedisProcess) -> RateLimiter:
    """A limiter that waits long enough for a Redis on a loaded machine."""
    return RateLimiter(server.url, timeout_ms=PATIENT_MS)


async def timed_take(limiter: RateLimiter) -> tuple[Allowance, float]:
    start = time.perf_counter()
    return await limiter.take(KEY, 1, LIMIT), time.perf_counter() - start


async def in_process(limiter: RateLimiter, takes: int = 2) -> None:
    """Assert that a limiter limits, without Redis."""
    for number in range(takes):
        allowance = await limiter.take(KEY, 600, LIMIT)
        assert allowance.allowed == (number == 0) and not allowance.shared
    assert (await limiter.take("somebody else", 1000, LIMIT)).allowed


async def test_a_key_spends_a_minutes_worth_at_once_and_gets_it_back_in_a_minute():
    clock = Clock()
    limiter = RateLimiter(None, clock=clock)
    assert await limiter.take(KEY, 576, LIMIT) == Allowance(True, LIMIT, 424, pytest.approx(34.56))
    assert await limiter.take(KEY, 424, LIMIT) == Allowance(True, LIMIT, 0, pytest.approx(60))
    assert await limiter.take(KEY, 100, LIMIT) == Allowance(False, LIMIT, 0, pytest.approx(60), retry_after_s=6)
    clock.now_us += 5_999_999
    assert not (await limiter.take(KEY, 100, LIMIT)).allowed
    clock.now_us += 1
    assert (await limiter.take(KEY, 100, LIMIT)).allowed
    clock.now_us += 60_000_000
    assert (await limiter.take(KEY, 1000, LIMIT)).allowed


async def test_single_tokens_add_up_to_the_whole_limit():
    """No rounding loses a token, where the limit doesn't divide the minute."""
    limiter = RateLimiter(None, clock=Clock())
    assert [(await limiter.take(KEY, 1, 7)).allowed for _ in range(8)] == [True] * 7 + [False]


async def test_no_limit_lets_everything_through():
    limiter = RateLimiter(None)
    for _ in range(3):
        allowance = await limiter.take(KEY, 10**9, None)
        assert allowance == Allowance(True) and allowance.headers() == {}


async def test_keys_have_their_own_buckets():
    limiter = RateLimiter(None)
    assert (await limiter.take("a", LIMIT, LIMIT)).allowed and (await limiter.take("b", LIMIT, LIMIT)).allowed
    assert not (await limiter.take("a", LIMIT, LIMIT)).allowed


async def test_a_refusal_spends_nothing():
    limiter = RateLimiter(None, clock=Clock())
    await limiter.take(KEY, 900, LIMIT)
    assert not (await limiter.take(KEY, 576, LIMIT)).allowed
    assert (await limiter.take(KEY, 100, LIMIT)).allowed


async def test_more_than_the_whole_limit_is_refused_without_a_time_to_wait():
    allowance = await RateLimiter(None).take(KEY, LIMIT + 1, LIMIT)
    assert (allowance.allowed, allowance.remaining, allowance.retry_after_s) == (False, LIMIT, None)
    reply = OverLimit(LIMIT + 1, allowance).response()
    assert reply.status_code == 400 and "retry-after" not in reply.headers
    assert b"1001 visual tokens: more than the API key's whole limit of 1000 per minute" in reply.body


async def test_a_refusal_says_when_to_come_back():
    """HTTP 429 in OpenAI's shape, with Retry-After and OpenAI's headers of the limit."""
    limiter = RateLimiter(None, clock=Clock())
    allowed = await limiter.take(KEY, 900, LIMIT)
    assert allowed.headers() == {
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "100",
        "x-ratelimit-reset-tokens": "54.000s",
    }
    refused = await limiter.take(KEY, 576, LIMIT)
    reply = OverLimit(576, refused).response()
    assert reply.status_code == 429 and reply.headers["retry-after"] == "29"
    assert reply.headers["x-ratelimit-remaining-tokens"] == "100"
    assert b'"type":"rate_limit_error"' in reply.body and b'"code":"rate_limit_exceeded"' in reply.body
    assert b"576 visual tokens: the API key has 100 left of 1000 per minute; try again in 29 s" in reply.body


async def test_who_waits_as_told_is_let_in():
    clock = Clock()
    limiter = RateLimiter(None, clock=clock)
    for tokens in random.Random(0).choices(range(1, 600), k=200):
        allowance = await limiter.take(KEY, tokens, 600)
        if not allowance.allowed:
            assert allowance.retry_after_s is not None
            clock.now_us += allowance.retry_after_s * 1_000_000
            assert (await limiter.take(KEY, tokens, 600)).allowed


async def test_tokens_given_back_can_be_spent_again_and_no_more():
    limiter = RateLimiter(None, clock=Clock())
    await limiter.take(KEY, 900, LIMIT)
    await limiter.give_back(KEY, 500)
    assert not (await limiter.take(KEY, 601, LIMIT)).allowed
    assert (await limiter.take(KEY, 600, LIMIT)).allowed
    await limiter.give_back(KEY, 10 * LIMIT)
    await limiter.give_back("nobody", LIMIT)
    assert (await limiter.take(KEY, LIMIT, LIMIT)).allowed and not (await limiter.take(KEY, 1, LIMIT)).allowed


async def test_a_lowered_limit_holds_at_once():
    """What was spent under the old limit delays by a minute of the new one, not more."""
    clock = Clock()
    limiter = RateLimiter(None, clock=clock)
    await limiter.take(KEY, 1000, 1000)
    assert (await limiter.take(KEY, 10, 10)).retry_after_s == 60
    clock.now_us += 60_000_000
    assert (await limiter.take(KEY, 10, 10)).allowed


async def test_a_clock_that_goes_back_locks_nobody_out():
    clock = Clock()
    limiter = RateLimiter(None, clock=clock)
    await limiter.take(KEY, LIMIT, LIMIT)
    clock.now_us -= 3_600_000_000
    assert not (await limiter.take(KEY, LIMIT, LIMIT)).allowed
    clock.now_us += 60_000_000
    assert (await limiter.take(KEY, LIMIT, LIMIT)).allowed


@given(steps=STEPS, limit=st.integers(1, 1000))
def test_never_more_than_the_burst_and_the_refill(steps: list[tuple[int, int, bool]], limit: int):
    """Between any two takes, what is let through is a minute's worth and what has refilled since, at most."""
    clock = Clock()
    limiter = RateLimiter(None, clock=clock)

    async def scenario() -> list[tuple[int, int]]:
        spent = []
        for wait_us, tokens, fails in steps:
            clock.now_us += wait_us
            if (await limiter.take(KEY, tokens, limit)).allowed:
                if fails:
                    await limiter.give_back(KEY, tokens)
                else:
                    spent.append((clock.now_us, tokens))
        return spent

    spent = asyncio.run(scenario())
    for first, (start_us, _) in enumerate(spent):
        total = 0
        for at_us, tokens in spent[first:]:
            total += tokens
            assert total * TOKEN <= limit * TOKEN + limit * (at_us - start_us + 1)  # the clock's own rounding: 1 us


async def test_memory_for_keys_is_bounded():
    limiter = RateLimiter(None)
    for number in range(MOST_KEYS + 50):
        await limiter.take(f"key-{number}", LIMIT, LIMIT)
    assert len(limiter._buckets) == MOST_KEYS
    assert not (await limiter.take(f"key-{MOST_KEYS}", LIMIT, LIMIT)).allowed


@pytest.mark.redis
def test_redis_counts_as_the_process_does(redis_server: RedisProcess):
    """The script and the Python agree to the last part of a token, for any bucket, age, cost and limit."""
    amount = st.integers(0, 10**8)

    with redis.Redis.from_url(redis_server.url) as client:

        @hypothesis_settings(max_examples=300)
        @given(lacks=st.integers(0, 10**16), age_us=st.integers(-(10**7), 10**8), tokens=amount, limit=amount)
        def agree(lacks: int, age_us: int, tokens: int, limit: int) -> None:
            limit = max(1, limit)
            seconds, us = client.time()
            was_at_us = seconds * 1_000_000 + us - age_us
            client.set(KEY, f"{min(lacks, limit * TOKEN)} {was_at_us}")
            fits, debt = client.eval(TAKE, 1, KEY, limit, tokens * TOKEN, KEEP_MS)
            stored, at_us = map(int, client.get(KEY).split())
            expected = spend(min(lacks, limit * TOKEN), at_us - was_at_us, tokens * TOKEN, limit)
            assert (bool(fits), debt, stored) == (*expected, expected[1])

        agree()


@pytest.mark.redis
async def test_two_limiters_never_let_through_more_than_one_would(redis_server: RedisProcess):
    """Two processes ask at the same time, many times: together they get a minute's worth and the refill."""
    one, other = patient(redis_server), patient(redis_server)
    costs = random.Random(0).choices((1, 9, 36, 144, 576), k=400)
    allowances: list[Allowance] = []
    start_s = time.monotonic()
    for first in range(0, 400, 100):  # 50 of each at the same time: a client opens a hundred connections at most
        several = enumerate(costs[first : first + 100])
        allowances += await asyncio.gather(*((one, other)[n % 2].take(KEY, cost, 5000) for n, cost in several))
    elapsed_s = time.monotonic() - start_s
    spent = sum(cost for cost, allowance in zip(costs, allowances, strict=True) if allowance.allowed)
    assert all(allowance.shared for allowance in allowances)
    assert 5000 - 576 < spent <= 5000 + 5000 * elapsed_s / 60
    assert one.stats.shared == other.stats.shared == 200 and one.redis_stats.errors == 0
    await one.close()
    await other.close()


@pytest.mark.redis
async def test_what_one_limiter_gives_back_another_can_spend(redis_server: RedisProcess):
    one, other = patient(redis_server), patient(redis_server)
    assert (await one.take(KEY, 10, 10)).allowed and not (await other.take(KEY, 10, 10)).allowed
    await one.give_back(KEY, 10)
    await one.give_back("nobody", 10)
    assert (await other.take(KEY, 10, 10)).allowed and not (await other.take(KEY, 10, 10)).allowed
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.keys() == [b"m3:rate:v1:alice"]
    await one.close()
    await other.close()


@pytest.mark.redis
async def test_tokens_taken_in_process_are_not_given_back_to_redis(redis_server: RedisProcess):
    limiter = patient(redis_server)
    await limiter.take(KEY, 10, 10)
    await limiter.give_back(KEY, 10, shared=False)
    assert not (await limiter.take(KEY, 10, 10)).allowed
    await limiter.close()


@pytest.mark.redis
async def test_buckets_in_redis_expire(redis_server: RedisProcess):
    """Taking, being refused and giving back all leave a bucket that Redis drops some time after it is full."""
    limiter = patient(redis_server)
    with redis.Redis.from_url(redis_server.url) as client:
        for step in (limiter.take(KEY, 10, 10), limiter.take(KEY, 10, 10), limiter.give_back(KEY, 1)):
            await step
            assert 60_000 < client.pttl(redis_key(KEY)) <= KEEP_MS
    await limiter.close()


@pytest.mark.redis
async def test_a_minute_later_the_bucket_in_redis_is_full(redis_server: RedisProcess):
    limiter = patient(redis_server)
    assert (await limiter.take(KEY, LIMIT, LIMIT)).remaining == 0
    with redis.Redis.from_url(redis_server.url) as client:
        debt, at_us = map(int, client.get(redis_key(KEY)).split())
        client.set(redis_key(KEY), f"{debt} {at_us - 60_000_000}")
    assert (await limiter.take(KEY, LIMIT, LIMIT)).allowed
    await limiter.close()


@pytest.mark.redis
async def test_a_redis_that_is_killed_leaves_each_process_to_itself(
    redis_server: RedisProcess, caplog: pytest.LogCaptureFixture
):
    """The cause is logged once, and after some failures Redis isn't asked."""
    limiter = patient(redis_server)
    assert (await limiter.take(KEY, 10, LIMIT)).shared
    redis_server.kill()
    with caplog.at_level(logging.WARNING, logger="router.redis_client"):
        await in_process(limiter, takes=2 * BREAK_AFTER)
    await limiter.give_back(KEY, 10)
    assert limiter.redis_stats.errors == BREAK_AFTER and limiter.redis_stats.skipped == BREAK_AFTER + 2
    assert len(caplog.records) == len({record.getMessage() for record in caplog.records}) <= 2
    await limiter.close()


@pytest.mark.redis
async def test_a_hung_redis_costs_50_ms_and_then_nothing(redis_server: RedisProcess):
    limiter = RateLimiter(redis_server.url)
    await limiter.take(KEY, 1, LIMIT)  # a connection is open when it freezes
    redis_server.freeze()
    asked = [await timed_take(limiter) for _ in range(BREAK_AFTER)]
    left_alone = [await timed_take(limiter) for _ in range(3)]
    for takes in (asked, left_alone):
        assert all(allowance.allowed and not allowance.shared for allowance, _ in takes)
        assert min(seconds for _, seconds in takes) < NOT_HANGING_S
    assert limiter.redis_stats.skipped >= 3
    await limiter.close()


@pytest.mark.redis
async def test_a_hung_redis_delays_many_requests_no_longer_than_one(redis_server: RedisProcess):
    limiter = RateLimiter(redis_server.url)
    redis_server.freeze()
    start = time.perf_counter()
    allowances = await asyncio.gather(*(limiter.take(KEY, 36, LIMIT) for _ in range(50)))
    assert sum(allowance.allowed for allowance in allowances) == LIMIT // 36
    assert time.perf_counter() - start < 50 * 0.05
    await limiter.close()


@pytest.mark.redis
async def test_a_redis_that_thaws_or_is_restarted_is_used_again(redis_server: RedisProcess):
    """After a rest one call probes it, and then the limit is shared again, in a server that knows no scripts."""
    limiter = RateLimiter(redis_server.url, rest_s=0.01)
    redis_server.freeze()
    await in_process(limiter, takes=BREAK_AFTER)
    redis_server.thaw()
    while not (await limiter.take(KEY, 1, LIMIT)).shared:
        await asyncio.sleep(0.02)
    redis_server.kill()
    while (await limiter.take(KEY, 1, LIMIT)).shared:
        await asyncio.sleep(0.02)
    again = replace(redis_server, process=subprocess.Popen(redis_server.process.args, stdout=subprocess.DEVNULL))
    try:
        while not (await limiter.take(KEY, 1, LIMIT)).shared:
            await asyncio.sleep(0.02)
    finally:
        again.kill()
        await limiter.close()


@pytest.mark.redis
async def test_a_wrong_value_under_one_key_leaves_the_others_shared(redis_server: RedisProcess):
    """It is an error of that key, however often: Redis is asked for the others all the same."""
    limiter = patient(redis_server)
    with redis.Redis.from_url(redis_server.url) as client:
        client.rpush(redis_key("list"), "a")
        for number, garbage in enumerate([b"", b"x", b"-1 5", b"1.5 5", b"5", b"5 5 5", b"nan 5", b"\xff\x00"]):
            client.set(redis_key(f"text-{number}"), garbage)
    for name in ("list", *(f"text-{number}" for number in range(8))):
        assert await limiter.take(name, LIMIT, LIMIT) == Allowance(True, LIMIT, 0, pytest.approx(60))
        assert not (await limiter.take(name, LIMIT, LIMIT)).allowed
        await limiter.give_back(name, 1)
    assert (await limiter.take(KEY, 1, LIMIT)).shared
    await limiter.close()


@pytest.mark.redis
async def test_a_bucket_from_the_far_future_or_of_absurd_debt_heals(redis_server: RedisProcess):
    limiter = patient(redis_server)
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(redis_key(KEY), "9" * 400 + " " + "9" * 16)
        first = await limiter.take(KEY, 1, LIMIT)
        debt, at_us = map(int, client.get(redis_key(KEY)).split())
        seconds, _ = client.time()
    assert first.shared and not first.allowed and first.retry_after_s == 1
    assert debt == LIMIT * TOKEN and abs(at_us / 1_000_000 - seconds) < 600
    await limiter.close()


@pytest.mark.redis
@pytest.mark.parametrize("trouble", ["out of memory", "read-only", "no permission"])
async def test_a_redis_that_cannot_be_written_leaves_each_process_to_itself(redis_server: RedisProcess, trouble: str):
    limiter = patient(redis_server)
    with redis.Redis.from_url(redis_server.url) as client:
        if trouble == "out of memory":
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 1)
        elif trouble == "read-only":
            client.replicaof("127.0.0.1", free_port())
        else:
            client.acl_setuser("default", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-set"])
        await in_process(limiter, takes=2 * BREAK_AFTER)
        await limiter.give_back(KEY, 600)
        assert limiter.redis_stats.errors > 0 and limiter.stats.shared == 0
        if trouble == "out of memory":
            client.config_set("maxmemory", 0)
            assert (await limiter.take(KEY, 1, LIMIT)).shared  # at once: it was there all the time
    await limiter.close()


@pytest.mark.parametrize(
    "junk",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"+OK\r\n",
        b":1\r\n",
        b":abc\r\n",
        b"$-1\r\n",
        b"$abc\r\n",
        b"*1\r\n:1\r\n",
        b"*2\r\n:1\r\n:-5\r\n",
        b"*2\r\n:1\r\n:99999999999999999999\r\n",
        b"*2\r\n:7\r\n:1\r\n",
        b"*2\r\n$1\r\n1\r\n$1\r\n1\r\n",
        b"-ERR \xff\xfe\r\n",
        b"*99999999\r\n",
        b"\x00\xff\r\n",
        b"\r\n",
    ],
)
async def test_a_server_that_answers_garbage_is_not_believed(junk: bytes):
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(junk if b"EVAL" in data else b"-ERR unknown command\r\n" * data.count(b"*"))
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    limiter = RateLimiter(f"redis://127.0.0.1:{port}/0", timeout_ms=200)
    try:
        await in_process(limiter)
        await limiter.give_back(KEY, 1)
        assert limiter.stats.shared == 0
    finally:
        await limiter.close()
        server.close()


async def test_no_server_leaves_each_process_to_itself():
    limiter = RateLimiter(f"redis://127.0.0.1:{free_port()}/0")
    await in_process(limiter)
    assert limiter.redis_stats.errors == BREAK_AFTER
    await limiter.close()


def test_a_url_that_is_not_redis_is_refused():
    with pytest.raises(InvalidInput, match="redis://"):
        RateLimiter("http://user:secret@127.0.0.1/")
