"""What happens to a request between its body and its answer: read, decide, ask the model, keep account. No ray."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import TypeVar

from complexity.errors import InvalidInput, M3Error
from complexity.sample import Sample
from router.explain import Explanation
from router.policy import FREE, Decision, Wish
from serving.access import ApiKey
from serving.accounts import Accounts
from serving.failures import Refused
from serving.fetch import PictureFetcher
from serving.intake import Intake, pictures_of, read_batch, read_request
from serving.model import Answer, Ask, Model, ModelInfo, ModelTimeout, Picture, Piece
from serving.rates import Allowance, OverLimit, RateLimiter
from serving.router import Router
from serving.settings import Settings
from serving.tracing import Tracer

T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """A request that has been read: what it wants, and its pictures."""

    intake: Intake
    samples: tuple[Sample, ...]  # a picture each, all with the question
    pictures: tuple[Picture, ...] | None  # None where the decision alone is wanted
    since_s: float = field(default_factory=time.monotonic)  # when it had been read

    @property
    def asked(self) -> tuple[Sample, ...]:
        """The samples that the question is about, which are routed."""
        return self.samples[-self.intake.conversation.asked :]


@dataclass(frozen=True)
class Answered:
    """The answers that are sent, and how they came about."""

    decision: Decision
    answers: tuple[Answer, ...]  # as many as the request wants
    before: Answer | None = None  # a first answer that wasn't sure enough
    first_tokens: int | None = None  # its tokens per grid

    @property
    def visual_tokens(self) -> int:
        """What the language model saw, of both answers where there were two."""
        return self.answers[0].visual_tokens + (self.before.visual_tokens if self.before else 0)

    @property
    def saved_tokens(self) -> int:
        """Visual tokens that one answer at the finest scale would have taken beyond those that were taken."""
        finest = self.decision.ladder[-1] / self.decision.tokens
        return round(self.answers[0].visual_tokens * finest) - self.visual_tokens


@dataclass
class Service:
    """What the HTTP handlers need: the router, which may be exchanged at any time, the model, and what the model is."""

    router: Router
    model: Model
    info: ModelInfo
    settings: Settings
    fetcher: PictureFetcher | None = None  # None: pictures come as data URLs alone
    limiter: RateLimiter | None = None  # None: nobody has a limit
    accounts: Accounts = None  # type: ignore[assignment]  # unless given, made for `info`, and silent
    tracer: Tracer = field(default_factory=Tracer)
    _pool: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self.accounts = self.accounts or Accounts(self.info)
        self._pool = ThreadPoolExecutor(self.settings.decode_threads, thread_name_prefix="decode")

    async def read(self, body: bytes, headers: Mapping[str, str], whole: bool = True) -> Wanted:
        """Read and check a request off the event loop, since it can be megabytes; fetch its pictures if need be.

        Args:
            whole: decode its pictures too; a decision that is remembered needs none.

        Raises:
            Refused: the request can't be answered as it stands.
            ModelTimeout: it takes too long.
        """

        def checked() -> Intake | Wanted:
            intake = read_request(body, self.info, self.settings, headers)
            return self._decoded(intake, whole) if intake.complete else intake

        read = await self._off_loop(checked)
        if isinstance(read, Wanted):
            return read
        fetched = await self._fetched(read)
        return await self._off_loop(lambda: self._decoded(fetched, whole))

    async def read_batch(self, body: bytes, headers: Mapping[str, str]) -> list[Wanted | M3Error]:
        """Read a batch of requests for decisions; what is wrong with one is its own."""
        read = await self._off_loop(lambda: read_batch(body, self.info, self.settings, headers))

        async def one(intake: Intake | Refused) -> Wanted | M3Error:
            if isinstance(intake, Refused):
                return intake
            try:
                fetched = intake if intake.complete else await self._fetched(intake)
                return await self._off_loop(lambda: self._decoded(fetched, whole=False))
            except M3Error as error:
                return error

        return list(await asyncio.gather(*map(one, read)))

    async def decide(self, wanted: Wanted, decision_id: str) -> tuple[Decision, Sample]:
        """The number of tokens asked for by name, or else the router's choice; and the sample that it was made for.

        Of several pictures the one that needs most decides.

        Raises:
            Refused: a picture isn't acceptable.
        """
        intake, router = wanted.intake, self.router  # the router may be exchanged meanwhile
        if intake.tokens is not None:
            return self._counted(router, router.forced(intake.tokens), intake), wanted.asked[0]

        async def one(sample: Sample, param: str) -> Decision:
            try:
                return await router.route(sample, intake.wish, decision_id)
            except InvalidInput as error:
                raise Refused(400, "invalid_image", str(error), param) from None

        images = intake.conversation.images[-intake.conversation.asked :]
        named = zip(wanted.asked, images, strict=True)
        decisions = await asyncio.gather(*(one(sample, image.param) for sample, image in named))
        decision, sample = max(zip(decisions, wanted.asked, strict=True), key=lambda decided: decided[0].tokens)
        return self._counted(router, decision, intake), sample

    async def decide_all(self, batch: Sequence[Wanted | M3Error]) -> list[tuple[Decision, Sample] | M3Error]:
        """Decide on many requests; those that wish the same are predicted together, and each fails for itself."""
        found: dict[int, tuple[Decision, Sample] | M3Error] = {}
        alike: dict[Wish, list[tuple[int, Wanted]]] = {}
        for i, wanted in enumerate(batch):
            if isinstance(wanted, M3Error):
                found[i] = wanted
            elif wanted.intake.tokens is None and len(wanted.asked) == 1:
                alike.setdefault(wanted.intake.wish, []).append((i, wanted))
            else:
                try:
                    found[i] = await self.decide(wanted, "")
                except M3Error as error:
                    found[i] = error
        router = self.router
        for wish, group in alike.items():
            try:
                decided = await router.route_many([wanted.asked[0] for _, wanted in group], wish)
            except M3Error as error:
                found |= {i: error for i, _ in group}
                continue
            for (i, wanted), decision in zip(group, decided, strict=True):
                if isinstance(decision, Decision):
                    found[i] = self._counted(router, decision, wanted.intake), wanted.asked[0]
                else:
                    param = wanted.intake.conversation.images[-1].param
                    found[i] = Refused(400, "invalid_image", str(decision), param)
        return [found[i] for i in range(len(batch))]

    def _counted(self, router: Router, decision: Decision, intake: Intake) -> Decision:
        self.accounts.decided(decision, router.arm(decision), free=intake.wish == FREE)
        return decision

    async def explain(self, wanted: Wanted, about: Sample, decision: Decision) -> Explanation | None:
        """What a decision was made of, where the request wants to know."""
        return await self.router.explain(about, decision) if wanted.intake.explain else None

    async def charge(self, key: ApiKey | None, wanted: Wanted, decision: Decision) -> Allowance:
        """Take a request's visual tokens off its key's limit.

        Raises:
            OverLimit: the key has fewer left.
        """
        if self.limiter is None or key is None or key.tokens_per_minute is None:
            return Allowance(True)
        tokens = self.cost(wanted, decision)
        allowance = await self.limiter.take(key.name, tokens, key.tokens_per_minute)
        if not allowance.allowed:
            self.accounts.over_limit()
            raise OverLimit(tokens, allowance)
        return allowance

    async def refund(self, key: ApiKey | None, wanted: Wanted, decision: Decision, allowance: Allowance) -> None:
        """Return what a request was charged that then failed."""
        if self.limiter is not None and key is not None and allowance.limit is not None:
            await self.limiter.give_back(key.name, self.cost(wanted, decision), allowance.shared)

    def cost(self, wanted: Wanted, decision: Decision) -> int:
        """Visual tokens that a request is charged: of every picture and answer, one grid each."""
        return decision.tokens * len(wanted.samples) * wanted.intake.n

    async def answer(self, wanted: Wanted, decision: Decision) -> Answered:
        """Let the model answer at the granularity that is decided, perhaps twice."""
        asks = self._asks(wanted, decision.tokens)
        answers = tuple(await asyncio.gather(*map(self.model.answer, asks)))
        if len(answers) > 1:
            return Answered(decision, answers)
        better = self.router.again(decision, answers[0].mean_logprob, wanted.intake.wish.ceiling)
        if better is None:
            return Answered(decision, answers)
        second = await self.model.answer(self._asks(wanted, better.tokens)[0])
        return Answered(better, (second,), answers[0], decision.tokens)

    def streams(self, wanted: Wanted, decision: Decision) -> list[AsyncIterator[Piece | Answer]]:
        """The answers piece by piece, as many as the request wants."""
        return [self.model.stream(ask) for ask in self._asks(wanted, decision.tokens)]

    def finished(self, decision_id: str, wanted: Wanted, answered: Answered, start_s: float) -> None:
        """Keep account of a request that got its answers; `start_s` is on time.perf_counter's clock."""
        took_s, answer = time.perf_counter() - start_s, answered.answers[0]
        first_s = took_s - (answer.engine_ms - answer.first_token_ms) / 1000
        self.accounts.answered(answered.decision, answered.answers, answered.before, took_s, first_s)
        if len(wanted.samples) == 1 and not wanted.intake.conversation.history:
            self.accounts.remember(decision_id, wanted.samples[0], answered.decision, answer)
        self.tracer.record_intervals(answer.intervals, time.time() - answer.engine_ms / 1000)

    def _asks(self, wanted: Wanted, tokens: int) -> list[Ask]:
        intake, conversation = wanted.intake, wanted.intake.conversation
        assert wanted.pictures is not None
        left_s = self.settings.answer_timeout_s - (time.monotonic() - wanted.since_s)
        if left_s <= 0:
            raise ModelTimeout(f"no answer within {self.settings.answer_timeout_s:g} s")
        ask = Ask(
            pictures=wanted.pictures,
            question=conversation.question,
            tokens=tokens,
            max_new_tokens=intake.max_new_tokens,
            system=conversation.system,
            history=conversation.history,
            temperature=intake.temperature,
            top_p=intake.top_p,
            seed=intake.seed,
            stop=intake.stop,
            stream=intake.stream,
            logprobs=intake.logprobs,
            deadline_s=left_s,
        )
        return [replace(ask, seed=(intake.seed + i) % 2**63) for i in range(intake.n)]

    async def _fetched(self, intake: Intake) -> Intake:
        """With the bytes of pictures that were named by URL."""
        assert self.fetcher is not None  # without one, no URL is accepted
        fetcher, images = self.fetcher, intake.conversation.images
        waiting = [fetcher.fetch(image.url, image.param) for image in images if image.url is not None]
        data = iter(await asyncio.gather(*waiting))
        return intake.with_images(
            tuple(image if image.url is None else replace(image, data=next(data)) for image in images)
        )

    async def _off_loop(self, work: Callable[[], T]) -> T:
        """Run in a thread, in this context; one that takes too long is left behind, and the caller told."""
        limit_s = self.settings.decode_timeout_s
        running = asyncio.get_running_loop().run_in_executor(self._pool, copy_context().run, work)
        try:
            return await asyncio.wait_for(running, limit_s)
        except TimeoutError:
            raise ModelTimeout(f"reading the request and its pictures took more than {limit_s:g} s") from None

    def _decoded(self, intake: Intake, whole: bool) -> Wanted:
        """With its pictures decoded, where they are wanted; a fixed scale would otherwise accept a broken one."""
        samples = intake.samples()
        if not whole and intake.tokens is None:
            return Wanted(intake, samples, None)
        with self.tracer.span("image"):
            return Wanted(intake, samples, pictures_of(samples, intake.conversation.images))
