"""Every way a request can fail, as an HTTP status and an error body in OpenAI's shape; never with image data in it."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi.responses import JSONResponse
from pydantic import ValidationError

from complexity.errors import InvalidInput, M3Error
from serving.model import ModelOverloaded, ModelTimeout, ModelUnavailable
from serving.openai import REASONS
from serving.replies import ErrorBody, ErrorDetail

SHOWN_CHARS = 60  # of a value that came from the caller
TAGS = ("text", "image_url", "system", "developer", "user", "assistant")  # by which pydantic tells types apart


class Refused(InvalidInput):
    """A request that can't be answered as it stands: the status and code of the error, and the field at fault."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None):
        super().__init__(message, param)
        self.status = status
        self.code = code


class FeedbackNotStored(M3Error):
    """The feedback couldn't be made durable; the same request may be sent again (HTTP 503)."""


@dataclass(frozen=True)
class Failure:
    """An error as it goes over the wire."""

    status: int
    detail: ErrorDetail
    retry_after_s: int | None = None

    def response(self) -> JSONResponse:
        """The reply that tells it."""
        headers = {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}
        body = ErrorBody(error=self.detail).model_dump()
        return JSONResponse(body, status_code=self.status, headers=headers)


def failure_of(error: Exception) -> Failure:
    """The wire form of an exception; one that nobody foresaw becomes a bare 500."""
    match error:
        case Refused():
            return _client(error.status, error.code, str(error), error.param)
        case InvalidInput():
            return _client(400, "invalid_value", str(error), error.param)
        case ModelOverloaded():
            detail = ErrorDetail(message=str(error), type="rate_limit_error", code="overloaded")
            return Failure(429, detail, retry_after_s=error.retry_after_s)
        case ModelUnavailable():
            detail = ErrorDetail(message=str(error), type="server_error", code="model_unavailable")
            return Failure(503, detail, retry_after_s=1)
        case FeedbackNotStored():
            detail = ErrorDetail(message=str(error), type="server_error", code="feedback_not_stored")
            return Failure(503, detail, retry_after_s=1)
        case ModelTimeout():
            return Failure(504, ErrorDetail(message=str(error), type="server_error", code="timeout"))
        case _:
            detail = ErrorDetail(message="internal error", type="server_error", code="internal_error")
            return Failure(500, detail)


def refusal_of(error: ValidationError) -> Refused:
    """The first thing wrong with a request body, named by its path, without what stood there."""
    first = error.errors(include_url=False, include_input=False)[0]
    kind, where = first["type"], _path(first["loc"])
    if kind == "json_invalid":
        return Refused(400, "invalid_json", f"the body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}")
    if kind == "extra_forbidden":
        return Refused(400, "unknown_parameter", f"unknown or unsupported field {where!r}", where)
    if kind == "union_tag_invalid":  # pydantic's message repeats the tag, whatever its length
        return Refused(400, "invalid_value", f"{where}: type must be one of {first['ctx']['expected_tags']}", where)
    reason = REASONS.get(str(first["loc"][-1])) if first["loc"] else None
    message = f"{where or 'body'}: {first['msg']}" + (f" ({reason})" if reason else "")
    code = "missing_required_parameter" if kind == "missing" else "invalid_value"
    return Refused(400, code, message, where)


def shown(value: object) -> str:
    """A caller's value, short enough for a message."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."


def _client(status: int, code: str, message: str, param: str | None) -> Failure:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return Failure(status, ErrorDetail(message=message, type=kind, param=param, code=code))


def _path(location: Sequence[int | str]) -> str | None:
    """Dotted path of a field, without the kind of message or part that pydantic adds after its number."""
    steps = [
        str(step)[:SHOWN_CHARS]
        for i, step in enumerate(location)
        if not (i and isinstance(location[i - 1], int) and step in TAGS)
    ]
    return ".".join(steps) or None
