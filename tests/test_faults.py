"""The real service while its parts fail: Redis in every way, a full disk, replicas that hang, broken routers."""

import itertools
import os
import shutil
import signal
import subprocess
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import redis
from doubles import chat_body, png
from redis_process import RedisProcess, start_redis
from routers import BROKEN, rewritten
from server import Server, start, wait_for, write_config
from test_serve import pair_of

from complexity.feedback import read_feedback
from router.artifact import load_artifact
from router.cache import CRC_BYTES, VALUE_VERSION, encode
from serving.settings import ROOT
from training_data.drawn.corpus import CorpusItem
from training_data.scoring import exact_match

pytestmark = [pytest.mark.ray, pytest.mark.redis, pytest.mark.slow]

TINY, TOWER = ROOT / "router/artifacts/m3-tiny", ROOT / "router/artifacts/m3-tiny-tower"
CHAT, FEEDBACK, ROUTE = "/v1/chat/completions", "/v1/feedback", "/v1/route"
PLACES = 8  # requests that a replica works on
ANSWER_S = 5.0
DECISION_MS = 1000  # Redis may add 50 ms to one of a few; a loaded machine gets twenty times that
QUIET_S = 30.0  # a request that takes longer hangs
DISK_BYTES = 256 * 1024
REPLACED_SOON = {  # of three checks in a row that fail; as the service has it, after 30 s and more
    "health_check_period_s": 1,
    "health_check_timeout_s": 3,
    "graceful_shutdown_timeout_s": 1,
}
FEW_PLACES = {"max_ongoing_requests": PLACES, "max_queued_requests": 4 * PLACES}


@dataclass(frozen=True)
class World:
    """A service of two replicas, and what it depends on."""

    service: Server
    store: RedisProcess
    folder: Path
    args: dict[str, object]
    client: httpx.Client

    def post(self, body: object, path: str = CHAT, **headers: str) -> httpx.Response:
        return self.client.post(path, json=body, headers=headers)

    def configure(self, **user_config: object) -> None:
        """Exchange what decides."""
        configured(self.folder, self.args, user_config)
        self.service.process.send_signal(signal.SIGHUP)

    def told(self) -> str:
        """What serve-m3 has said."""
        return self.service.log.read_text()

    def logged(self) -> str:
        """What the ingress has logged, which stands in Ray Serve's files."""
        (ingress,) = self.service.processes("ray::ServeReplica:m3:Ingress")
        open_files = set()
        for link in Path(f"/proc/{ingress}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                open_files.add(os.readlink(link))
        return "".join(Path(file).read_text() for file in open_files if "/logs/serve/replica_" in file)


def configured(folder: Path, args: dict[str, object], user_config: dict[str, object]) -> Path:
    write_config(folder / "ray_app.yaml", args, Ingress={"user_config": user_config}, M3=REPLACED_SOON | FEW_PLACES)
    return folder / "ray_app.yaml"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("faults")
    feedback = folder / "feedback"
    feedback.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(feedback)]
    subprocess.run(small, check=False, stderr=subprocess.DEVNULL)  # not everybody may
    store = start_redis(folder)
    args = {
        "redis_url": store.url,
        "cache_entries": 1,  # of several samples in turn, each is asked of Redis
        "feedback_dir": str(feedback),
        "answer_timeout_s": ANSWER_S,
    }
    service = start(folder / "log.txt", "--config", str(configured(folder, args, {})))
    try:
        with httpx.Client(base_url=service.url, timeout=QUIET_S) as client:
            yield World(service, store, folder, args, client)
    finally:
        service.stop()
        store.kill()
        if feedback.is_mount():
            subprocess.run(["umount", str(feedback)], check=True)


@dataclass(frozen=True)
class Known:
    """A request whose right answer is known."""

    body: dict[str, object]
    answer: str


@pytest.fixture(scope="module")
def known(world: World, drawn_samples: list[CorpusItem]) -> list[Known]:
    """Questions that it answers right while nothing fails."""
    pairs = [pair for item in drawn_samples if (pair := pair_of(item)) is not None][:12]
    found = [Known(chat_body(pair.coarse, pair.image), pair.coarse_answer) for pair in pairs]
    found = [each for each in found if right(world.post(each.body), each)]
    assert len(found) >= 8
    return found[:4]


