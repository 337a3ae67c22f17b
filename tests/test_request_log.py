"""Request ids and the line that each request leaves in the log."""

import asyncio
import json
import logging
import re
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Message

from serving.request_log import JsonLines, RequestLog, request_id

QUESTION = "what-nobody-may-read"


def app_of(**options: bool) -> FastAPI:
    app = FastAPI()
    app.add_exception_handler(KeyError, lambda request, error: JSONResponse({}, 500))
    app.add_middleware(RequestLog, **options)

    @app.post("/v1/things/{name}")
    async def thing(name: str, request: Request) -> dict[str, str | None]:
        await request.body()
        request.state.log |= {"tokens": 36, "why": "predicted", "model": "m3-auto", "question": QUESTION}
        request.state.log["decision_id"] = "x" * 10_000
        logging.getLogger("some.module").warning("on the way")
        return {"in_thread": await asyncio.to_thread(request_id)}

    @app.get("/broken")
    async def broken() -> None:
        raise KeyError("a bug")

    @app.get("/stream")
    async def stream(request: Request, fails: bool = False, waits: bool = False) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            if waits:
                await asyncio.sleep(60)
            if fails:
                raise RuntimeError("broke on the way")
            request.state.log["completion_tokens"] = 2
            yield b"two"

        return StreamingResponse(pieces())

    return app


async def send(app: FastAPI, method: str, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})


async def hand(app: Any, path: str, arriving: Iterable[Message], gone_after: int | None = None, **scope: Any) -> int:
    """Run a request by hand: what `receive` gives, after how many messages `send` finds nobody; returns those sent."""
    messages = iter(arriving)
    taken = 0

    async def receive() -> Message:
        try:
            return next(messages)
        except StopIteration:
            return await asyncio.Event().wait()  # type: ignore[return-value]  # never

    async def sending(message: Message) -> None:
        nonlocal taken
        if taken == gone_after:
            raise OSError("nobody listens")
        taken += 1

    path, _, query = path.partition("?")
    request = {"type": "http", "method": "GET", "path": path, "root_path": "", "query_string": query.encode()}
    asgi = {"version": "3.0", "spec_version": "2.4"}
    await app(request | {"asgi": asgi, "headers": [], "http_version": "1.1"} | scope, receive, sending)
    return taken


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == "m3.access"]


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="m3.access")


async def test_a_request_leaves_one_line(caplog):
    reply = await send(app_of(), "POST", "/v1/things/secret-name?secret=query", x_secret="header")
    (line,) = lines(caplog)
    assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    assert line.pop("duration_ms") > 0
    assert line.pop("decision_id") == "x" * 200
    assert line == {
        "request_id": reply.headers["x-request-id"],
        "method": "POST",
        "route": "/v1/things/{name}",
        "status": 200,
        "key": None,
        "ended": "complete",
        "tokens": 36,
        "why": "predicted",
        "model": "m3-auto",
    }
    assert "secret" not in caplog.text and QUESTION not in caplog.text


async def test_an_id_is_made_where_none_came():
    app = app_of()
    ids = [(await send(app, "GET", "/stream")).headers["x-request-id"] for _ in range(2)]
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids) and ids[0] != ids[1]


@pytest.mark.parametrize("given", ["a", "A.b_c-9", "x" * 128])
async def test_a_callers_id_is_kept(caplog, given):
    reply = await send(app_of(), "POST", "/v1/things/a", x_request_id=given)
    assert reply.headers.get_list("x-request-id") == [given]
    assert reply.json() == {"in_thread": given}
    assert lines(caplog)[0]["request_id"] == given


@pytest.mark.parametrize("given", ["", " ", "x" * 129, "a b", 'a"b', "a\\nb", "ä", "a;b", "a\n"])
async def test_an_id_that_cannot_be_logged_is_replaced(caplog, given):
    headers = [(b"x-request-id", given.encode())]
    await hand(app_of(), "/stream", [{"type": "http.request"}], headers=headers)
    assert re.fullmatch("[0-9a-f]{32}", lines(caplog)[0]["request_id"])


@pytest.mark.parametrize(
    ("method", "path", "status", "route"),
    [
        ("GET", "/nowhere/secret", 404, None),
        ("GET", "/v1/things/a", 405, "/v1/things/{name}"),
        ("GET", "/broken", 500, "/broken"),
    ],
)
async def test_errors_have_the_id_and_leave_a_line(caplog, method, path, status, route):
    reply = await send(app_of(), method, path)
    (line,) = lines(caplog)
    assert (reply.status_code, line["status"], line["route"]) == (status, status, route)
    assert reply.headers["x-request-id"] == line["request_id"]


async def test_a_made_up_method_is_not_logged(caplog):
    await send(app_of(), "SECRET", "/stream")
    assert lines(caplog)[0]["method"] == "other"


