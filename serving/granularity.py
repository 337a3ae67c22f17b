"""How many visual tokens a request asks for: by its model's name, its `m3` field or headers, its pictures' detail."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from complexity.errors import InvalidInput
from router.policy import Wish, check_bounds
from serving.conversation import Conversation
from serving.failures import Refused, shown
from serving.wire import Wishes

AUTO = "m3-auto"
WITH_LOSS = re.compile(rf"{AUTO}-(0?\.\d{{1,9}}|0)", re.ASCII)
HEADERS = {
    "x-m3-floor": "floor",
    "x-m3-ceiling": "ceiling",
    "x-m3-max-loss": "max_loss",
    "x-m3-cache": "cache",
    "x-m3-explain": "explain",
}


def model_name(tokens: int | None) -> str:
    """The name under which a number of visual tokens is asked for; None: the router decides."""
    return AUTO if tokens is None else f"m3-{tokens}"


def named(model: str, ladder: tuple[int, ...]) -> tuple[int | None, float | None]:
    """What a model's name asks for: a number of tokens, or else perhaps a share of accuracy that may be lost.

    Raises:
        Refused: 404, listing the names there are.
    """
    names = {model_name(tokens): tokens for tokens in (None, *ladder)}
    if model in names:
        return names[model], None
    if loss := WITH_LOSS.fullmatch(model):
        return None, float(loss[1])
    known = ", ".join(names)
    message = f"model {shown(model)} does not exist; choose one of {known}, or {AUTO}-LOSS such as {AUTO}-0.02"
    raise Refused(404, "model_not_found", message, "model")


def low_detail(ladder: tuple[int, ...]) -> int:
    """The most visual tokens of a picture sent with detail "low": the ladder's middle, 36 of 1 to 576."""
    return ladder[(len(ladder) - 1) // 2]


def wishes_of(field: Wishes, headers: Mapping[str, str]) -> Wishes:
    """The request's `m3` field, and what headers say beyond it.

    Raises:
        Refused: a header makes no sense.
    """
    told = {name: headers[header] for header, name in HEADERS.items() if header in headers}
    told = {name: value for name, value in told.items() if getattr(field, name) is None}
    if not told:
        return field
    given: dict[str, Any] = dict(told)
    if "cache" in given:
        given["cache"] = [wish.strip() for wish in told["cache"].split(",")]
    try:
        read = Wishes.model_validate(given, strict=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        header = next(header for header, name in HEADERS.items() if name == first["loc"][0])
        raise Refused(400, "invalid_value", f"header {header}: {first['msg']}", header) from None
    return field.model_copy(update={name: getattr(read, name) for name in told})


def granularity(
    model: str, wishes: Wishes, conversation: Conversation, ladder: tuple[int, ...]
) -> tuple[int | None, Wish]:
    """The number of visual tokens that is asked for, None where the router decides, and what it is to heed then.

    Raises:
        Refused: there is no such model, or the name, the wishes and the pictures' detail contradict each other.
    """
    tokens, max_loss = named(model, ladder)
    details = [image.detail for image in conversation.images[-conversation.asked :]]
    high, low = "high" in details, all(detail == "low" for detail in details)
    param = conversation.images[-1].param.removesuffix("url") + "detail"
    floor, ceiling = wishes.floor, wishes.ceiling
    cache = wishes.cache or ()
    wish = Wish(fresh="no-cache" in cache, store="no-store" not in cache)
    if tokens is not None:
        if (floor, ceiling, wishes.max_loss) != (None, None, None):
            message = f"m3.floor, m3.ceiling and m3.max_loss steer {AUTO}; {model} has a fixed number of tokens"
            raise Refused(400, "invalid_value", message, "m3")
        if high and tokens != ladder[-1] or low and tokens > low_detail(ladder):
            message = f"detail steers {AUTO}; {model} has a fixed number of tokens, which isn't this detail's"
            raise Refused(400, "invalid_value", message, param)
        return tokens, wish
    if None not in (max_loss, wishes.max_loss) and max_loss != wishes.max_loss:
        raise Refused(400, "invalid_value", f"m3.max_loss differs from the one in the name {model}", "m3.max_loss")
    try:
        check_bounds(ladder, floor, ceiling)
    except InvalidInput as error:
        raise Refused(400, "invalid_value", str(error), f"m3.{error.param}") from None
    if high:
        if ceiling not in (None, ladder[-1]):
            raise Refused(400, "invalid_value", f"detail high is above m3.ceiling, {ceiling}", param)
        return ladder[-1], wish
    if low:
        ceiling = min(low_detail(ladder), ceiling or ladder[-1])
        if floor is not None and floor > ceiling:
            raise Refused(400, "invalid_value", f"detail low, at most {ceiling} tokens, is below m3.floor", param)
    loss = wishes.max_loss if max_loss is None else max_loss
    return None, Wish(floor, ceiling, loss, fresh=wish.fresh, store=wish.store)