def said(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


def right(reply: httpx.Response, known: Known) -> bool:
    return bool(exact_match(said(reply), [known.answer]))


def failed(reply: httpx.Response) -> tuple[int, str, str]:
    """Status, code and type of an error in OpenAI's shape."""
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return reply.status_code, error["code"], error["type"]


def whys(world: World, known: list[Known]) -> list[str]:
    """Why was decided as it was, for each of the questions in turn: all answered right, and decided in time."""
    replies = [world.post(each.body) for each in known]
    assert all(right(reply, each) for reply, each in zip(replies, known, strict=True))
    assert max(float(reply.headers["x-m3-decision-ms"]) for reply in replies) < DECISION_MS
    return [reply.headers["x-m3-why"] for reply in replies]


def shared(world: World, known: list[Known]) -> bool:
    """Whether decisions come from Redis; the process remembers the last one alone."""
    return set(whys(world, known)) == {"cached"}


def fine(i: int, tokens: int = 576) -> dict[str, object]:
    """A request about a picture of its own."""
    return chat_body(f"What colour is it? {i}", png(colour=f"#{i:06x}"), f"m3-{tokens}")


def verdict(decision_id: str) -> dict[str, object]:
    return {"decision_id": decision_id, "correct": True}


def test_redis_killed_and_started_again(world, known):
    """Decisions are computed meanwhile; feedback is taken where the process itself knows the answer."""
    wait_for(lambda: shared(world, known))
    mine, foreign = world.post(known[-1].body).json()["m3"]["decision_id"], f"m3-{'0' * 32}"
    world.store.kill()
    assert {*whys(world, known), *whys(world, known)} == {"predicted"}
    assert world.post(verdict(mine), FEEDBACK).status_code == 200
    assert failed(world.post(verdict(foreign), FEEDBACK)) == (503, "feedback_not_stored", "server_error")
    world.store.restart()
    wait_for(lambda: shared(world, known))
    wait_for(lambda: world.post(verdict(foreign), FEEDBACK).status_code == 404)


def test_redis_that_hangs(world, known):
    wait_for(lambda: shared(world, known))
    world.store.freeze()
    try:
        assert {*whys(world, known), *whys(world, known)} == {"predicted"}
    finally:
        world.store.thaw()
    wait_for(lambda: shared(world, known))


def test_redis_that_is_full(world, known):
    wait_for(lambda: shared(world, known))
    with redis.Redis.from_url(world.store.url) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        try:
            client.flushall()
            assert {*whys(world, known), *whys(world, known)} == {"predicted"}
            assert client.dbsize() == 0
        finally:
            client.config_set("maxmemory", 0)
        wait_for(lambda: shared(world, known))


NEWER = bytes([VALUE_VERSION + 1]) + encode(np.full(6, 0.5, np.float32))[1:-CRC_BYTES]
GARBAGE: dict[str, bytes | list[bytes]] = {
    "nothing": b"",
    "garbage": b"\xff" * 30,
    "another version": NEWER + zlib.crc32(NEWER).to_bytes(CRC_BYTES, "little"),
    "another ladder": encode(np.full(4, 0.5, np.float32)),
    "another type": [b"a", b"list"],
}


def test_redis_that_holds_something_else_under_the_very_keys(world, known):
    """It is taken for nothing, and what is right stands there afterwards."""
    wait_for(lambda: shared(world, known))
    with redis.Redis.from_url(world.store.url) as client:
        keys = list(client.scan_iter("m3:decision:*"))
        assert len(keys) >= len(known)
        for garbage in GARBAGE.values():
            client.delete(*keys)
            for key in keys:
                client.set(key, garbage) if isinstance(garbage, bytes) else client.rpush(key, *garbage)
            assert set(whys(world, known)) == {"predicted"}
            wait_for(lambda: shared(world, known))


def test_a_disk_that_is_full_refuses_feedback_and_loses_none(world, known):
    """All that was acknowledged is there, also on the last free bytes; questions are answered meanwhile."""
    feedback = world.folder / "feedback"
    if not feedback.is_mount():
        pytest.skip("mounting a small tmpfs isn't permitted here")
    answered = [world.post(known[0].body).json()["m3"]["decision_id"] for _ in range(12)]

    def give(decision_ids: list[str]) -> list[httpx.Response]:
        return [world.post(verdict(each), FEEDBACK, **{"idempotency-key": each}) for each in decision_ids]

    def stored(replies: list[httpx.Response]) -> list[str]:
        return [reply.json()["decision_id"] for reply in replies if reply.status_code == 200]

    before = give(answered[:2])
    assert len(stored(before)) == 2
    filler = feedback / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(512)):
            pass
    try:
        full = give(answered[2:10])
        meanwhile = world.post(known[1].body)
    finally:
        filler.unlink()
    assert failed(full[-1]) == (503, "feedback_not_stored", "server_error") and "retry-after" in full[-1].headers
    assert {reply.status_code for reply in full} <= {200, 503}
    assert right(meanwhile, known[1])
    after = give(answered[2:])
    assert len(stored(after)) == 10 and [reply.json()["duplicate"] for reply in after].count(True) == len(stored(full))
    read = read_feedback(feedback)
    assert {row.answered.decision_id for row in read.rows} >= set(answered) and read.superseded == 0
    assert read.torn == 0


