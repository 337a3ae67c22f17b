"""What routing saves on the clock: the real service under load, at fixed scales, routed, and as the original serves.

    python benchmarks/serve.py [--pairs 240] [--figure docs/serving.png]

Starts the service of ray_app.yaml and drives it over HTTP with questions about held-out pictures that it has never
seen, one a picture; the memories for pictures and decisions are kept too small to help, but for the row "routed, warm".
Closed loop: a number of clients that each ask again as soon as they are answered; throughput, CPU time and accuracy.
Open loop: Poisson arrivals, answers streamed; latencies at one rate for all, which "always 576" bears as well, and by
rising rates the highest whose p95 latency stays within the limit. "naive" answers one request at a time with
transformers' generate, tower and all, as the original's worker does, behind an HTTP server of its own. "perfect" asks
for the coarsest scale that will be right. "pools" keeps prompts of up to 36 visual tokens and longer ones apart.
Last, how much the p99 of requests for 9 tokens suffers from others for 576 that arrive meanwhile.

Prints progress on stderr, a table, and as its last line one JSON object.
"""

import argparse
import asyncio
import base64
import itertools
import json
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np
from servers import Service, naive_service, routed_service

from training_data.drawn.corpus import draw_item
from training_data.scoring import exact_match

LADDER = (1, 9, 36, 144, 576)
COLD = {"feature_memory_mb": 1, "cache_entries": 1}
POOLS = {"Coarse": 36, "Fine": 576}
LOADS = (0.3, 0.5, 0.7, 0.8, 0.9)  # of the closed loop's throughput
COMMON_LOAD = 0.6  # of what "always 576" bears: the rate at which latencies are compared
POLICIES = ("naive", "always 576", "always 144", "always 9", "routed", "perfect")
BURST = 600  # requests at the same moment
SEED = 41  # of the pictures; sweeps and training draw others


@dataclass(frozen=True)
class Pair:
    """A held-out picture with a question."""

    png: bytes
    question: str
    reference: str

    def body(self, model: str, stream: bool = False) -> bytes:
        url = "data:image/png;base64," + base64.b64encode(self.png).decode()
        content = [{"type": "text", "text": self.question}, {"type": "image_url", "image_url": {"url": url}}]
        message = {"role": "user", "content": content}
        return json.dumps({"model": model, "messages": [message], "stream": stream}).encode()


@dataclass
class Row:
    """What one policy reached."""

    policy: str
    rps: float  # closed loop
    accuracy: float
    tokens: float
    cpu_ms: float  # of all processes of the service, per request
    beside_cpu_ms: float  # of them without the threads in which the engine works
    within_limit_rps: float = float("nan")  # open loop
    p50_ms: float = float("nan")  # at the common rate
    p95_ms: float = float("nan")
    p99_ms: float = float("nan")
    first_token_ms: float = float("nan")  # p50

    def told(self) -> dict[str, object]:
        """As JSON has it: null for what wasn't measured."""
        return {name: None if value != value else value for name, value in vars(self).items()}

    def line(self) -> str:
        return (
            f"{self.policy:16}{self.rps:8.1f}{self.within_limit_rps:10.1f}{self.p50_ms:8.0f}{self.p95_ms:8.0f}"
            f"{self.p99_ms:8.0f}{self.first_token_ms:8.0f}{100 * self.accuracy:10.1f}{self.tokens:8.1f}"
            f"{self.cpu_ms:8.1f}{self.beside_cpu_ms:8.1f}"
        )


def draw(count: int) -> list[Pair]:
    """One question about each of `count` held-out pictures."""
    pairs: list[Pair] = []
    for index in itertools.count():
        if len(pairs) == count:
            return pairs
        item = draw_item("test", SEED, index, 1)
        pairs += [Pair(item.png, asked.text, asked.answer) for asked in item.questions]  # none of some pictures
    raise AssertionError("the corpus has no end")


def connected(service: Service) -> aiohttp.ClientSession:
    limits = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(service.url, connector=limits, timeout=aiohttp.ClientTimeout(300))


@dataclass(frozen=True)
class Loop:
    """One closed loop."""

    wall_s: float
    all_s: float  # CPU of all processes of the service
    engines_s: float  # CPU of the threads in which the engines work
    right: list[bool]
    tokens: list[int]


