"""Every number that the service tells Prometheus of, declared in one place, and counted by plain methods.

Ray exports them on the port of each node's metrics agent, with `ray_` before the names and, inside Ray Serve, with the
labels of `SERVE_LABELS`. Units are base units (seconds, tokens). Labels are bounded: rungs of the ladder and words that
stand in this project's code, never anything that a caller wrote.

What Ray does with them decides how they are declared:
- a gauge that isn't set for two of Ray's reporting intervals (10 s each) vanishes, so `keep_telling` sets gauges anew;
- a histogram's `_sum` is computed from the middles of its buckets, so what must add up exactly is a counter;
- a counter can't fall, so tokens saved are the difference of two counters.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from router.cache import CacheStats
from router.policy import Decision

PREFIX = "ray_"  # Ray's, before every name
SERVE_LABELS = ("deployment", "replica", "application")  # Ray Serve adds them; a pool of replicas is a deployment
REFRESH_S = 5.0

DECISION_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
ANSWER_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

ENDPOINTS = frozenset({"/v1/chat/completions", "/v1/route", "/v1/route/batch", "/v1/feedback", "/v1/models"})
CODES = frozenset({200, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 499, 500, 502, 503, 504})
CACHE_RESULTS = {  # by the field of CacheStats; garbage is counted as a miss too
    "hits_local": "local_hit",
    "hits_redis": "redis_hit",
    "misses": "miss",
    "errors": "error",
    "garbage": "garbage",
    "skipped": "skipped",
    "writes_dropped": "dropped_write",
}

Arm = Literal["main", "canary"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)  # each is itself alone: found fast as a key
class Declared:
    """A metric as it is declared to Ray; a counter's name ends in _total."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    description: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()  # upper bounds of a histogram's buckets


REQUESTS = Declared("counter", "m3_requests_total", "HTTP requests answered", ("endpoint", "code"))
RATE_LIMITED = Declared("counter", "m3_rate_limited_total", "requests refused since their key asked too much")
DECISIONS = Declared("counter", "m3_decisions_total", "decisions by scale, reason and router", ("scale", "why", "arm"))
DECISION_TIME = Declared("histogram", "m3_decision_seconds", "time to decide", ("why",), DECISION_S)
PROBABILITY = Declared(
    "histogram", "m3_chosen_probability", "predicted P(right answer) of the chosen scale", ("scale",), TENTHS
)
DRIFT = Declared("gauge", "m3_scale_drift_index", "population stability index of the scales against calibration")
CACHE = Declared("counter", "m3_cache_results_total", "what the decision cache did", ("result",))
VISUAL_TOKENS = Declared("counter", "m3_visual_tokens_total", "visual tokens that the model read", ("scale",))
IF_FINEST = Declared(
    "counter", "m3_visual_tokens_if_finest_total", "visual tokens that always the finest would take", ("scale",)
)
ANSWER_TIME = Declared(
    "histogram", "m3_answer_seconds", "time from a request to its whole answer", ("scale",), ANSWER_S
)
FIRST_TOKEN_TIME = Declared(
    "histogram", "m3_first_token_seconds", "time from a request to its answer's first token", ("scale",), ANSWER_S
)
WAITING = Declared("gauge", "m3_waiting_requests", "requests that wait in the engine")
RUNNING = Declared("gauge", "m3_running_requests", "answers that the engine is writing")
FEEDBACK = Declared("counter", "m3_feedback_total", "feedback rows by verdict", ("result",))
SHADOW = Declared(
    "counter",
    "m3_shadow_decisions_total",
    "decisions of the shadow router by the scale that was served, and where the shadow's lies from there",
    ("scale", "direction"),
)
ALL = (
    *(REQUESTS, RATE_LIMITED, DECISIONS, DECISION_TIME, PROBABILITY, DRIFT, CACHE, VISUAL_TOKENS, IF_FINEST),
    *(ANSWER_TIME, FIRST_TOKEN_TIME, WAITING, RUNNING, FEEDBACK, SHADOW),
)

Record = Callable[[float, dict[str, str]], None]


def ray_record(declared: Declared) -> Record:
    """Declare a metric to Ray; inside a replica, after Serve has told the process which it is."""
    from ray.serve import metrics

    labels: Any = declared.labels  # Ray's annotations want exactly one
    match declared.kind:
        case "counter":
            return metrics.Counter(declared.name, declared.description, labels).inc
        case "gauge":
            return metrics.Gauge(declared.name, declared.description, labels).set
        case "histogram":
            bounds = list(declared.bounds)
            return metrics.Histogram(declared.name, declared.description, bounds, labels).observe


