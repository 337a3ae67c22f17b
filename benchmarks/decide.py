"""What a decision costs: decoding, features and prediction, and remembered decisions, on one core.

    python benchmarks/decide.py [--redis URL]

Pictures of 0.04, 1 and 12 megapixels as JPEG and PNG, drawn noise-free and photo-like by this file. Cold is features,
familiarity, prediction and policy, without the decode, which the model needs anyway; hits are the in-process layer's
and, where one is named, Redis's. Prints a table and, as its last line, one JSON object about a 1-megapixel JPEG.
"""

import argparse
import asyncio
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported; in a service Ray sets it

import numpy as np
from PIL import Image

from complexity.errors import M3Error
from complexity.sample import Sample
from router.artifact import load_artifact
from router.cache import DecisionCache
from router.route import Router

ARTIFACT = Path(__file__).parents[1] / "router/artifacts/m3-tiny"
SIZES = {"0.04": (200, 200), "1": (1152, 868), "12": (4000, 3000)}  # megapixels -> pixels
SIDE_PX = 192  # of the shorter side, as m3-tiny needs it
QUESTIONS = ("What is written on the red sign?", "How many objects are there?", "What color is the background?")


def photo(size: tuple[int, int], seed: int) -> Image.Image:
    """Smooth ground, soft blobs, fine grain: compresses like a photograph."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
    grain = rng.normal(0, 6, (size[1], size[0], 1)).astype(np.float32)
    return Image.fromarray(np.clip(picture + grain, 0, 255).astype(np.uint8))


def encoded(size: tuple[int, int], kind: str, seed: int) -> bytes:
    buffer = io.BytesIO()
    photo(size, seed).save(buffer, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return buffer.getvalue()


def milliseconds(times: list[float]) -> dict[str, float]:
    return {"p50": round(float(np.percentile(times, 50)), 3), "p99": round(float(np.percentile(times, 99)), 3)}


async def clocked(router: Router, sample: Sample) -> float:
    start = time.perf_counter()
    await router.route(sample)
    return 1000 * (time.perf_counter() - start)


async def measure(rounds: int, redis_url: str | None, artifact_path: Path) -> list[dict[str, object]]:
    artifact = load_artifact(artifact_path)
    found = []
    for megapixels, size in SIZES.items():
        for kind in ("JPEG", "PNG"):
            data = [encoded(size, kind, seed) for seed in range(3)]
            times: dict[str, list[float]] = {"decode": [], "cold": [], "hit": []}
            times |= {} if redis_url is None else {"redis_hit": []}
            remote = DecisionCache(redis_url)
            filled = Router(artifact, remote)
            for i, sample in enumerate(samples(data, rounds)):
                start = time.perf_counter()
                sample.picture  # noqa: B018
                times["decode"].append(1000 * (time.perf_counter() - start))
                sample.image_sha256, sample.question_sha256  # noqa: B018  # of the bytes as they came in
                router = Router(artifact, DecisionCache(None))
                cold = await clocked(router, sample)
                hit = await clocked(router, sample)
                if i >= 3:  # the first ones set up what is set up lazily
                    times["cold"].append(cold)
                    times["hit"].append(hit)
                if redis_url is not None:
                    await filled.route(sample)
                    await remote.flush()
                    near = DecisionCache(redis_url)  # knows nothing in process
                    await near.get("connect")
                    times["redis_hit"].append(await clocked(Router(artifact, near), sample))
                    await near.close()
            await remote.close()
            found.append(
                {"megapixels": megapixels, "kind": kind, **{name: milliseconds(each) for name, each in times.items()}}
            )
            line = "".join(f"{found[-1][name]['p50']:9.2f}{found[-1][name]['p99']:9.2f}" for name in times)  # type: ignore[index]
            print(f"{megapixels:>5} MP {kind:5}{line}", flush=True)
    return found


def samples(data: list[bytes], rounds: int) -> Iterator[Sample]:
    for i in range(rounds):
        yield Sample(data[i % len(data)], f"{QUESTIONS[i % len(QUESTIONS)]} {i}", SIDE_PX)


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the router's decisions.")
    parser.add_argument("--rounds", type=int, default=300, help="decisions per kind of picture (300)")
    parser.add_argument("--artifact", type=Path, default=ARTIFACT, help="router (the shipped one)")
    parser.add_argument("--redis", help="URL of a Redis to ask, such as redis://127.0.0.1:6379/0")
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, for every thread
    names = ("decode", "cold", "hit", *(["Redis hit"] if args.redis else []))
    print(f"{'':14}" + "".join(f"{name:>18}" for name in names) + "   p50, p99 in ms")
    try:
        found = asyncio.run(measure(args.rounds, args.redis, args.artifact))
    except M3Error as error:
        print(f"decide.py: {error}", file=sys.stderr)
        return 2
    usual = next(line for line in found if line["megapixels"] == "1" and line["kind"] == "JPEG")
    kinds = [name for name in ("decode", "cold", "hit", "redis_hit") if name in usual]
    told = {f"{name}_{p}_ms": usual[name][p] for name in kinds for p in ("p50", "p99")}  # type: ignore[index]
    print(json.dumps({**told, "all": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