async def closed_loop(service: Service, pairs: list[Pair], models: Sequence[str], clients: int) -> Loop:
    """Each client asks for one pair after the other."""
    bodies = [pair.body(model) for pair, model in zip(pairs, models, strict=True)]
    replies = [b""] * len(pairs)
    waiting = list(range(len(pairs)))

    async def client(connection: aiohttp.ClientSession) -> None:
        while waiting:
            i = waiting.pop()
            async with connection.post("/v1/chat/completions", data=bodies[i]) as reply:
                reply.raise_for_status()
                replies[i] = await reply.read()

    async with connected(service) as connection:
        cpu, start_s = service.cpu(), time.perf_counter()
        await asyncio.gather(*(client(connection) for _ in range(clients)))
        wall_s, (all_s, engines_s) = time.perf_counter() - start_s, service.cpu().since(cpu)
    told = [json.loads(reply) for reply in replies]
    right = [
        exact_match(each["choices"][0]["message"]["content"], [pair.reference])
        for each, pair in zip(told, pairs, strict=True)
    ]
    tokens = [each["usage"]["prompt_tokens_details"]["image_tokens"] for each in told]
    return Loop(wall_s, all_s, engines_s, right, tokens)


def row_of(policy: str, loops: Sequence[Loop]) -> Row:
    """What a policy reached in all its loops."""
    right = [each for loop in loops for each in loop.right]
    tokens = [each for loop in loops for each in loop.tokens]
    wall_s, all_s, engines_s = (
        sum(times) for times in zip(*((loop.wall_s, loop.all_s, loop.engines_s) for loop in loops), strict=True)
    )
    return Row(
        policy=policy,
        rps=len(right) / wall_s,
        accuracy=float(np.mean(right)),
        tokens=float(np.mean(tokens)),
        cpu_ms=1000 * all_s / len(right),
        beside_cpu_ms=1000 * (all_s - engines_s) / len(right),
    )


@dataclass(frozen=True)
class Arrivals:
    """Requests that come by themselves, one pair after the other."""

    pairs: list[Pair]
    models: Sequence[str]
    rate: float  # a second, Poisson


async def open_loop(service: Service, arrivals: Arrivals, last_s: float) -> np.ndarray:
    """Arrivals for a while; (N, 2) milliseconds to the first token and to the end."""
    drawn = random.Random(arrivals.rate)
    bodies = [pair.body(model, stream=True) for pair, model in zip(arrivals.pairs, arrivals.models, strict=True)]
    async with connected(service) as connection:

        async def asked(body: bytes) -> tuple[float, float]:
            start_s, first_s = time.perf_counter(), 0.0
            async with connection.post("/v1/chat/completions", data=body) as reply:
                reply.raise_for_status()
                async for _ in reply.content.iter_any():
                    first_s = first_s or time.perf_counter()
            return 1000 * (first_s - start_s), 1000 * (time.perf_counter() - start_s)

        tasks, due_s = [], time.perf_counter()
        end_s = due_s + last_s
        for body in itertools.cycle(bodies):
            due_s += drawn.expovariate(arrivals.rate)
            if due_s > end_s:
                break
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            tasks.append(asyncio.create_task(asked(body)))
        return np.array(await asyncio.gather(*tasks)).reshape(-1, 2)


async def add_open_loops(
    service: Service, row: Row, pairs: list[Pair], models: Sequence[str], common_rate: float, args: argparse.Namespace
) -> None:
    """Latencies at the common rate, and the highest rate within the limit."""
    if args.seconds:
        times = await open_loop(service, Arrivals(pairs, models, common_rate), args.seconds)
        row.p50_ms, row.p95_ms, row.p99_ms = np.percentile(times[:, 1], [50, 95, 99])
        row.first_token_ms = float(np.median(times[:, 0]))
        row.within_limit_rps = 0.0
        for share in LOADS:
            rate = share * row.rps
            times = await open_loop(service, Arrivals(pairs, models, rate), args.seconds)
            if len(times) == 0 or np.percentile(times[:, 1], 95) > args.limit_ms:
                break
            row.within_limit_rps = rate
    print(row.line(), file=sys.stderr, flush=True)