class Metrics:
    """Counts what happens in one process; made once in it. A call takes microseconds and may come from any thread.

    Args:
        make: declares a metric, and gives what records a value with labels.
    """

    def __init__(self, make: Callable[[Declared], Record] = ray_record):
        self._record = {declared: make(declared) for declared in ALL}
        self._cache = CacheStats()

    def requested(self, path: str, code: int) -> None:
        """An HTTP request was answered; a path or status code that isn't known here is counted with others like it."""
        endpoint = path if path in ENDPOINTS else "other"
        status = str(code) if code in CODES else f"{code // 100}xx" if 100 <= code < 600 else "other"
        self._record[REQUESTS](1, {"endpoint": endpoint, "code": status})

    def rate_limited(self) -> None:
        """A request was refused since its key asked too much."""
        self._record[RATE_LIMITED](1, {})

    def decided(self, decision: Decision, arm: Arm = "main") -> None:
        """A decision was made, by the router in use or by its canary."""
        scale = str(decision.tokens)
        self._record[DECISIONS](1, {"scale": scale, "why": decision.why, "arm": arm})
        self._record[DECISION_TIME](decision.latency_ms / 1000, {"why": decision.why})
        if decision.probabilities is not None:
            chosen = decision.probabilities[decision.ladder.index(decision.tokens)]
            self._record[PROBABILITY](float(chosen), {"scale": scale})

    def answered(
        self,
        decision: Decision,
        visual_tokens: int,
        answer_s: float,
        first_token_s: float | None = None,
        visual_tokens_before: int = 0,
    ) -> None:
        """A request got its answer.

        Args:
            decision: which the answer was given at.
            visual_tokens: that the model read for what was sent. By the finest scale it is multiplied, ends of lines
                of tiles included; with several answers or pictures it is their sum.
            answer_s: from the request's arrival to the whole answer.
            first_token_s: from the request's arrival to the first token, where it is known.
            visual_tokens_before: of a first answer that wasn't sure enough; always the finest wouldn't need them.
        """
        scale = {"scale": str(decision.tokens)}
        if visual_tokens > 0:  # an answer to text alone has none, and a counter takes no 0
            self._record[VISUAL_TOKENS](visual_tokens + visual_tokens_before, scale)
            self._record[IF_FINEST](visual_tokens * decision.ladder[-1] / decision.tokens, scale)
        self._record[ANSWER_TIME](answer_s, scale)
        if first_token_s is not None:
            self._record[FIRST_TOKEN_TIME](first_token_s, scale)

    def cached(self, stats: CacheStats) -> None:
        """What a decision cache has done so far; counted is what it did since the last call."""
        for name, result in CACHE_RESULTS.items():
            now, before = getattr(stats, name), getattr(self._cache, name)
            more = now - before if now >= before else now  # fewer than before: another cache, which began at 0
            if more:
                self._record[CACHE](more, {"result": result})
        self._cache = stats

    def drifted(self, index: float | None) -> None:
        """How far the mix of scales has gone from calibration's; None while that isn't known."""
        if index is not None:
            self._record[DRIFT](index, {})

    def working(self, waiting: int, running: int) -> None:
        """Requests that wait in the engine of this process, and answers it is writing."""
        self._record[WAITING](waiting, {})
        self._record[RUNNING](running, {})

    def feedback(self, score: float) -> None:
        """Somebody told how good an answer was, in [0, 1]; from 0.5 on it counts as right."""
        self._record[FEEDBACK](1, {"result": "right" if score >= 0.5 else "wrong"})

    def shadowed(self, served: Decision, shadow: Decision | None) -> None:
        """What the shadow router would have done with a decided request; None when it failed."""
        direction = "failed"
        if shadow is not None:
            less, same = shadow.tokens < served.tokens, shadow.tokens == served.tokens
            direction = "same" if same else "coarser" if less else "finer"
        self._record[SHADOW](1, {"scale": str(served.tokens), "direction": direction})


async def keep_telling(tell: Callable[[], None], every_s: float = REFRESH_S) -> NoReturn:
    """Call `tell`, which sets gauges and hands over the cache's counts, now and again until cancelled.

    What it raises is logged once per cause, and changes nothing else.
    """
    told: set[str] = set()
    while True:
        try:
            tell()
        except Exception as error:
            cause = type(error).__name__
            if cause not in told:
                told.add(cause)
                log.exception("metrics can't be told")
        await asyncio.sleep(every_s)
