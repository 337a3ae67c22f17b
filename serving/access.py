"""Who may ask: API keys as `Authorization: Bearer KEY`, of which the service knows only the SHA-256 digests.

A digest without a salt is enough for keys that are long and random, as `secrets.token_urlsafe(32)` makes them.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.failures import Refused, failure_of

ANONYMOUS = "anonymous"  # the name of whoever needs no key
POLICY_VIOLATION = 1008  # a WebSocket's close code


class ApiKey(BaseModel):
    """One key: its name in logs and limits, its digest, and what it may spend."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9._-]{1,40}$", description="shown in logs")
    sha256: str = Field(pattern=r"^[0-9a-fA-F]{64}$", repr=False, description="64 hex digits of the key's SHA-256")
    tokens_per_minute: int | None = Field(
        None, ge=1, le=100_000_000, description="visual tokens that it may spend per minute; unset: no limit"
    )

    @model_validator(mode="wrap")
    @classmethod
    def _unseen(cls, given: Any, validate: ModelWrapValidatorHandler["ApiKey"]) -> "ApiKey":
        """An error doesn't repeat what was given: it may be the key itself, put where its digest belongs."""
        try:
            return validate(given)
        except ValidationError as error:
            hidden: list[Any] = [
                {"type": each["type"], "loc": each["loc"], "ctx": each.get("ctx", {}), "input": "(not shown)"}
                for each in error.errors()
            ]
            raise ValidationError.from_exception_data(cls.__name__, hidden) from None

    @property
    def digest(self) -> bytes:
        """SHA-256 of the key (32 bytes)."""
        return bytes.fromhex(self.sha256)


def _apart(keys: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
    names = [key.name for key in keys]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"each API key needs its own name; given twice: {', '.join(twice)}")
    if len({key.digest for key in keys}) < len(keys):
        raise ValueError("two names have the same sha256: each API key needs its own")
    return keys


ApiKeys = Annotated[tuple[ApiKey, ...], AfterValidator(_apart)]


class Access:
    """ASGI middleware that answers 401 to whoever has no key, before the body is read.

    Whom it lets in it names: `scope["state"]` gets `key_name`, and `api_key`, the ApiKey or None.

    Args:
        keys: without any, everybody is let in as ANONYMOUS.
        open_paths: let in without a key; compared with the path as the server decoded it, character by character.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKey] = (), open_paths: Sequence[str] = ("/health", "/ready")):
        self.app = app
        self._keys = tuple((key.digest, key) for key in keys)
        self._open = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        key = None
        if self._keys and not (scope["type"] == "http" and scope["path"] in self._open):
            given = _bearer(scope)
            key = None if given is None else self._find(given)
            if key is None:
                await _refuse(scope, receive, send, "unknown API key" if given else "no API key")
                return
        named = {"key_name": ANONYMOUS if key is None else key.name, "api_key": key}
        scope["state"] = scope.get("state", {}) | named  # a copy: a server may share its own among requests
        await self.app(scope, receive, send)

    def _find(self, given: bytes) -> ApiKey | None:
        """Compares with every key, so that the time taken doesn't tell which one is near."""
        digest = hashlib.sha256(given).digest()
        found = None
        for known, key in self._keys:
            if hmac.compare_digest(digest, known):
                found = key
        return found


def _bearer(scope: Scope) -> bytes | None:
    """The key that a request shows; None without one, or with more than one header."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, key = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
    return key.strip() or None if scheme.lower() == b"bearer" else None


async def _refuse(scope: Scope, receive: Receive, send: Send, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        return
    refused = Refused(401, "invalid_api_key", f"{reason}: send the header Authorization: Bearer KEY")
    response = failure_of(refused).response()
    response.headers["www-authenticate"] = "Bearer"
    await response(scope, receive, send)