async def coarse_p99(
    service: Service, pairs: list[Pair], rates: tuple[float, float], last_s: float
) -> dict[str, float]:
    """p99 of requests for 9 tokens, alone and while others for 576 tokens arrive; rates of both, a second."""
    coarse, fine = (
        Arrivals(pairs, [name] * len(pairs), rate) for name, rate in zip(("m3-9", "m3-576"), rates, strict=True)
    )
    alone = await open_loop(service, coarse, last_s)
    among, _ = await asyncio.gather(open_loop(service, coarse, last_s), open_loop(service, fine, last_s))
    told = {"alone_ms": np.percentile(alone[:, 1], 99), "among_576_ms": np.percentile(among[:, 1], 99)}
    print("p99 of 9 tokens: " + ", ".join(f"{k} {v:.0f}" for k, v in told.items()), file=sys.stderr, flush=True)
    return {name: float(value) for name, value in told.items()} | {"coarse_rps": rates[0], "fine_rps": rates[1]}


def coarsest_right(loops: dict[int, Loop]) -> list[str]:
    """The model name of the coarsest scale that was right, for each pair; of the coarsest where none was."""
    by_pair = zip(*(loops[tokens].right for tokens in LADDER), strict=True)
    return [f"m3-{LADDER[right.index(True) if True in right else 0]}" for right in by_pair]


async def burst(service: Service, pairs: list[Pair], model: str, count: int) -> dict[str, float]:
    """So many requests at the same moment: how many are answered, how many refused with 429, and the slowest answer."""
    bodies = [pair.body(model) for pair in pairs]
    async with connected(service) as connection:

        async def asked(body: bytes) -> tuple[int, float]:
            start_s = time.perf_counter()
            async with connection.post("/v1/chat/completions", data=body) as reply:
                await reply.read()
                return reply.status, time.perf_counter() - start_s

        told = await asyncio.gather(*(asked(body) for body in itertools.islice(itertools.cycle(bodies), count)))
    statuses = [status for status, _ in told]
    row = {"sent": count, "answered": statuses.count(200), "refused": statuses.count(429)}
    row |= {"slowest_s": round(max((took for status, took in told if status == 200), default=0.0), 1)}
    print(f"burst of {model}: {row}", file=sys.stderr, flush=True)
    return row


async def one_by_one(service: Service, pairs: list[Pair]) -> tuple[float, float]:
    """Medians, one request at a time, routed: what it takes beyond the engine's own time, and the decision; ms."""
    beyond, decisions = [], []
    async with connected(service) as connection:
        for pair in pairs:
            body = pair.body("m3-auto")
            start_s = time.perf_counter()
            async with connection.post("/v1/chat/completions", data=body) as reply:
                await reply.read()
            whole_ms = 1000 * (time.perf_counter() - start_s)
            timing = dict(part.strip().split(";dur=") for part in reply.headers["server-timing"].split(","))
            beyond.append(whole_ms - float(timing["model"]))
            decisions.append(float(timing["decision"]))
    return float(np.median(beyond)), float(np.median(decisions))


