"""Feeds damaged pictures and files and hostile requests to the project's own code, for as long as one likes.

python benchmarks/fuzz.py --cases 50000 --seed 0

A case is right when a picture is decoded or refused as InvalidInput; when a label table, an artifact or a remembered
decision is read as it was written or refused by its name (a file that may say anything: read or refused); and when a
request gets 2xx or a documented 4xx in OpenAI's shape that doesn't echo what was sent. Whatever ends the process or
takes a minute is wrong too: the cases run in processes of their own. For requests, the model and the router are
doubles; everything before them is the service's. The same seed gives the same cases.
"""

import argparse
import asyncio
import copy
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

from doubles import LADDER, FakeM3, FakeRouter, LocalModel, chat_body, data_url
from hostile import damaged, seeds
from hostile_files import FileWorld

from complexity.errors import InvalidInput
from complexity.picture import decode_picture
from serving.api import create_app
from serving.model import ModelInfo
from serving.service import Service
from serving.settings import Settings

PATHS = ("/v1/chat/completions", "/v1/route", "/v1/route/batch", "/v1/feedback")
DOCUMENTED = {400, 401, 404, 405, 408, 409, 413, 429}
LIMIT_S = 10.0
HANG_S = 60.0
WORKERS = 2
NEXT, ACCEPTED, REFUSED, OTHER, SLOWEST_MS, PEAK_MB = range(6)  # what a worker tells of itself
LONGEST = 1000  # characters of an error

Case = Callable[[random.Random], bool]  # says whether something was accepted; raises where anything is wrong
ECHO = 200  # characters of what was sent that an error may repeat
TEXTS = ("", "\0", "\u202egnihtyna", "\ud7ff\uffff", "<image>", "x" * 5000, "\x1b[31m", "%s%n{0}", "\U0001f600" * 300)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, -0.0, 0.5, [], {}, [[]], "m3-auto"),
    *TEXTS,
)


def hostile_body(rng: random.Random, pictures: list[bytes]) -> bytes:
    """A request that is broken in one way or several, or in none."""
    kind = rng.randrange(11)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        deep = rng.choice((50, 500, 20_000))
        return (rng.choice((b"[", b'{"m3":')) * deep)[:2_000_000]
    body: dict[str, Any] = chat_body("What colour is it?", rng.choice(pictures))
    if rng.random() < 0.5:
        body = chat_body("What colour is it?", damaged(rng.choice(pictures), rng))
    if kind == 2:
        body["messages"][0]["content"][1]["image_url"]["url"] = data_url(rng.choice(pictures))[: rng.randrange(2000)]
    elif kind == 3:
        body["messages"][0]["content"][0]["text"] = rng.choice(TEXTS) * rng.choice((1, 10, 2000))
    elif kind == 4:
        body = {"requests": [body] * rng.randrange(4)}
    elif kind == 5:
        body = {"decision_id": rng.choice(TEXTS), "score": rng.choice(VALUES), "correct": rng.choice(VALUES)}
    elif 5 < kind < 10:
        for _ in range(rng.randrange(1, 4)):
            _replace(body, rng)
    text = json.dumps(body)
    if kind == 10:  # a name twice
        name, value = rng.choice(("model", "messages", "m3", "stream")), json.dumps(_value(rng))
        text = rng.choice((f'{{"{name}": {value}, {text[1:]}', f'{text[:-1]}, "{name}": {value}}}'))
    if kind == 9:
        at = rng.randrange(len(text))
        text = (
            text[:at]
            + rng.choice((text[at : at + 30] * 2, "\\ud800", "1e999", ",,", "NaN", "\\u0000"))
            + text[at + 1 :]
        )
    return text.encode(errors="surrogatepass") + (b"\xff" if rng.random() < 0.02 else b"")


def _value(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(VALUES))  # lists and objects are filled by what is replaced later


def _replace(body: Any, rng: random.Random) -> None:
    """Put something else in the place of a random value of a JSON tree, or add a field."""
    while True:
        keys = list(body) if isinstance(body, dict) else list(range(len(body)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(body[key], dict | list) and body[key] and rng.random() < 0.7:
            body = body[key]
            continue
        if isinstance(body, dict) and rng.random() < 0.3:
            name = rng.choice(("n", "stop", "m3", "stream", "logprobs", "top_p", "seed", "tools", "x" * 300))
            body[name] = _value(rng)
        else:
            body[key] = _value(rng)
        return


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
        app = create_app(Service(FakeRouter(), LocalModel(FakeM3()), ModelInfo("fake", LADDER, 192), Settings()))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
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


def fault_of(reply: httpx.Response, body: bytes) -> str | None:
    """What is wrong with a reply; None if nothing is."""
    if reply.status_code < 300:
        return None
    if reply.status_code not in DOCUMENTED:
        return "an undocumented status"
    try:
        error = reply.json()["error"]
    except (ValueError, KeyError, TypeError):
        return "not OpenAI's shape"
    if set(error) != {"message", "type", "param", "code"} or not all(
        each is None or isinstance(each, str) for each in error.values()
    ):
        return "not OpenAI's shape"
    if len(error["message"]) > LONGEST:
        return f"an error of {len(error['message'])} characters"
    sent = body.decode(errors="replace")
    for told in filter(None, error.values()):
        if any(told[at : at + ECHO + 1] in sent for at in range(len(told) - ECHO)):
            return f"more than {ECHO} characters echoed"
    return None


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
