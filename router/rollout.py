"""What decides now: a router that serves, another that is tried on a share of the samples, and one that only watches.

A canary decides instead of the serving router, for a fixed share of the samples. A shadow decides beside the router
that served, after it and in threads of its own: what it says is recorded and never served.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from complexity.errors import ArtifactError, InvalidInput
from complexity.sample import Sample
from router.explain import Explanation
from router.policy import FREE, Decision, Wish
from router.route import Router

MOST = {"light": 32, "tower": 4}  # that a shadow is busy with; after the tower each takes a place in the model's queue
SHADOW_THREADS = 1  # a shadow takes no more than this much of the machine, and none of the requests' threads

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShadowDecision:
    """What was decided for a request, and what would have been."""

    decision_id: str  # as given to `Rollout.route`
    served: Decision
    shadow: Decision


@dataclass(frozen=True)
class Shadow:
    """A router that watches."""

    router: Router
    record: Callable[[ShadowDecision], None]  # called on the event loop: should be quick, such as filling a queue
    most: int | None = None  # requests that it is busy with or that wait for it, and no more; None: by where it decides


@dataclass(frozen=True)
class Canary:
    """A router that decides for some of the samples."""

    router: Router
    percent: float  # of the pairs of picture and question, 0 to 100


@dataclass(frozen=True)
class RolloutStats:
    """What happened so far."""

    canary: int = 0  # samples that the canary decided on
    recorded: int = 0  # of the shadow's decisions
    dropped: int = 0  # requests that the shadow wasn't asked about, or had no time for when it was closed
    failed: int = 0  # requests that broke the shadow or its recording


class Rollout:
    """Decides like a Router, by several; used on one event loop, where calls may overlap.

    Args:
        serving: decides for every sample that isn't the canary's.
        shadow: decides beside whichever router served; None: nobody does.
        canary: decides for its share of the samples, always the same ones; None: for none.

    Raises:
        ArtifactError: shadow or canary were trained for another model or ladder than the serving router.
        InvalidInput: the canary's share isn't from 0 to 100 percent.
    """

    def __init__(self, serving: Router, shadow: Shadow | None = None, canary: Canary | None = None):
        if canary is not None:
            _check("canary", canary.router, serving)
            if not 0 <= canary.percent <= 100:
                raise InvalidInput(f"a canary of {canary.percent!r} percent; 0 to 100 are possible", "percent")
        if shadow is not None:
            _check("shadow", shadow.router, serving)
        self.stats = RolloutStats()
        self._serving = serving
        self._canary = canary
        self._shadow = shadow
        self._threads = ThreadPoolExecutor(SHADOW_THREADS, "shadow")  # starts none before the first use
        self._watching = None if shadow is None else shadow.router.apart(self._threads)
        self._most = 0
        if shadow is not None:
            self._most = MOST[shadow.router.artifact.place] if shadow.most is None else shadow.most
        self._watched: set[asyncio.Task[None]] = set()
        self._closed = False
        self._told: set[str] = set()  # causes already logged

    async def route(self, sample: Sample, wish: Wish = FREE, decision_id: str = "") -> Decision:
        """Choose a scale for a sample as `Router.route` does; the shadow goes to work when the caller has it.

        Args:
            wish: a price in it is per unit of the costs of whichever router decides; a loss means the same to all.
            decision_id: what the request's decision is called, for the record.

        Raises:
            InvalidInput, OffLadder: as `Router.route`; of such a request the shadow hears nothing.
        """
        decision = await self._router_of(sample).route(sample, wish)
        if self._shadow is not None and self._watching is not None:
            if self._closed or len(self._watched) >= self._most:
                self._count(dropped=1)
            else:
                decide = partial(self._watching.route, sample, wish)
                task = asyncio.create_task(self._watch(self._shadow, decide, decision_id, decision))
                self._watched.add(task)
                task.add_done_callback(self._watched.discard)
        return decision

    async def route_many(self, samples: Sequence[Sample], wish: Wish = FREE) -> list[Decision | InvalidInput]:
        """Choose scales for many samples as `Router.route_many` does, each by its router; the shadow isn't asked."""
        shares: dict[int, tuple[Router, list[int]]] = {}
        for i, sample in enumerate(samples):
            router = self._router_of(sample)
            shares.setdefault(id(router), (router, []))[1].append(i)
        found: dict[int, Decision | InvalidInput] = {}
        for router, places in shares.values():
            theirs = [samples[i] for i in places]
            decided = await router.route_many(theirs, wish)
            found |= zip(places, decided, strict=True)
        return [found[i] for i in range(len(samples))]

    def again(self, decision: Decision, mean_logprob: float, ceiling: int | None = None) -> Decision | None:
        """As `Router.again` of the router that decided; None where that one isn't here (any more)."""
        router = self._router_by(decision.artifact)
        return None if router is None else router.again(decision, mean_logprob, ceiling)

    async def explain(self, sample: Sample, decision: Decision) -> Explanation | None:
        """As `Router.explain` of the router that decided; None where that one isn't here (any more)."""
        router = self._router_by(decision.artifact)
        return None if router is None else await router.explain(sample, decision)

    def forced(self, tokens: int) -> Decision:
        """As `Router.forced` of the serving router."""
        return self._serving.forced(tokens)

    def arm(self, decision: Decision) -> Literal["main", "canary"]:
        """Which router decided."""
        canary = self._canary
        return "canary" if canary is not None and decision.artifact == canary.router.artifact.digest else "main"

    async def close(self, limit_s: float = 5.0) -> None:
        """Wait until the shadow is done with what it has, but no longer than this; it isn't asked any more.

        The serving router and the canary go on for whoever still holds this rollout.
        """
        self._closed = True
        if self._watched:
            _, late = await asyncio.wait(self._watched, timeout=limit_s)
            for task in late:
                task.cancel()
            self._count(dropped=len(late))
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _watch(
        self,
        shadow: Shadow,
        decide: Callable[[], Awaitable[Decision]],
        decision_id: str,
        served: Decision,
    ) -> None:
        try:
            shadow.record(ShadowDecision(decision_id, served, await decide()))
        except Exception as error:  # the request has its decision; this is nobody's failure but the shadow's
            self._count(failed=1)
            cause = type(error).__name__
            if cause not in self._told:
                self._told.add(cause)
                log.warning("the shadow router failed", exc_info=error)
        else:
            self._count(recorded=1)

    def _router_of(self, sample: Sample) -> Router:
        canary = self._canary
        if canary is None or share_of(sample.image_sha256, sample.question_sha256) >= canary.percent / 100:
            return self._serving
        self._count(canary=1)
        return canary.router

    def _router_by(self, artifact: str) -> Router | None:
        routers = [self._serving] if self._canary is None else [self._serving, self._canary.router]
        return next((router for router in routers if router.artifact.digest == artifact), None)

    def _count(self, **more: int) -> None:
        self.stats = replace(self.stats, **{name: getattr(self.stats, name) + n for name, n in more.items()})


def share_of(image_sha256: str, question_sha256: str) -> float:
    """Where a sample stands among all, in [0, 1): the same on every machine, and spread evenly."""
    digest = hashlib.sha256(f"{image_sha256}:{question_sha256}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53  # as many bits as a float holds: never 1


def _check(name: str, router: Router, serving: Router) -> None:
    theirs, ours = router.artifact, serving.artifact
    for what, found, wanted in (("model", theirs.model, ours.model), ("ladder", theirs.ladder, ours.ladder)):
        if found != wanted:
            raise ArtifactError(f"the {name}'s {what} is {found!r}, the serving router's {wanted!r}")
