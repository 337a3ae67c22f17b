"""A request body's bytes -> one of the wire types; what makes no sense is refused by name."""

import re
from itertools import islice
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from serving.failures import Refused, refusal_of

T = TypeVar("T", bound=BaseModel)

MOST_PIECES = 100_000  # several times what a full batch of long conversations has
PIECE = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{,]', re.DOTALL)  # a text, or what comes before a value


def parsed(wire_type: type[T], body: bytes) -> T:
    """A body as a wire type.

    Raises:
        Refused: it isn't JSON, or not in shape; the first thing wrong is named. Or it has too many pieces.
    """
    if _crumbled(body):
        message = f"the body has more than {MOST_PIECES} texts, commas and opening brackets outside of texts"
        raise Refused(400, "too_many_values", message)
    try:
        return wire_type.model_validate_json(body)
    except ValidationError as error:
        raise refusal_of(error) from None


def _crumbled(body: bytes) -> bool:
    """Whether a body is cut into so many values that reading them costs far more than its size.

    pydantic collects every error there is, at about 1 KB each: 10 MB of `{},` take 2.5 GB.
    """
    if sum(map(body.count, (b'"', b",", b"[", b"{"))) <= MOST_PIECES:  # pictures have none of these
        return False
    return next(islice(PIECE.finditer(body), MOST_PIECES, None), None) is not None
