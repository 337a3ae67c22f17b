"""What stands around all handlers: the last resort for errors, the count of answers, the limit of bodies."""

import asyncio
import logging

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.failures import Refused, failure_of
from serving.metrics import Metrics

logger = logging.getLogger(__name__)


class LastResort:
    """Middleware: an error that nobody foresaw is logged, and answered as a bare 500 in OpenAI's shape."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http" or started:
                raise
            logger.exception("request failed")
            await failure_of(error).response()(scope, receive, send)


class Counted:
    """Middleware: counts answers by endpoint and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requested(getattr(scope.get("route"), "path", "other"), message["status"])
            await send(message)

        await self.app(scope, receive, watched)


async def read_body(request: Request, limit: int, timeout_s: float) -> bytes:
    """The request's body, at most `limit` bytes of it.

    Raises:
        Refused: 413, as soon as the body is known to be larger; 408, when it hasn't come in time.
    """
    too_large = Refused(413, "body_too_large", f"the request body is larger than {limit} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise Refused(408, "body_timeout", f"the request body hasn't come within {timeout_s:g} s") from None
    return bytes(body)
