"""API keys: who is let in, as whom, and that neither a path nor an error gives anything away."""

import asyncio
import hashlib
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.types import Message

from serving.access import Access, ApiKey, ApiKeys

SECRET, OTHER = "m3-0123456789abcdef", "m3-other"
KEYS = (
    ApiKey(name="alice", sha256=hashlib.sha256(SECRET.encode()).hexdigest(), tokens_per_minute=1000),
    ApiKey(name="bob", sha256=hashlib.sha256(OTHER.encode()).hexdigest().upper()),
)


class Holder(BaseModel):
    """Stands for the settings, which hold the keys."""

    model_config = ConfigDict(extra="forbid")

    api_keys: ApiKeys = ()


def app_of(keys: tuple[ApiKey, ...] = KEYS) -> FastAPI:
    """Says who asks, whatever the path."""
    app = FastAPI()
    app.add_middleware(Access, keys=keys)

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def who(request: Request) -> dict[str, Any]:
        key = request.state.api_key
        return {"name": request.state.key_name, "limit": key.tokens_per_minute if key else None}

    return app


def send(app: FastAPI, method: str = "GET", path: str = "/v1/models", **headers: str) -> httpx.Response:
    async def scenario() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(scenario())


def call(app: Any, path: str, headers: list[tuple[bytes, bytes]] | None = None, kind: str = "http") -> list[Message]:
    """What the app sends for a path just as it stands, when the body may not be read."""
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the request was read")

    async def keep(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "method": "GET",
        "path": path,
        "root_path": "",
        "query_string": b"",
        "headers": headers or [],
    }
    asyncio.run(app(scope, receive, keep))
    return sent


def test_a_key_is_let_in_under_its_name():
    assert send(app_of(), authorization=f"Bearer {SECRET}").json() == {"name": "alice", "limit": 1000}
    assert send(app_of(), authorization=f"bearer   {OTHER} ").json() == {"name": "bob", "limit": None}


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {SECRET}x",
        f"Bearer {SECRET[:-1]}",
        f"Bearer {SECRET.upper()}",
        f"Bearer {KEYS[0].sha256}",
        f"Basic {SECRET}",
        SECRET,
        f"Bearer {SECRET},{OTHER}",
    ],
)
def test_without_a_right_key_the_answer_is_401_in_openais_shape(header):
    reply = send(app_of(), "POST", **({} if header is None else {"authorization": header}))
    error = reply.json()["error"]
    assert reply.status_code == 401 and reply.headers["www-authenticate"] == "Bearer"
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_api_key", None)
    assert "Authorization: Bearer KEY" in error["message"] and "m3-" not in reply.text and "wrong" not in reply.text


def test_two_authorization_headers_are_refused():
    """A proxy before the service may have looked at the other one."""
    both = [(b"authorization", f"Bearer {key}".encode()) for key in (SECRET, OTHER)]
    assert call(app_of(), "/v1/models", both)[0]["status"] == 401


def test_a_refused_requests_body_is_not_read():
    assert call(app_of(), "/v1/chat/completions")[0]["status"] == 401


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_open_paths_need_no_key(path):
    assert send(app_of(), path=path).json() == {"name": "anonymous", "limit": None}


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//health",
        "/health/",
        "/health/../v1/models",
        "/v1/../health",
        "/health%2f..%2fv1",
        "/Health",
        "/HEALTH",
        "/health;x",
        "/health?x",
        "/health\x00",
        "/health\n",
        "/heal\u0074h\u200b",
        "/ready/x",
        "/docs",
        "/openapi.json",
    ],
)
def test_no_spelling_of_a_path_opens_another(path):
    """What isn't an open path, character by character, needs a key, whatever a router would make of it."""
    assert call(app_of(), path)[0]["status"] == 401


def test_a_websocket_needs_a_key_even_on_an_open_path():
    assert call(app_of(), "/health", kind="websocket") == [{"type": "websocket.close", "code": 1008}]


def test_without_keys_everybody_is_anonymous():
    assert send(app_of(()), authorization="Bearer whatever").json() == {"name": "anonymous", "limit": None}
    assert send(app_of(())).json() == {"name": "anonymous", "limit": None}


def test_one_requests_name_does_not_reach_another():
    """A server that shares its state among requests gets none of theirs."""
    shared: dict[str, Any] = {"lifespan": 1}
    seen = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["state"])

    scope = {
        "type": "http",
        "path": "/v1",
        "state": shared,
        "headers": [(b"authorization", f"Bearer {SECRET}".encode())],
    }
    asyncio.run(Access(inner, KEYS)(scope, None, None))  # type: ignore[arg-type]
    assert shared == {"lifespan": 1}
    assert seen == [{"lifespan": 1, "key_name": "alice", "api_key": KEYS[0]}]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Alice"},
        {"name": ""},
        {"name": "a" * 41},
        {"name": "a b"},
        {"name": "a\n"},
        {"name": "m3:rate"},
        {"sha256": SECRET},
        {"sha256": "0" * 63},
        {"sha256": "0" * 64 + "\n"},
        {"tokens_per_minute": 0},
        {"tokens_per_minute": 10**9},
        {"key": SECRET},
    ],
)
def test_a_wrong_entry_is_refused_by_field_and_not_repeated(wrong):
    """The real key put where its digest belongs must not get into a log by way of the error."""
    entry = {"name": "alice", "sha256": KEYS[0].sha256} | wrong
    with pytest.raises(ValidationError, match=f"api_keys.0.{next(iter(wrong))}") as refused:
        Holder.model_validate({"api_keys": [entry]})
    assert SECRET not in str(refused.value) and KEYS[0].sha256 not in str(refused.value)


def test_a_bare_key_in_the_list_is_refused_and_not_repeated():
    with pytest.raises(ValidationError, match="api_keys.0") as refused:
        Holder.model_validate({"api_keys": [SECRET]})
    assert SECRET not in str(refused.value)


def test_keys_need_their_own_name_and_digest():
    alice = KEYS[0].model_dump()
    with pytest.raises(ValidationError, match="given twice: alice"):
        Holder.model_validate({"api_keys": [alice, {"name": "alice", "sha256": KEYS[1].sha256}]})
    with pytest.raises(ValidationError, match="same sha256"):
        Holder.model_validate({"api_keys": [alice, {"name": "carol", "sha256": KEYS[0].sha256.upper()}]})
    assert Holder.model_validate({"api_keys": [key.model_dump() for key in KEYS]}).api_keys == KEYS


def test_a_digest_is_not_shown_with_its_key():
    assert KEYS[0].sha256 not in repr(KEYS)
