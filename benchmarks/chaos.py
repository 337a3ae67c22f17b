"""Mixed load on the real service while its parts are broken in turn.

python benchmarks/chaos.py --requests 20000 --seed 0

Starts serve-m3 with two replicas, a Redis of its own and feedback journals. While requests run, Redis is killed and
restarted, frozen, filled with garbage and full; replicas of the model are killed and frozen; the router is exchanged,
also for a broken one; a burst goes beyond the queues. Greedy answers at fixed scales must stay what they were before
the first fault, every request must end, errors must be documented ones, and acknowledged feedback must be kept.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import redis
import yaml
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # how a Redis and the service are started

from load import Load, Outcome
from redis_process import RedisProcess, start_redis
from server import Server, start

from complexity.feedback import read_feedback
from serving.settings import ROOT

MODEL = b"ray::ServeReplica:m3:M3"
CLIENTS = 12
KINDS = ("fixed", "fixed", "fixed", "auto", "auto", "stream", "two", "route", "batch", "feedback", "bad", "leave")


def processes(service: Server, title: bytes) -> dict[int, int]:
    """Resident megabytes of the service's processes of a title, by process id."""
    found = {}
    for pid in service.children():
        try:
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title):
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                found[pid] = pages * os.sysconf("SC_PAGE_SIZE") // 2**20
        except OSError:
            pass
    return found


class Faults:
    """Breaks things, and mends them."""

    def __init__(self, service: Server, server: RedisProcess, config: Path, folder: Path, load: Load):
        self._service, self._redis, self._config, self._folder, self._load = service, server, config, folder, load

    def all(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self.redis_killed,
            self.redis_frozen,
            self.redis_garbage,
            self.redis_full,
            self.disk_full,
            self.replica_killed,
            self.router_exchanged,
            self.broken_artifact,
            self.burst,
            self.replica_frozen,
        ]

    async def redis_killed(self) -> None:
        self._redis.kill()
        await asyncio.sleep(4)
        await asyncio.to_thread(self._redis.restart)
        await asyncio.sleep(6)

    async def redis_frozen(self) -> None:
        self._redis.freeze()
        await asyncio.sleep(4)
        self._redis.thaw()
        await asyncio.sleep(6)

    async def redis_garbage(self) -> None:
        with redis.Redis(port=self._redis.port) as client:
            for name in client.scan_iter("m3:*"):
                client.set(
                    name, random.choice((b"", b"garbage", b"\x01\x06" + bytes(24), bytes([2, 6]) + b"\xff" * 24))
                )
        await asyncio.sleep(4)

    async def redis_full(self) -> None:
        with redis.Redis(port=self._redis.port) as client:
            client.config_set("maxmemory", "1")
            await asyncio.sleep(4)
            client.config_set("maxmemory", "0")

    async def disk_full(self) -> None:
        """Feedback can't be stored for a while; for want of a disk of its own, nothing happens."""
        feedback = self._folder / "feedback"
        if not feedback.is_mount():
            print("no small file system could be mounted: disk_full is left out", file=sys.stderr)
            return
        filler = feedback / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        await asyncio.sleep(6)
        filler.unlink()
        await asyncio.sleep(2)

    async def replica_killed(self) -> None:
        os.kill(min(processes(self._service, MODEL)), signal.SIGKILL)
        await self._two_replicas()

    async def replica_frozen(self) -> None:
        """Its health check fails, and it is replaced."""
        frozen = min(processes(self._service, MODEL))
        os.kill(frozen, signal.SIGSTOP)
        while frozen in processes(self._service, MODEL):
            await asyncio.sleep(0.5)
        await self._two_replicas()

    async def _two_replicas(self) -> None:
        while len(processes(self._service, MODEL)) < 2:
            await asyncio.sleep(0.5)
        await asyncio.sleep(3)

    async def router_exchanged(self) -> None:
        await self._configured({"artifact": str(ROOT / "router/artifacts/m3-tiny-tower")})

    async def broken_artifact(self) -> None:
        await self._configured({"artifact": str(self._folder)})
        await self._configured({})

    async def _configured(self, user_config: dict[str, Any]) -> None:
        told = yaml.safe_load(self._config.read_text())
        told["applications"][0]["deployments"][0]["user_config"] = user_config
        self._config.write_text(yaml.safe_dump(told))
        self._service.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(4)

    async def burst(self) -> None:
        await asyncio.gather(*(self._load.fixed(i, "m3-144") for i in range(700)))


