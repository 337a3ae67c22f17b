"""The wire types that are this service's own: the `m3` field of requests and answers, decisions, feedback.

`VERSION` names the set of x-m3-* headers and the fields of `m3`; it changes when one of them changes its meaning or
goes away. docs/api.md is their reference.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

VERSION: Literal["1"] = "1"


class Closed(BaseModel):
    """A request type: unknown fields are refused by name, and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


CacheWish = Literal["no-cache", "no-store"]


def _list(wish: object) -> object:
    return [wish] if isinstance(wish, str) else wish


class Wishes(Closed):
    """What a request asks of the router; the headers x-m3-floor and so on say the same."""

    floor: int | None = Field(None, description="the fewest visual tokens, one of the model's scales")
    ceiling: int | None = Field(None, description="the most visual tokens, one of the model's scales")
    max_loss: float | None = Field(
        None, ge=0, lt=1, description="accuracy that may be lost against the finest scale, a share; 0.02 is two points"
    )
    cache: Annotated[
        list[CacheWish] | None, BeforeValidator(_list, json_schema_input_type=CacheWish | list[CacheWish] | None)
    ] = Field(None, description="no-cache: decide anew; no-store: don't remember the decision")
    explain: bool | None = Field(None, description="tell what the decision was made of")


class ScaleChance(BaseModel):
    """One scale as the router saw it."""

    tokens: int
    probability: float  # P(right answer)
    cost: float  # in the artifact's unit
    utility: float  # probability - price x cost


class FeatureShare(BaseModel):
    """A feature's part in a decision."""

    name: str
    log_odds: float  # what the feature adds to the chosen scale's log-odds


class Explanation(BaseModel):
    """What a decision was made of, on request."""

    scales: list[ScaleChance]
    familiar: bool
    features: list[FeatureShare]
    cost_unit: str


Why = Literal["predicted", "cached", "forced", "fallback", "unfamiliar", "unsure"]


class Decision(BaseModel):
    """How many visual tokens were chosen, and why.

    predicted, or cached: the scale worth its cost; forced: named by the caller; unfamiliar: unlike the training data,
    so the finest; fallback: the prediction failed, so the finest; unsure: a first answer was doubtful.
    """

    version: Literal["1"] = VERSION
    decision_id: str
    tokens: int  # per grid
    why: Why
    probabilities: dict[str, float] | None  # P(right answer) by tokens; null where nothing was predicted
    price: float  # probability of a right answer per unit of cost
    artifact: str
    decision_ms: float
    explanation: Explanation | None = None


class AnsweredDecision(Decision):
    """A decision that was carried out."""

    visual_tokens: int  # what the language model really saw, of both answers when it answered twice
    saved_tokens: int  # visual tokens fewer than at the finest scale; negative when two answers took more
    first_tokens: int | None = None  # tokens per grid of a first answer that wasn't sure enough
    mean_logprob: float  # natural log, mean over the answer's tokens
    reads: Literal["conversation", "question"]  # what of the messages reaches the model


class RouteResponse(Decision):
    """Body of a reply of POST /v1/route."""

    object: Literal["m3.decision"] = "m3.decision"
    model: str


ONE_VERDICT: JsonDict = {  # checked where it is read; said here for the description of the interface
    "oneOf": [
        {"required": ["score"], "properties": {"score": {"type": "number"}}},
        {"required": ["correct"], "properties": {"correct": {"type": "boolean"}}},
    ]
}


class Feedback(Closed):
    """Body of POST /v1/feedback: how good an answer was, by one of `score` and `correct`."""

    model_config = ConfigDict(json_schema_extra=ONE_VERDICT)

    decision_id: Annotated[str, Field(pattern=r"^m3-[0-9a-f]{32}$")]
    score: float | None = Field(None, ge=0, le=1, description="1 is right, 0 is wrong")
    correct: bool | None = None
    reference: Annotated[str, Field(min_length=1, max_length=1000)] | None = Field(None, description="a right answer")


class FeedbackReceipt(BaseModel):
    """Body of a reply of POST /v1/feedback; the row is on the disk when it arrives."""

    object: Literal["m3.feedback"] = "m3.feedback"
    decision_id: str
    duplicate: bool  # the same had been stored before, under the same Idempotency-Key
