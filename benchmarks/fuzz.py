"""Feeds damaged pictures and files and hostile requests to the project's own code, for as long as one likes.

python benchmarks/fuzz.py --cases 50000 --seed 0

A case is right when a picture is decoded or refused as InvalidInput; when a label table, an artifact or a remembered
decision is read as it was written or refused by its name (a file that may say anything: read or refused); and when a
request, one in 200 of 10 MB, gets 2xx or a documented 4xx in OpenAI's shape that doesn't echo what was sent. Whatever
ends the process or takes a minute is wrong too: the cases run in processes of their own. For requests, the model and
the router are doubles; everything before them is the service's. The same seed gives the same cases.
"""

import argparse
import asyncio
import faulthandler
import json
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, MutableSequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # doubles and hostile files

from hostile import damaged, seeds
from hostile_files import FileWorld
from hostile_requests import LIMIT_S, fault_of, hostile_body, service_of_doubles

from complexity.errors import InvalidInput
from complexity.picture import decode_picture
from serving.api import create_app

PATHS = ("/v1/chat/completions", "/v1/route", "/v1/route/batch", "/v1/feedback")
HANG_S = 60.0
WORKERS = 2
NEXT, ACCEPTED, REFUSED, OTHER, SLOWEST_MS, PEAK_MB = range(6)  # what a worker tells of itself

Case = Callable[[random.Random], bool]  # says whether something was accepted; raises where anything is wrong


@contextmanager
def pictures() -> Iterator[Case]:
    """Damaged and cut off pictures of every kind."""
    found = list(seeds().values())

    def case(rng: random.Random) -> bool:
        data = rng.choice(found)
        data = data[: rng.randrange(len(data))] if rng.random() < 0.1 else damaged(data, rng)
        try:
            decode_picture(data, rng.choice((None, 192)))
        except InvalidInput:
            return False
        return True

    yield case


@contextmanager
def files() -> Iterator[Case]:
    """Damaged files of every kind."""
    with tempfile.TemporaryDirectory() as folder:
        cases = list(FileWorld(Path(folder)).cases.values())
        yield lambda rng: rng.choice(cases)(rng)


@contextmanager
def api() -> Iterator[Case]:
    """Hostile requests to every route that takes a body."""
    found = list(seeds().values())
    with asyncio.Runner() as runner:
        transport = httpx.ASGITransport(create_app(service_of_doubles()), raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://fuzz", timeout=HANG_S)

        def case(rng: random.Random) -> bool:
            body, path = hostile_body(rng, found), rng.choice(PATHS)
            start_s = time.perf_counter()
            reply = runner.run(client.post(path, content=body))
            took_s = time.perf_counter() - start_s
            wrong = fault_of(reply, body) or (f"{took_s:.1f} s" if took_s > LIMIT_S else None)
            if wrong:
                raise AssertionError(f"{path} {reply.status_code}: {wrong}\n  {body[:300]!r}\n  {reply.text[:300]}")
            return reply.status_code < 300

        yield case
        runner.run(client.aclose())


PARTS = {"pictures": pictures, "files": files, "api": api}


def work(part: str, seed: int, last: int, tally: MutableSequence[float]) -> None:
    """Every so many cases, from the tally's next one on; what was found is in the tally whatever ends the process."""
    with PARTS[part]() as case:
        while tally[NEXT] < last:
            number = int(tally[NEXT])
            rng = random.Random(f"{part}-{seed}-{number}")
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            start_s = time.perf_counter()
            try:
                tally[ACCEPTED if case(rng) else REFUSED] += 1
            except Exception as error:  # what must not be
                tally[OTHER] += 1
                print(f"{part} case {number}: {type(error).__name__}: {error}", file=sys.stderr)
            tally[SLOWEST_MS] = max(tally[SLOWEST_MS], 1000 * (time.perf_counter() - start_s))
            faulthandler.cancel_dump_traceback_later()
            tally[PEAK_MB] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            tally[NEXT] += WORKERS


@dataclass
class Worker:
    """A process and what it tells; another one goes on where a case ended it."""

    part: str
    seed: int
    last: int
    tally: MutableSequence[float]
    process: BaseProcess

    @classmethod
    def start(cls, part: str, seed: int, first: int, last: int) -> "Worker":
        tally = multiprocessing.get_context("spawn").Array("d", [float(first), 0.0, 0.0, 0.0, 0.0, 0.0], lock=False)
        return cls(part, seed, last, tally, _process(part, seed, last, tally))

    def ended(self) -> bool:
        """Whether all cases are done; starts the process again where one of them has ended it."""
        if self.process.exitcode is None:
            return False
        if self.process.exitcode and self.tally[NEXT] < self.last:
            number = int(self.tally[NEXT])
            print(f"{self.part} case {number}: ended the process ({self.process.exitcode})", file=sys.stderr)
            self.tally[OTHER] += 1
            self.tally[NEXT] += WORKERS
            self.process = _process(self.part, self.seed, self.last, self.tally)
            return False
        return True


def _process(part: str, seed: int, last: int, tally: MutableSequence[float]) -> BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=work, args=(part, seed, last, tally), daemon=True)
    process.start()
    return process


def fuzz(part: str, cases: int, seed: int) -> dict[str, Any]:
    """All cases of a part; the counts, the slowest and the most memory that a process took."""
    workers = [Worker.start(part, seed, first, cases) for first in range(min(WORKERS, cases))]
    with tqdm(total=cases, desc=part, mininterval=2) as bar:
        while not all([worker.ended() for worker in workers]):
            time.sleep(0.2)
            bar.update(int(sum(sum(worker.tally[ACCEPTED : OTHER + 1]) for worker in workers)) - bar.n)
    told: dict[str, Any] = {
        name: int(sum(worker.tally[at] for worker in workers))
        for name, at in (("accepted", ACCEPTED), ("refused", REFUSED), ("other", OTHER))
    }
    told["slowest_ms"] = round(max((worker.tally[SLOWEST_MS] for worker in workers), default=0.0), 1)
    return {**told, "peak_rss_mb": int(max((worker.tally[PEAK_MB] for worker in workers), default=0.0))}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("fuzz.py", description=__doc__)
    parser.add_argument("--cases", type=int, default=50_000, help="in all, shared by the parts (50000)")
    parser.add_argument("--seed", type=int, default=0, help="of the cases (0)")
    parser.add_argument("--part", choices=PARTS, help="one part alone")
    args = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the workers: there are as many as it takes
    chosen = [args.part] if args.part else list(PARTS)
    counts = [args.cases // len(chosen) + (i < args.cases % len(chosen)) for i in range(len(chosen))]
    parts = {part: fuzz(part, count, args.seed) for part, count in zip(chosen, counts, strict=True)}
    told: dict[str, Any] = {"cases": args.cases}
    told |= {name: sum(part[name] for part in parts.values()) for name in ("accepted", "refused", "other")}
    told |= {name: max(part[name] for part in parts.values()) for name in ("slowest_ms", "peak_rss_mb")}
    print(json.dumps({**told, "parts": parts}))
    return 1 if told["other"] else 0


if __name__ == "__main__":
    sys.exit(main())
