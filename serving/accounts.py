"""What is kept account of: numbers for Prometheus, records that feedback can name, fields of the request's log line."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from complexity.feedback import AnsweredRecord, decimals
from complexity.image_features import IMAGE_FEATURE_VERSION
from complexity.sample import Sample
from router.cache import CacheStats
from router.drift import Drift
from router.policy import Decision
from router.rollout import ShadowDecision
from serving.feedback import FeedbackStore
from serving.metrics import Arm, Declared, Metrics, Record
from serving.model import Answer, ModelInfo

MOST_SHADOWS = 10_000  # shadow decisions waiting for their answer's record

log = logging.getLogger(__name__)


def silent(declared: Declared) -> Record:
    """A metric that nobody reads."""
    return lambda value, labels: None


class Accounts:
    """Keeps account of decisions and answers; nothing here delays or fails a request.

    Args:
        feedback: where answers are remembered for feedback; None: no feedback is taken.
        second_look: whether unsure answers are given again, for the record.
    """

    def __init__(
        self,
        info: ModelInfo,
        metrics: Metrics | None = None,
        feedback: FeedbackStore | None = None,
        second_look: bool = False,
    ):
        self.metrics = metrics or Metrics(silent)
        self.feedback = feedback
        self.drift: Drift | None = None  # of the router in use; exchanged with it
        self._info = info
        self._second_look = second_look
        self._shadows: OrderedDict[str, int] = OrderedDict()  # tokens by decision id
        self._remembering: dict[str, asyncio.Task[None]] = {}  # by decision id

    def decided(self, decision: Decision, arm: Arm, free: bool) -> None:
        """A decision was made; `free` if the request left all to the router."""
        self.metrics.decided(decision, arm)
        if free and arm == "main" and self.drift is not None and decision.why in ("predicted", "cached"):
            self.drift.add(decision.tokens)

    def shadowed(self, seen: ShadowDecision) -> None:
        """The shadow router has decided too."""
        self.metrics.shadowed(seen.served, seen.shadow)
        if seen.decision_id and self.feedback is not None:
            self._shadows[seen.decision_id] = seen.shadow.tokens
            while len(self._shadows) > MOST_SHADOWS:
                self._shadows.popitem(last=False)

    def answered(
        self,
        decision: Decision,
        answers: tuple[Answer, ...],
        before: Answer | None,
        took_s: float,
        first_token_s: float | None,
    ) -> None:
        """A request got its answers."""
        self.metrics.answered(
            decision,
            sum(answer.visual_tokens for answer in answers),
            took_s,
            first_token_s,
            0 if before is None else before.visual_tokens,
        )

    def over_limit(self) -> None:
        """A request was refused since its key's limit doesn't hold its tokens."""
        self.metrics.rate_limited()

    def judged(self, score: float) -> None:
        """Somebody told how good an answer was."""
        self.metrics.feedback(score)

    def remember(self, decision_id: str, sample: Sample, decision: Decision, answer: Answer) -> None:
        """Keep a record of an answer about one picture, in the background."""
        if self.feedback is None:
            return
        task = asyncio.create_task(self._remember(self.feedback, decision_id, sample, decision, answer))
        self._remembering[decision_id] = task
        task.add_done_callback(lambda _: self._remembering.pop(decision_id, None))

    async def remembered(self, decision_id: str) -> None:
        """Wait until the record of an answer that was just given is there."""
        if decision_id in self._remembering:
            await asyncio.shield(self._remembering[decision_id])

    def tell(self, cache: CacheStats) -> None:
        """Hand over what is counted elsewhere, and gauges; called every few seconds."""
        self.metrics.cached(cache)
        self.metrics.drifted(None if self.drift is None else self.drift.index())

    async def _remember(
        self, feedback: FeedbackStore, decision_id: str, sample: Sample, decision: Decision, answer: Answer
    ) -> None:
        try:
            features = await asyncio.to_thread(lambda: sample.image_features)
            record = AnsweredRecord(
                decision_id=decision_id,
                image_sha256=sample.image_sha256,
                question=sample.question,
                model=self._info.model_id,
                ladder=self._info.ladder,
                tokens=decision.tokens,
                visual_tokens=answer.visual_tokens,
                prediction=answer.text,
                mean_logprob=answer.mean_logprob,
                generated_tokens=answer.completion_tokens,
                feature_version=IMAGE_FEATURE_VERSION,
                image_features=decimals(features),
                artifact=decision.artifact,
                why=decision.why,
                probabilities=decision.probabilities,
                price=decision.price,
                second_look=self._second_look,
                shadow_tokens=self._shadows.pop(decision_id, None),
            )
            await feedback.remember(record)
        except Exception:  # an answer that feedback can't name is still an answer
            log.exception("an answer could not be remembered for feedback")


def log_fields(decision: Decision, decision_id: str, model: str, answers: tuple[Answer, ...] = ()) -> Mapping[str, Any]:
    """What the request's log line says of its decision and answers."""
    told: dict[str, Any] = {
        "decision_id": decision_id,
        "model": model,
        "tokens": decision.tokens,
        "why": decision.why,
    }
    if answers:
        told["visual_tokens"] = answers[0].visual_tokens
        told["completion_tokens"] = sum(answer.completion_tokens for answer in answers)
    return told
