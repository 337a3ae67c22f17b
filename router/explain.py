"""Why a decision came out as it did: what every scale was worth, and which features spoke for the one chosen."""

from dataclasses import dataclass

import numpy as np

from router.artifact import Artifact
from router.policy import Decision


@dataclass(frozen=True)
class ScaleChance:
    """One scale as the policy saw it."""

    tokens: int
    probability: float  # P(right answer)
    cost: float  # in the artifact's unit
    utility: float  # probability - price * cost, at the decision's price


@dataclass(frozen=True)
class FeatureShare:
    """How much one feature moved the prediction."""

    name: str  # of complexity.features.NAMES, or "scale"
    log_odds: float  # natural, that it adds to those of a right answer at the chosen scale


@dataclass(frozen=True)
class Explanation:
    """What a decision was made of.

    Of the scales that floor and ceiling allow, the one with the highest utility is taken. At a price of -1 the utility
    says nothing: the finest scale is taken. For an unsure first answer the probabilities are those after it.
    """

    tokens: int  # of the chosen scale
    price: float  # probability of a right answer per unit of cost
    cost_unit: str
    scales: tuple[ScaleChance, ...]  # all of them, the chosen one too
    familiar: bool  # whether the sample resembles what the predictor learnt from
    features: tuple[FeatureShare, ...]  # those that moved the prediction at the chosen scale most, by falling size


def explain(artifact: Artifact, decision: Decision, image_features: np.ndarray, question: str) -> Explanation:
    """Take a decision apart; a few milliseconds.

    Args:
        artifact: the one that decided.
        decision: one that asked nobody (forced, fallback) is explained by what is predicted now.
        image_features: (F,) of the sample's picture, of the pixels or the tower as the artifact takes them.
        question: the sample's.
    """
    features, questions = image_features[None], [question]
    probabilities = decision.probabilities
    if probabilities is None:
        probabilities = tuple(artifact.predictor.predict_proba(features, questions)[0].tolist())
    return Explanation(
        tokens=decision.tokens,
        price=decision.price,
        cost_unit=artifact.cost_unit,
        scales=tuple(
            ScaleChance(tokens, p, cost, p - decision.price * cost)
            for tokens, p, cost in zip(artifact.ladder, probabilities, artifact.costs, strict=True)
        ),
        familiar=bool(artifact.familiarity.knows(features, questions)[0]),
        features=tuple(
            FeatureShare(name, log_odds)
            for name, log_odds in artifact.predictor.contributions(image_features, question, decision.tokens)
        ),
    )