async def run(service: Server, server: RedisProcess, config: Path, folder: Path, requests: int, seed: int) -> dict:
    rng, outcome = random.Random(seed), Outcome()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        load = Load(service.url, session, rng, outcome)
        for model in ("m3-1", "m3-36", "m3-144"):  # what is right, and a service that is warm
            for first in range(0, 180, 12):
                await asyncio.gather(*(load.fixed(i, model) for i in range(first, first + 12)))
        living = b"ray::ServeReplica:m3:Ingress"
        before = processes(service, living)
        bar = tqdm(total=requests, mininterval=2)
        done = asyncio.Event()

        async def client() -> None:
            while not (done.is_set() and outcome.requests >= requests):
                await load.one(rng.choice(KINDS), rng.randrange(1 << 20))
                bar.update(outcome.requests - bar.n)

        faults = Faults(service, server, config, folder, load)
        told: list[dict[str, Any]] = []

        async def break_things() -> None:
            start_s = time.monotonic()
            for fault in faults.all():
                at_s = time.monotonic() - start_s
                await fault()
                told.append(
                    {"name": fault.__name__, "at_s": round(at_s), "took_s": round(time.monotonic() - start_s - at_s)}
                )
                bar.write(f"{told[-1]} {dict(outcome.by_status)}", file=sys.stderr)
            done.set()

        await asyncio.gather(break_things(), *(client() for _ in range(CLIENTS)))
        bar.close()
        await asyncio.sleep(3)
        after = processes(service, living)
        kept = {row.answered.decision_id for row in read_feedback(folder / "feedback").rows}
    return {
        "requests": outcome.requests,
        "wrong": outcome.wrong,
        "hung": outcome.hung,
        "undocumented_5xx": outcome.undocumented_5xx,
        "lost_feedback": len(outcome.stored - kept),
        "rss_growth_mb": max((after[pid] - before[pid] for pid in before if pid in after), default=None),
        "torn_streams": outcome.torn,
        "feedback": len(outcome.stored),
        "by_status": dict(outcome.by_status),
        "by_code": dict(outcome.by_code),
        "faults": told,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("chaos.py", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000, help="at least so many (20000)")
    parser.add_argument("--seed", type=int, default=0, help="of the load (0)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        feedback = folder / "feedback"
        feedback.mkdir()
        small = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(feedback)]
        subprocess.run(small, check=False, stderr=subprocess.DEVNULL)  # not everybody may
        server = start_redis(folder)
        config = folder / "ray_app.yaml"
        told = yaml.safe_load((ROOT / "ray_app.yaml").read_text())
        told["applications"][0]["args"] |= {
            "redis_url": server.url,
            "feedback_dir": str(folder / "feedback"),
        }
        config.write_text(yaml.safe_dump(told))
        service = start(folder / "log.txt", "--config", str(config))
        try:
            found = asyncio.run(run(service, server, config, folder, args.requests, args.seed))
        finally:
            service.stop()
            server.kill()
            if feedback.is_mount():
                subprocess.run(["umount", str(feedback)], check=False)
    print(json.dumps(found))
    bad = ("wrong", "hung", "undocumented_5xx", "lost_feedback", "torn_streams")
    return 1 if any(found[each] for each in bad) else 0


if __name__ == "__main__":
    sys.exit(main())