async def test_behind_a_server_that_sends_the_id_back_it_is_not_sent_twice():
    reply = await send(app_of(send_back=False), "GET", "/stream", x_request_id="mine")
    assert "x-request-id" not in reply.headers


async def test_a_streams_line_comes_when_it_ended(caplog):
    """What the handler learnt on the way is in it."""
    seen: list[int] = []
    app = app_of()

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Message) -> None:
            seen.append(len(lines(caplog)))
            await send(message)

        await app(scope, receive, sending)

    await hand(counting, "/stream", [{"type": "http.request"}])
    assert seen == [0] * 4
    (line,) = lines(caplog)
    assert (line["ended"], line["status"], line["completion_tokens"]) == ("complete", 200, 2)


async def test_a_stream_that_breaks_ends_in_error(caplog):
    with pytest.raises(RuntimeError, match="broke on the way"):
        await hand(app_of(), "/stream?fails=1", [{"type": "http.request"}])
    (line,) = lines(caplog)
    assert (line["ended"], line["status"]) == ("error", 200)


async def test_a_handler_can_say_that_a_stream_ended_in_error(caplog):
    """An error event is a complete answer on the wire."""

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        scope["state"]["log"]["ended"] = "error"
        await send({"type": "http.response.body"})

    assert await hand(RequestLog(inner), "/", []) == 2
    assert lines(caplog)[0]["ended"] == "error"


async def test_a_client_that_is_gone_when_a_piece_is_sent(caplog):
    with suppress(Exception):
        await hand(app_of(), "/stream", [{"type": "http.request"}], gone_after=2)
    (line,) = lines(caplog)
    assert (line["ended"], line["status"]) == ("client_gone", 200)


async def test_a_client_that_hangs_up_while_a_piece_is_awaited(caplog):
    """As uvicorn tells it, by a message."""
    arriving = [{"type": "http.request"}, {"type": "http.disconnect"}]
    await hand(app_of(), "/stream?waits=1", arriving, asgi={"version": "3.0", "spec_version": "2.3"})
    assert lines(caplog)[0]["ended"] == "client_gone"


async def test_a_request_that_is_cancelled(caplog):
    """As Ray Serve ends one whose client is gone."""
    at_work = asyncio.Event()

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        at_work.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(hand(RequestLog(inner), "/", []))
    await at_work.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (line,) = lines(caplog)
    assert (line["ended"], line["status"]) == ("client_gone", None)


async def test_a_disconnect_after_the_answer_is_no_matter(caplog):
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": [(b"X-Request-Id", b"another")]})
        await send({"type": "http.response.body"})
        await receive()

    await hand(RequestLog(inner), "/", [{"type": "http.disconnect"}])
    assert lines(caplog)[0]["ended"] == "complete"


async def test_an_app_that_never_answers_ends_in_error(caplog):
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        pass

    await hand(RequestLog(inner), "/", [])
    assert (lines(caplog)[0]["ended"], lines(caplog)[0]["status"]) == ("error", None)


async def test_requests_at_the_same_time_keep_their_own_ids(caplog):
    app = app_of()
    names = [f"request-{number}" for number in range(20)]
    replies = await asyncio.gather(*(send(app, "POST", f"/v1/things/{name}", x_request_id=name) for name in names))
    assert [reply.json()["in_thread"] for reply in replies] == names
    assert sorted(line["request_id"] for line in lines(caplog)) == sorted(names)
    assert request_id() is None


async def test_the_name_of_the_key_is_logged(caplog):
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        scope["state"] = scope["state"] | {"key_name": "alice"}  # as Access does

    await hand(RequestLog(inner), "/", [])
    assert lines(caplog)[0]["key"] == "alice"


async def test_other_records_are_json_with_the_requests_id(caplog):
    caplog.handler.setFormatter(JsonLines())
    await send(app_of(), "POST", "/v1/things/a", x_request_id="mine")
    written = [json.loads(line) for line in caplog.text.splitlines()]
    assert [line["request_id"] for line in written if "message" not in line] == ["mine"]
    (warning,) = [line for line in written if line.get("logger") == "some.module"]
    assert datetime.fromisoformat(warning.pop("time")).utcoffset() is not None
    assert warning == {"level": "WARNING", "logger": "some.module", "request_id": "mine", "message": "on the way"}


def test_a_record_stays_one_line_whatever_is_in_it():
    """No text can start a line of its own, an exception's included."""
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, 'a %s\n{"forged": 1}\u2028', ("b",), sys.exc_info())
    text = JsonLines().format(record)
    assert len(text.splitlines()) == 1
    line = json.loads(text)
    assert line["message"] == 'a b\n{"forged": 1}\u2028' and "ValueError: two\nlines" in line["exception"]
    assert line["request_id"] is None