def test_a_broken_router_changes_nothing_and_a_good_one_is_taken_over(world, known):
    """Each in the running service, under load: no request fails, the log says why, and the old one goes on deciding."""
    old, new = load_artifact(TINY).digest, load_artifact(TOWER).digest
    done = threading.Event()

    def asking() -> list[str]:
        told = []
        while not done.is_set():
            for each in known:
                reply = world.post(each.body)
                assert reply.status_code == 200
                told.append(reply.headers["x-m3-artifact"])
        return told

    with ThreadPoolExecutor(2) as pool:
        load = [pool.submit(asking) for _ in range(2)]
        try:
            for name, (damage, reason) in BROKEN.items():
                artifact = Path(shutil.copytree(TINY, world.folder / name))
                damage(artifact)
                refused = f"the config was not taken over: {artifact}"
                world.configure(artifact=str(artifact))
                wait_for(lambda refused=refused: refused in world.told())
                assert reason in world.told().partition(refused)[2].splitlines()[0]
                assert world.post(known[0].body, ROUTE).headers["x-m3-artifact"] == old
            foreign = Path(shutil.copytree(TINY, world.folder / "foreign"))  # intact: only the replica knows its model
            rewritten(foreign, model="another@0")
            world.configure(artifact=str(foreign))
            wait_for(lambda: f"user_config refused, the router stays as it was: {foreign}" in world.logged())
            assert world.post(known[0].body, ROUTE).headers["x-m3-artifact"] == old
            configured(world.folder, world.args | {"artifact": str(artifact)}, {})
            world.service.process.send_signal(signal.SIGHUP)
            wait_for(lambda: world.told().count(f"the config was not taken over: {artifact}") == 2)
            world.configure(artifact=str(TOWER))
            wait_for(lambda: world.post(known[0].body, ROUTE).headers["x-m3-artifact"] == new)
            world.configure()
            wait_for(lambda: world.post(known[0].body, ROUTE).headers["x-m3-artifact"] == old)
        finally:
            done.set()
        told = [each.result() for each in load]
    assert {artifact for each in told for artifact in each} <= {old, new} and all(told)


def test_requests_to_replicas_that_hang_end_at_their_deadline_and_free_their_places(world):
    """As many as there are places hang; when the replicas go on, as many are answered at once."""

    def ask(i: int) -> httpx.Response:
        return world.post(fine(i, 36))

    hung = world.service.replicas()
    assert len(hung) == 2
    with ThreadPoolExecutor(2 * PLACES) as pool:
        for replica in hung:
            os.kill(replica, signal.SIGSTOP)
        try:
            asked = [pool.submit(ask, 1000 + i) for i in range(2 * PLACES)]
            assert world.post(fine(1), ROUTE).status_code == 200  # needs none of them
            assert Counter(failed(each.result()) for each in asked) == {(504, "timeout", "server_error"): 2 * PLACES}
        finally:
            for replica in hung:
                with suppress(ProcessLookupError):
                    os.kill(replica, signal.SIGCONT)
        assert Counter(reply.status_code for reply in pool.map(ask, range(2000, 2000 + 2 * PLACES))) == {
            200: 2 * PLACES
        }
    assert set(world.service.replicas()) == set(hung)


def test_a_replica_that_fails_its_health_checks_is_replaced(world, known):
    """Requests meanwhile are answered right, or end with 504 at their deadline."""
    frozen = min(world.service.replicas())
    done = threading.Event()

    def asking(first: int) -> Counter[object]:
        told: Counter[object] = Counter()
        for i in itertools.takewhile(lambda _: not done.is_set(), itertools.count(first)):
            each = known[i % len(known)]
            assert (reply := world.post(each.body)).status_code != 200 or right(reply, each)
            for answered in (reply, world.post(fine(i, 36))):
                told[200 if answered.status_code == 200 else failed(answered)] += 1
        return told

    with ThreadPoolExecutor(6) as pool:
        load = [pool.submit(asking, 10_000 * (1 + i)) for i in range(6)]
        os.kill(frozen, signal.SIGSTOP)
        try:
            wait_for(lambda: frozen not in (now := world.service.replicas()) and len(now) == 2)
        finally:
            done.set()
        told = sum((each.result() for each in load), Counter())
    assert told[200] and set(told) <= {200, (504, "timeout", "server_error")}
    wait_for(lambda: {world.post(fine(20 + i, 36)).status_code for i in range(8)} == {200})