def figure(rows: list[Row], path: Path) -> None:
    """Throughput against accuracy."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import ScalarFormatter

    canvas, axes = pyplot.subplots(figsize=(7.5, 4.5))
    for number, row in enumerate(rows):
        place = row.rps, 100 * row.accuracy
        axes.scatter(*place, color="tab:red" if row.policy.startswith("routed") else "tab:blue")
        side = "right" if row.policy == "routed" else "left"  # its neighbours stand close
        axes.annotate(row.policy, place, textcoords="offset points", xytext=(4, -13 if number % 2 else 6), ha=side)
    axes.set(xscale="log", xlabel="requests a second, closed loop", ylabel="accuracy, %")
    axes.set(xlim=(0.7 * min(row.rps for row in rows), 1.5 * max(row.rps for row in rows)))
    for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        ticks(ScalarFormatter())
    axes.margins(y=0.1)
    axes.grid(alpha=0.3)
    canvas.tight_layout()
    canvas.savefig(path, dpi=120)
    pyplot.close(canvas)


async def run(args: argparse.Namespace) -> int:
    pairs = draw(args.pairs)
    auto = ["m3-auto"] * len(pairs)
    parts = [slice(number, None, args.rounds) for number in range(args.rounds)]
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with naive_service(folder) as naive, routed_service(folder, **COLD) as service:
            await closed_loop(service, pairs[:32], auto[:32], args.clients)  # sets up what is set up lazily
            loops: dict[str, list[Loop]] = defaultdict(list)
            models: dict[str, list[str]] = defaultdict(lambda: [""] * len(pairs))
            for part in parts:  # the policies in turn, so that a slow moment of the machine is shared
                chosen = pairs[part]
                few = chosen[: args.naive_pairs // args.rounds]
                loops["naive"].append(await closed_loop(naive, few, ["m3-576"] * len(few), args.clients))
                fixed: dict[int, Loop] = {}
                for tokens in LADDER:
                    models[f"always {tokens}"][part] = [f"m3-{tokens}"] * len(chosen)
                    fixed[tokens] = await closed_loop(service, chosen, [f"m3-{tokens}"] * len(chosen), args.clients)
                    loops[f"always {tokens}"].append(fixed[tokens])
                loops["routed"].append(await closed_loop(service, chosen, auto[part], args.clients))
                models["perfect"][part] = coarsest_right(fixed)
                loops["perfect"].append(await closed_loop(service, chosen, models["perfect"][part], args.clients))
            models["routed"] = auto
            rows = {policy: row_of(policy, loops[policy]) for policy in POLICIES}
            common_rate = COMMON_LOAD * rows["always 576"].rps
            print(rows["naive"].line(), file=sys.stderr, flush=True)
            for policy in POLICIES[1:]:
                await add_open_loops(service, rows[policy], pairs, models[policy], common_rate, args)
            beyond_ms, decision_ms = await one_by_one(service, pairs[:100])
            bursts = {name: await burst(service, pairs, name, BURST) for name in ("m3-auto", "m3-576")}
            rates = 0.3 * rows["always 9"].rps, 0.3 * rows["always 576"].rps
            coarse = {"one pool": await coarse_p99(service, pairs, rates, 2 * args.seconds)} if args.seconds else {}
        with routed_service(folder) as service:
            await closed_loop(service, pairs, auto, args.clients)
            rows["warm"] = row_of("routed, warm", [await closed_loop(service, pairs, auto, args.clients)])
            await add_open_loops(service, rows["warm"], pairs, auto, common_rate, args)
            _, cached_ms = await one_by_one(service, pairs[:100])
        with routed_service(folder, pools=POOLS, **COLD) as service:
            await closed_loop(service, pairs[:32], auto[:32], args.clients)
            rows["pools"] = row_of("routed, pools", [await closed_loop(service, pairs, auto, args.clients)])
            await add_open_loops(service, rows["pools"], pairs, auto, common_rate, args)
            if args.seconds:
                coarse["two pools"] = await coarse_p99(service, pairs, rates, 2 * args.seconds)
    told = {
        "rows": [row.told() for row in rows.values()],
        "ratio_vs_576": rows["routed"].rps / rows["always 576"].rps,
        "ratio_vs_naive": rows["routed"].rps / rows["naive"].rps,
        "overhead_p50_ms": beyond_ms,
        "overhead_cpu_ms": rows["routed"].beside_cpu_ms,
        "decision_p50_ms": decision_ms,
        "cached_decision_p50_ms": cached_ms,
        "p99_of_9_tokens": coarse,
        "bursts": bursts,
        "common_rate": common_rate,
        "limit_ms": args.limit_ms,
        "pairs": len(pairs),
    }
    heads = {"rps": 8, "in limit": 10, "p50": 8, "p95": 8, "p99": 8, "first": 8, "accuracy": 10}
    heads |= {"tokens": 8, "CPU ms": 8, "beside": 8}
    print(f"{'policy':16}" + "".join(f"{head:>{width}}" for head, width in heads.items()))
    for row in rows.values():
        print(row.line())
    if args.figure:
        figure(list(rows.values()), args.figure)
    print(json.dumps(told))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the service under load.")
    parser.add_argument("--pairs", type=int, default=240, help="questions, one a picture (240)")
    parser.add_argument("--naive-pairs", type=int, default=80, help="of them for the naive service (80)")
    parser.add_argument("--rounds", type=int, default=4, help="of the closed loops, all policies in each (4)")
    parser.add_argument("--clients", type=int, default=16, help="of the closed loop (16)")
    parser.add_argument("--seconds", type=float, default=15, help="of each rate of the open loop; 0: none (15)")
    parser.add_argument("--limit-ms", type=float, default=1000, help="p95 latency that is allowed (1000)")
    parser.add_argument("--figure", type=Path, help="write a PNG: throughput against accuracy")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
