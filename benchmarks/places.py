"""What deciding costs a running service: decision, whole request, and requests a second under load.

    make serve    # or serve-m3 with another artifact or settings
    python benchmarks/places.py [--url http://127.0.0.1:8000]

Asks about freshly drawn pictures, first one after the other, then several at a time; every picture twice, with
different questions. Prints one JSON object.
"""

import argparse
import asyncio
import base64
import json
import sys
import time

import httpx
import numpy as np

from training_data.drawn.corpus import draw_item


def bodies(count: int, seed: int) -> list[dict[str, object]]:
    """Two questions about each of `count` pictures."""
    found: list[dict[str, object]] = []
    index = 0
    while len(found) < 2 * count:
        item = draw_item("test", seed, index, 2)
        index += 1
        if len(item.questions) < 2:
            continue
        url = "data:image/png;base64," + base64.b64encode(item.png).decode()
        for question in item.questions:
            content = [{"type": "text", "text": question.text}, {"type": "image_url", "image_url": {"url": url}}]
            found.append({"model": "m3-auto", "messages": [{"role": "user", "content": content}]})
    return found


async def asked(client: httpx.AsyncClient, body: dict[str, object]) -> tuple[float, float, int]:
    """Milliseconds of the request and of its decision, and its visual tokens."""
    start = time.perf_counter()
    reply = await client.post("/v1/chat/completions", json=body)
    reply.raise_for_status()
    told = reply.json()["m3"]
    return 1000 * (time.perf_counter() - start), told["decision_ms"], told["visual_tokens"]


async def measure(url: str, pictures: int, at_once: int) -> dict[str, float]:
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        for body in bodies(5, 99):  # sets up what is set up lazily
            await asked(client, body)
        alone = np.array([await asked(client, body) for body in bodies(pictures, 7)])
        gate = asyncio.Semaphore(at_once)

        async def gated(body: dict[str, object]) -> tuple[float, float, int]:
            async with gate:
                return await asked(client, body)

        crowd = bodies(pictures, 8)
        start = time.perf_counter()
        together = np.array(await asyncio.gather(*(gated(body) for body in crowd)))
        seconds = time.perf_counter() - start
    return {
        "decision_p50_ms": round(float(np.median(alone[:, 1])), 2),
        "first_decision_p50_ms": round(float(np.median(alone[::2, 1])), 2),
        "request_p50_ms": round(float(np.median(alone[:, 0])), 1),
        "visual_tokens": round(float(alone[:, 2].mean()), 1),
        "requests_per_s": round(len(crowd) / seconds, 2),
        "loaded_request_p50_ms": round(float(np.median(together[:, 0])), 1),
        "loaded_decision_p50_ms": round(float(np.median(together[:, 1])), 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Time a running service's decisions.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the service")
    parser.add_argument("--pictures", type=int, default=60, help="in each part (60)")
    parser.add_argument("--at-once", type=int, default=8, help="requests in flight under load (8)")
    args = parser.parse_args()
    try:
        print(json.dumps(asyncio.run(measure(args.url, args.pictures, args.at_once))))
    except httpx.HTTPError as error:
        print(f"places.py: {args.url}: {error or type(error).__name__}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
