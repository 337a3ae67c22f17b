"""Feeds damaged pictures and hostile requests to the service's own code, for as long as one likes.

python benchmarks/fuzz.py --cases 50000 --seed 0

A case is right when a picture is decoded or refused as InvalidInput, and when a request gets 2xx or a documented 4xx in
OpenAI's shape that doesn't echo what was sent. The model and the router are doubles; everything before them is the
service's. The same seed gives the same cases.
"""

import argparse
import asyncio
import copy
import json
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # doubles and hostile files

from doubles import LADDER, FakeM3, FakeRouter, LocalModel, chat_body, data_url
from hostile import damaged, seeds

from complexity.errors import InvalidInput
from complexity.picture import decode_picture
from serving.api import create_app
from serving.model import ModelInfo
from serving.service import Service
from serving.settings import Settings

PATHS = ("/v1/chat/completions", "/v1/route", "/v1/route/batch", "/v1/feedback")
DOCUMENTED = {400, 401, 404, 405, 408, 409, 413, 429}
LIMIT_S = 10.0
ECHO = 200  # characters of what was sent that an error may repeat
TEXTS = ("", "\0", "\u202egnihtyna", "\ud7ff\uffff", "<image>", "x" * 5000, "\x1b[31m", "%s%n{0}", "\U0001f600" * 300)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, -0.0, 0.5, [], {}, [[]], "m3-auto"),
    *TEXTS,
)


def hostile_body(rng: random.Random, pictures: list[bytes]) -> bytes:
    """A request that is broken in one way or several, or in none."""
    kind = rng.randrange(10)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        deep = rng.choice((50, 500, 20_000))
        return (rng.choice((b"[", b'{"m3":')) * deep)[:2_000_000]
    body: dict[str, Any] = chat_body("What colour is it?", damaged(rng.choice(pictures), rng))
    if kind == 2:
        body["messages"][0]["content"][1]["image_url"]["url"] = data_url(rng.choice(pictures))[: rng.randrange(2000)]
    elif kind == 3:
        body["messages"][0]["content"][0]["text"] = rng.choice(TEXTS) * rng.choice((1, 10, 2000))
    elif kind == 4:
        body = {"requests": [body] * rng.randrange(4)}
    elif kind == 5:
        body = {"decision_id": rng.choice(TEXTS), "score": rng.choice(VALUES), "correct": rng.choice(VALUES)}
    elif kind > 5:
        for _ in range(rng.randrange(1, 4)):
            _replace(body, rng)
    text = json.dumps(body)
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


def fuzz_pictures(cases: int, seed: int) -> dict[str, Any]:
    """Damaged pictures of every kind."""
    rng, files = random.Random(f"pictures-{seed}"), list(seeds().values())
    counts: Counter[str] = Counter()
    slowest_s = 0.0
    for _ in tqdm(range(cases), "pictures", mininterval=2):
        data = damaged(rng.choice(files), rng)
        start_s = time.perf_counter()
        try:
            decode_picture(data, 192)
            counts["accepted"] += 1
        except InvalidInput:
            counts["refused"] += 1
        except Exception as error:  # what must not be
            counts["other"] += 1
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        slowest_s = max(slowest_s, time.perf_counter() - start_s)
    return {**counts, "slowest_ms": round(1000 * slowest_s, 1)}


async def fuzz_api(cases: int, seed: int) -> dict[str, Any]:
    """Hostile requests to every route that takes a body."""
    rng, files = random.Random(f"api-{seed}"), list(seeds().values())
    app = create_app(Service(FakeRouter(), LocalModel(FakeM3()), ModelInfo("fake", LADDER, 192), Settings()))
    counts: Counter[str] = Counter()
    slowest_s = 0.0
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://fuzz", timeout=60) as client:
        for _ in tqdm(range(cases), "requests", mininterval=2):
            body, path = hostile_body(rng, files), rng.choice(PATHS)
            start_s = time.perf_counter()
            reply = await client.post(path, content=body)
            took_s = time.perf_counter() - start_s
            slowest_s = max(slowest_s, took_s)
            wrong = fault_of(reply, body) or (f"{took_s:.1f} s" if took_s > LIMIT_S else None)
            counts["other" if wrong else "accepted" if reply.status_code < 300 else "refused"] += 1
            if wrong:
                print(f"{path} {reply.status_code}: {wrong}\n  {body[:300]!r}\n  {reply.text[:300]}", file=sys.stderr)
    return {**counts, "slowest_ms": round(1000 * slowest_s, 1)}


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
    sent = body.decode(errors="replace")
    echoed = max((len(part) for part in error["message"].split() if part in sent), default=0)
    return f"{echoed} characters echoed" if echoed > ECHO else None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("fuzz.py", description=__doc__)
    parser.add_argument("--cases", type=int, default=50_000, help="in all, half of them a part (50000)")
    parser.add_argument("--seed", type=int, default=0, help="of the cases (0)")
    parser.add_argument("--part", choices=("pictures", "api"), help="one part alone")
    args = parser.parse_args(argv)
    count = args.cases if args.part else args.cases // 2
    parts: dict[str, dict[str, Any]] = {}
    if args.part != "api":
        parts["pictures"] = fuzz_pictures(count, args.seed)
    if args.part != "pictures":
        parts["api"] = asyncio.run(fuzz_api(count, args.seed))
    told: dict[str, Any] = {"cases": count * len(parts)}
    told |= {name: sum(part.get(name, 0) for part in parts.values()) for name in ("accepted", "refused", "other")}
    told["slowest_ms"] = max(part["slowest_ms"] for part in parts.values())
    told["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({**told, "parts": parts}))
    return 1 if told["other"] else 0


if __name__ == "__main__":
    sys.exit(main())
