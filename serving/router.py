"""What the service needs of a router; `router.rollout.Rollout` has it."""

from collections.abc import Sequence
from typing import Protocol

from complexity.errors import InvalidInput
from complexity.sample import Sample
from router.explain import Explanation
from router.policy import FREE, Decision, Wish
from serving.metrics import Arm


class Router(Protocol):
    """What decides."""

    async def route(self, sample: Sample, wish: Wish = FREE, decision_id: str = "") -> Decision:
        """Decide for one picture and question.

        Raises:
            InvalidInput: the picture can't be read.
        """
        ...

    async def route_many(self, samples: Sequence[Sample], wish: Wish = FREE) -> list[Decision | InvalidInput]:
        """Decide for several; a picture that can't be read has its error in its place."""
        ...

    async def explain(self, sample: Sample, decision: Decision) -> Explanation | None:
        """What a decision was made of; None where nothing was predicted or the artifact is gone."""
        ...

    def arm(self, decision: Decision) -> Arm:
        """Which artifact made it: the one that decides, or its canary."""
        ...

    def forced(self, tokens: int) -> Decision:
        """The decision that a caller has made.

        Raises:
            OffLadder: `tokens` is not a rung of the ladder.
        """
        ...

    def again(self, decision: Decision, mean_logprob: float, ceiling: int | None = None) -> Decision | None:
        """The finer decision after an answer of this certainty; None where the answer stands.

        Args:
            mean_logprob: of the answer's tokens, natural.
            ceiling: most visual tokens.
        """
        ...
