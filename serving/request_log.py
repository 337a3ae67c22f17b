"""One JSON line per request, and the id that ties it to everything else logged on the way.

A line holds nothing of what was asked: no question, picture, URL or header, and of what handlers add only the fields
named here.
"""

import asyncio
import json
import logging
import re
import time
import uuid
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HANDLERS_FIELDS = ("tokens", "why", "model", "visual_tokens", "completion_tokens", "decision_id")
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}  # a caller can make up more
MOST_CHARS = 200  # of a text that a handler adds
ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
HEADER = b"x-request-id"

access_log = logging.getLogger("m3.access")
_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def request_id() -> str | None:
    """The id of the request that is being answered; None outside of one."""
    return _request_id.get()


class JsonLines(logging.Formatter):
    """Log records as JSON, a line each, with the id of the request in which they came about."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name == access_log.name:
            return record.getMessage()  # is JSON
        line: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname,
            "logger": record.name,
            "request_id": request_id(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_requests(path: Path) -> None:
    """Have a process write its requests' lines to the end of a file, which may be moved away to begin a new one."""
    handler = WatchedFileHandler(path, encoding="utf-8")
    handler.setFormatter(JsonLines())
    access_log.addHandler(handler)
    access_log.setLevel(logging.INFO)
    access_log.propagate = False


class RequestLog:
    """ASGI middleware: gives each request an id, sends it back as x-request-id, and logs the request when it ended.

    Belongs outside of all others that answer, so that their answers have the id too. `scope["state"]` gets
    `request_id`, and `log`, a dict in which handlers put what the line shall say, HANDLERS_FIELDS of it. A handler that
    ends a stream with an error event puts `ended: "error"` there, since on the wire such a stream is complete. When the
    request has ended, `outcome` holds its status and how it ended.

    Args:
        send_back: False behind Ray Serve, whose HTTP server adds x-request-id to every request and answer itself;
            the caller would get it twice.
    """

    def __init__(self, app: ASGIApp, send_back: bool = True):
        self.app = app
        self._send_back = send_back

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = _incoming(scope) or uuid.uuid4().hex
        scope["state"] = scope.get("state", {}) | {"request_id": name, "log": {}}
        started_s = time.perf_counter()
        status: int | None = None  # None: gone before an answer
        ended: str | None = None  # the first thing that ended it

        async def listening() -> Message:
            nonlocal ended
            message = await receive()
            if message["type"] == "http.disconnect":
                ended = ended or "client_gone"
            return message

        async def sending(message: Message) -> None:
            nonlocal ended, status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._send_back:
                    others = [pair for pair in message.get("headers", ()) if pair[0].lower() != HEADER]
                    message = {**message, "headers": [*others, (HEADER, name.encode())]}
            try:
                await send(message)
            except OSError:  # how servers tell that nobody listens any more
                ended = ended or "client_gone"
                raise
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                ended = ended or "complete"

        token = _request_id.set(name)
        try:
            await self.app(scope, listening, sending)
        except asyncio.CancelledError:  # so Ray Serve ends a request whose client is gone
            ended = ended or "client_gone"
            raise
        except Exception:
            status = status or 500
            raise
        finally:
            outcome = {"status": status, "ended": scope["state"]["log"].get("ended", ended or "error")}
            scope["state"]["outcome"] = outcome
            access_log.info(_line(scope, outcome, 1000 * (time.perf_counter() - started_s)))
            _request_id.reset(token)


def _incoming(scope: Scope) -> str | None:
    """The id that the caller gave, where it is one that can be logged; the first, as Ray Serve does."""
    given = next((value for name, value in scope["headers"] if name == HEADER), b"")
    return given.decode() if ID.fullmatch(given) else None


def _line(scope: Scope, outcome: dict[str, Any], duration_ms: float) -> str:
    state = scope["state"]
    line = {
        "time": _time(time.time()),
        "request_id": state["request_id"],
        "method": scope["method"] if scope["method"] in METHODS else "other",
        "route": getattr(scope.get("route"), "path", None),  # its template; None: refused before, or no such route
        "status": outcome["status"],
        "duration_ms": round(duration_ms, 3),
        "key": state.get("key_name"),
        "ended": outcome["ended"],
    }
    added = {field: _short(state["log"][field]) for field in HANDLERS_FIELDS if field in state["log"]}
    return json.dumps(line | added)


def _short(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float) else str(value)[:MOST_CHARS]


def _time(posix_s: float) -> str:
    return datetime.fromtimestamp(posix_s, UTC).isoformat(timespec="milliseconds")
